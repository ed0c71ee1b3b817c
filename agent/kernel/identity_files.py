"""The files that say who this host is to the collector: have they been replaced?

The reporter reads them as root, before it gives up power, and can't read them again. Whoever renews
them (enrollment, a configuration tool) replaces them; then the reporter is started anew.
"""

import os
from pathlib import Path

NAMES = ("key.pem", "cert.pem", "ca.pem")
Stamp = tuple[tuple[int, int, int], ...]


class IdentityFiles:
    """Asked every second; `changed` once for each change, when a second has passed since."""

    def __init__(self, directory: str) -> None:
        """directory: "" for none."""
        self._paths = [Path(directory, name) for name in NAMES] if directory else []
        self._used = self._last = self._stamp()

    def changed(self) -> bool:
        """Return whether all are there, other than those in use, and the same as last time."""
        now = self._stamp()
        settled, self._last = now == self._last, now
        if now == self._used or not settled or len(now) < len(self._paths):
            return False
        self._used = now
        return True

    def _stamp(self) -> Stamp:
        try:
            states = [os.stat(path) for path in self._paths]
        except OSError:
            return ()
        return tuple((state.st_ino, state.st_mtime_ns, state.st_size) for state in states)
