"""The one sysctl of the nft engine: an accepted socket takes the mark of its SYN.

It is of the network namespace, not of one instance. What it was before the first of us is kept
in /run (gone at reboot, as the setting is), and the last one that is cleaned puts it back.
"""

from pathlib import Path

from agent.kernel.claims import state_dir

FWMARK_ACCEPT = Path("/proc/sys/net/ipv4/tcp_fwmark_accept")


def _note() -> Path:
    return state_dir() / "tcp_fwmark_accept"


def value() -> str:
    """Return the value now. Raises OSError."""
    return FWMARK_ACCEPT.read_text(encoding="ascii").strip()


def ensure() -> bool:
    """Set it to 1, remembering what it was; return whether it had to be set. Raises OSError."""
    was = value()
    if was == "1":
        return False
    note = _note()
    if not note.exists():
        note.write_text(was, encoding="ascii")
    FWMARK_ACCEPT.write_text("1", encoding="ascii")
    return True


def restore() -> bool:
    """Put back what was before the first of us; return whether there was such a note.

    For the last instance only. Raises OSError.
    """
    note = _note()
    if not note.exists():
        return False
    FWMARK_ACCEPT.write_text(note.read_text(encoding="ascii"), encoding="ascii")
    note.unlink()
    return True
