"""The one sysctl of the nft engine: an accepted socket takes the mark of its SYN.

It is of the network namespace, not of us. What it was before is kept beside the pins (as the
name of an empty directory: bpffs holds no files), so that it can be put back without us.
"""

from pathlib import Path

FWMARK_ACCEPT = Path("/proc/sys/net/ipv4/tcp_fwmark_accept")
_REMEMBERED = "was-tcp_fwmark_accept-"


def value() -> str:
    """Return the value now. Raises OSError."""
    return FWMARK_ACCEPT.read_text(encoding="ascii").strip()


def ensure(pin_dir: Path) -> bool:
    """Set it to 1, remembering what it was; return whether it had to be set. Raises OSError."""
    was = value()
    if was == "1":
        return False
    if not any(pin_dir.glob(_REMEMBERED + "*")):
        (pin_dir / (_REMEMBERED + was)).mkdir(mode=0o700)
    FWMARK_ACCEPT.write_text("1", encoding="ascii")
    return True


def restore(pin_dir: Path, *, keep: bool) -> bool:
    """Put back what was remembered (unless another instance needs it: keep), and forget it."""
    changed = False
    for note in pin_dir.glob(_REMEMBERED + "*"):
        if not keep:
            FWMARK_ACCEPT.write_text(note.name.removeprefix(_REMEMBERED), encoding="ascii")
            changed = True
        note.rmdir()
    return changed
