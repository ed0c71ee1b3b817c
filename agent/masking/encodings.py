"""The forms in which a known secret can come back: what the scrubber looks for.

Literals are searched as they are: the secret itself, base64 (both alphabets) at its three
alignments within a longer text, and hexadecimal. One tolerant pattern covers every mix of
percent-encoding, JSON string escapes and plain characters.
"""

import base64
import re

from agent.model.secret import Secret

SECRET_BYTES_MIN = 6  # shorter ones would mask by accident: refused
SECRET_BYTES_MAX = 16 * 1024  # longer ones would have to be held back: refused
TOLERANT_BYTES_MAX = 64  # of a longer secret its last 64 bytes are searched for in mixed escapes
ESCAPED_BYTES_MAX = 6  # of one character in mixed escapes: \u00XX

_SHORT_ESCAPES = {
    0x22: rb'\\"', 0x2F: rb"\\/", 0x5C: rb"\\\\", 0x08: rb"\\b",
    0x0C: rb"\\f", 0x0A: rb"\\n", 0x0D: rb"\\r", 0x09: rb"\\t",
}  # fmt: skip


def literals(secret: Secret) -> tuple[bytes, ...]:
    """Return the distinct literal forms, the plain one first.

    Raises:
        ValueError: the secret is shorter than SECRET_BYTES_MIN or longer than SECRET_BYTES_MAX.
    """
    value = secret.reveal()
    if not SECRET_BYTES_MIN <= len(value) <= SECRET_BYTES_MAX:
        raise ValueError("the secret is too short or too long to be scrubbed")
    forms = [value]
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + value)
        # only the characters that no neighbouring byte has a part in
        exact = encoded[-(-offset * 8 // 6) : (offset + len(value)) * 8 // 6]
        forms += [exact, exact.replace(b"+", b"-").replace(b"/", b"_")]
    forms += [value.hex().encode(), value.hex().upper().encode()]
    return tuple(dict.fromkeys(forms))


def tolerant_pattern(secret: Secret) -> bytes:
    """Return a pattern for the secret in any mix of percent and JSON escapes."""
    return b"".join(_atom(byte) for byte in secret.reveal()[-TOLERANT_BYTES_MAX:])


def tolerant_start(secret: Secret) -> bytes:
    """Return a pattern for a proper beginning of it that the data ends with."""
    atoms = [_atom(byte) for byte in secret.reveal()[-TOLERANT_BYTES_MAX:]]
    pattern = rb"\Z"
    for atom in reversed(atoms[1:]):
        pattern = rb"(?:\Z|" + atom + pattern + rb")"
    return atoms[0] + pattern


def _atom(byte: int) -> bytes:
    digits = b"".join(
        b"[%c%c]" % (digit, digit ^ 0x20) if digit > 0x39 else b"%c" % digit
        for digit in b"%02X" % byte
    )
    forms = [re.escape(b"%c" % byte), b"%" + digits, rb"\\u00" + digits]
    if byte in _SHORT_ESCAPES:
        forms.append(_SHORT_ESCAPES[byte])
    return b"(?:" + b"|".join(forms) + b")"
