"""The forms in which a known secret can come back: what the scrubber looks for.

Literals are searched as they are: the secret itself, base64 (both alphabets) at its three
alignments within a longer text, and hexadecimal, also with a space between bytes (so S3 quotes a
request that it finds signed wrongly, as CanonicalRequestBytes), and as XML and the usual templates
of HTML write it. One tolerant pattern covers every mix of percent-encoding, JSON string escapes
and plain characters.
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
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ENTITIES = tuple(  # what templates make of characters: XML, Python, Go, Mustache, Handlebars
    str.maketrans(_MARKUP | further)
    for further in (
        {},
        {'"': "&quot;", "'": "&#x27;"},
        {'"': "&#34;", "'": "&#39;", "+": "&#43;"},
        {'"': "&quot;", "'": "&#39;", "/": "&#x2F;", "`": "&#x60;", "=": "&#x3D;"},
        {'"': "&quot;", "'": "&#x27;", "`": "&#x60;", "=": "&#x3D;"},
    )
)
_BACKSLASH = 0x5C
_ESCAPED_BACKSLASH = rb"(?:\\u005[Cc]|%5[Cc]"


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
    digits, spaced = value.hex().encode(), value.hex(" ").encode()
    forms += [digits, digits.upper(), spaced, spaced.upper()]
    text = value.decode("latin-1")
    forms += [text.translate(entities).encode("latin-1") for entities in _ENTITIES]
    return tuple(dict.fromkeys(forms))


def tolerant_pattern(secret: Secret) -> bytes:
    """Return a pattern for the secret in any mix of percent and JSON escapes.

    A backslash may be one or the half of an escaped one, so that many of them could be read in
    exponentially many ways: a run of them is plain or escaped as a whole, and is not read again
    once the character behind it was found.
    """
    return b"".join(whole for _, whole in _segments(secret))


def tolerant_start(secret: Secret) -> bytes:
    """Return a pattern for a proper beginning of it that the data ends with, or a little more."""
    pattern = b""
    for begun, whole in reversed(_segments(secret)):
        pattern = whole + rb"(?:\Z|" + pattern + b")" if pattern else whole + rb"\Z"
        if begun:
            pattern = b"(?:" + begun + rb"\Z|" + pattern + b")"
    return pattern


def _segments(secret: Secret) -> list[tuple[bytes, bytes]]:
    """Return patterns of each character, with the backslashes before it: (beginning, whole)."""
    value = secret.reveal()[-TOLERANT_BYTES_MAX:]
    found: list[tuple[bytes, bytes]] = []
    run = 0
    for byte in value:
        if byte == _BACKSLASH:
            run += 1
        elif run:
            segment = _run(run) + _atom(byte)
            found.append((_begun(run), b"(?>" + segment + b")" if found else segment))
            run = 0
        else:
            found.append((b"", _atom(byte)))
    if run:
        found.append((_begun(run), _run(run)))
    return found


def _run(count: int) -> bytes:
    if count == 1:  # simple enough to be looked for by its first byte
        return _ESCAPED_BACKSLASH + rb"|\\\\|\\)"
    plain, escaped = _ESCAPED_BACKSLASH + rb"|\\)", _ESCAPED_BACKSLASH + rb"|\\\\)"
    return b"(?:%b{%d}|%b{%d})" % (escaped, count, plain, count)


def _begun(count: int) -> bytes:
    return _ESCAPED_BACKSLASH + rb"|\\){1,%d}" % (2 * count)


def _atom(byte: int) -> bytes:
    digits = b"".join(
        b"[%c%c]" % (digit, digit ^ 0x20) if digit > 0x39 else b"%c" % digit
        for digit in b"%02X" % byte
    )
    forms = [b"%" + digits, rb"\\u00" + digits]
    if byte in _SHORT_ESCAPES:
        forms.append(_SHORT_ESCAPES[byte])
    forms.append(re.escape(b"%c" % byte))  # last: of `%25` the whole is one character
    return b"(?:" + b"|".join(forms) + b")"
