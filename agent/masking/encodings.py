"""The literal forms in which a known secret can come back: what is searched for in any data.

The secret itself, base64 (both alphabets) at its three alignments within a longer text, and
hexadecimal, also with a space between bytes (so S3 quotes a request that it finds signed wrongly,
as CanonicalRequestBytes); and, where the data has zero bytes, UTF-16.
"""

import base64
from collections.abc import Iterator

from agent.model.secret import Secret

SECRET_BYTES_MIN = 6  # shorter ones would mask by accident: refused
SECRET_BYTES_MAX = 16 * 1024  # longer ones would have to be held back: refused


def literals(secret: Secret) -> tuple[bytes, ...]:
    """Return the distinct literal forms, the plain one first.

    Raises:
        ValueError: the secret is shorter than SECRET_BYTES_MIN or longer than SECRET_BYTES_MAX.
    """
    value = secret.reveal()
    if not SECRET_BYTES_MIN <= len(value) <= SECRET_BYTES_MAX:
        raise ValueError("the secret is too short or too long to be scrubbed")
    forms = [value]
    for exact in aligned(value):
        forms += [exact, exact.replace(b"+", b"-").replace(b"/", b"_")]
    digits, spaced = value.hex().encode(), value.hex(" ").encode()
    forms += [digits, digits.upper(), spaced, spaced.upper()]
    return tuple(dict.fromkeys(forms))


def aligned(value: bytes) -> Iterator[bytes]:
    """Return the base64 characters that no neighbouring byte has a part in, at each alignment."""
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + value)
        yield encoded[-(-offset * 8 // 6) : (offset + len(value)) * 8 // 6]


def wide(secret: Secret) -> bytes:
    """Return what UTF-16 of either order has of it: without the zero byte at one of its ends."""
    return b"\0".join(bytes((byte,)) for byte in secret.reveal())
