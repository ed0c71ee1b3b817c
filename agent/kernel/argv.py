"""argv as the kernel recorded it: split, redacted, bounded, before any record is made."""

from agent.model.redaction import redact

ARGUMENTS_MAX = 64  # more are left out, and argv is marked as cut
ARGUMENT_CHARS_MAX = 256  # a longer argument is cut, and argv is marked as cut


def split_argv(raw: bytes, total: int) -> tuple[tuple[str, ...], bool]:
    """Return the redacted arguments of a 0-divided block, and whether any part is missing."""
    parts = tuple(part.decode(errors="replace") for part in raw.split(b"\0"))
    whole = total <= len(raw)
    if whole and parts and parts[-1] == "":
        parts = parts[:-1]
    shown = redact(parts[:ARGUMENTS_MAX])
    cut = not whole or len(parts) > ARGUMENTS_MAX or len(shown) < len(parts[:ARGUMENTS_MAX])
    long = any(len(part) > ARGUMENT_CHARS_MAX for part in parts)
    return tuple(part[:ARGUMENT_CHARS_MAX] for part in shown), cut or long
