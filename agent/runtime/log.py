"""Log lines for journald or a terminal: level, role, message. No secrets, no peers' bytes."""

import logging
import os
import sys

_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class _Format(logging.Formatter):
    """`<6>role: message` under systemd (sd-daemon(3)), `level role: message` elsewhere."""

    def __init__(self, role: str, *, journal: bool) -> None:
        super().__init__()
        self._role = role
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        text = text.replace("\n", "\n    ")
        if self._journal:
            return f"<{_PRIORITY.get(record.levelname, 6)}>{self._role}: {text}"
        return f"{self.formatTime(record)} {record.levelname.lower()} {self._role}: {text}"


def configure(role: str, level: str) -> None:
    """Log to stderr from now on."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(_Format(role, journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(level.upper())
