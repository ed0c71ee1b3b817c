"""One pattern for a secret in any mix of plain characters and the escapes that servers write.

Percent-encoding (also of what was encoded before, three times more), the backslash escapes of JSON,
JavaScript, Python, C and shells (also within a text that was escaped before), and the character
references of HTML and XML, by number or by name. A character that is no ASCII is known as its bytes
and, where the secret is UTF-8, by its code point.

Sources: RFC 3986 section 2.1, RFC 8259 section 7, ECMA-262 section 12.9.4, HTML section 13.1.4.
"""

import re
from html.entities import html5

from agent.model.secret import Secret

TOLERANT_BYTES_MAX = 64  # of a longer secret its last 64 bytes are searched for in mixed escapes
ESCAPED_BYTES_MAX = 40  # of one byte in mixed escapes: &amp;amp;#x000002B; and the like

_BACKSLASH = "\\"
_ESCAPED_BACKSLASH = (
    rb"(?:\\(?:u005[Cc]|x5[Cc]|134)|%(?:25){0,3}5[Cc]|&(?:amp;){0,2}(?:#92|#[xX]5[Cc]|bsol);"
)
_LETTERS = {"\b": b"b", "\f": b"f", "\n": b"n", "\r": b"r", "\t": b"t"}
_QUOTED = "/\"'`$&<>="  # what some write behind a backslash as it is
_NAME_BYTES_MAX = 24
INTRODUCERS = b"%\\&=\r"  # what CUT begins with
CUT_BYTES_MAX = 64  # of it, more than any has
CUT = re.compile(
    rb"(?:%(?:25){0,3}[0-9A-Fa-f]?"
    rb"|\\{1,4}(?:u\{?[0-9A-Fa-f]{0,7}|x[0-9A-Fa-f]?|[0-7]{1,2})?|=3?|=?\r"
    rb"|&(?:amp;){0,2}(?:#[0-9A-Fa-fxX]{0,10}|[A-Za-z]{0,24}))\Z"
)
_LETTER_OR_DIGIT = rb"(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa])"
_PERCENT = re.compile(rb"%%(?:25){0,3}%b" % _LETTER_OR_DIGIT)
_BACKSLASHED = re.compile(
    rb"\\(?:u(?:\{|00%b)|x%b|0[67][0-7]|1[0-7]{2})" % (_LETTER_OR_DIGIT, _LETTER_OR_DIGIT)
)


def cut_escape(data: bytes) -> bytes:
    """Return the data without an escape at its end that may be incomplete."""
    end = data[-CUT_BYTES_MAX:]
    if len(end.translate(None, INTRODUCERS)) == len(end):
        return data
    found = CUT.search(end)
    return data[: len(data) - len(end) + found.start()] if found else data


def is_thorough(data: bytes) -> bool:
    """Whether letters or digits are escaped in it, which most encoders leave alone."""
    if b"%" in data and _PERCENT.search(data):
        return True
    if b"\\" in data and _BACKSLASHED.search(data):
        return True
    return b"&#" in data or b"amp;#" in data


def _names() -> dict[str, bytes]:
    """Return the names of references for each ASCII character, as alternatives of a pattern."""
    found: dict[str, set[bytes]] = {}
    for name, character in html5.items():
        if len(character) == 1 and character.isascii() and len(name) <= _NAME_BYTES_MAX:
            found.setdefault(character, set()).add(name.removesuffix(";").encode())
    found.setdefault("'", set()).add(b"apos")
    return {character: b"|".join(sorted(names)) for character, names in found.items()}


_NAMES = _names()
NAMED = {name: key.encode() for key, names in _NAMES.items() for name in names.split(b"|")}


def tolerant_pattern(secret: Secret) -> bytes:
    """Return a pattern for the secret in any mix of escapes.

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
    found: list[tuple[bytes, bytes]] = []
    run = 0
    for character in _characters(secret.reveal()):
        if character == _BACKSLASH:
            run += 1
        elif run:
            segment = _run(run) + _atom(character)
            found.append((_begun(run), b"(?>" + segment + b")" if found else segment))
            run = 0
        else:
            found.append((_begun_character(character), _atom(character)))
    if run:
        found.append((_begun(run), _run(run)))
    return found


def _characters(value: bytes) -> list[str | bytes]:
    """Return the last characters, of TOLERANT_BYTES_MAX bytes; the bytes of what is no UTF-8."""
    tail = value[-TOLERANT_BYTES_MAX:]
    try:
        value.decode()
    except UnicodeDecodeError:
        return [chr(byte) if byte < 0x80 else bytes((byte,)) for byte in tail]
    return list(tail.decode(errors="ignore"))  # it may begin within a character


def _run(count: int) -> bytes:
    if count == 1:  # simple enough to be looked for by its first byte
        return _ESCAPED_BACKSLASH + rb"|\\\\|\\)"
    plain, escaped = _ESCAPED_BACKSLASH + rb"|\\)", _ESCAPED_BACKSLASH + rb"|\\\\)"
    return b"(?:%b{%d}|%b{%d})" % (escaped, count, plain, count)


def _begun(count: int) -> bytes:
    return _ESCAPED_BACKSLASH + rb"|\\){1,%d}" % (2 * count)


def _begun_character(character: str | bytes) -> bytes:
    """Return a pattern for the first bytes of one of several, b"" for one of one byte."""
    raw = character if isinstance(character, bytes) else character.encode()
    if len(raw) == 1:
        return b""
    units = [b"(?:%b|%b)" % (_percent(byte), re.escape(bytes((byte,)))) for byte in raw[:-1]]
    forms = [b"".join(units[:count]) for count in range(len(units), 0, -1)]
    if len(raw) == 4:
        forms.append(rb"\\\\{0,3}u" + _hexadecimal(_surrogates(ord(character))[:4]))
    return b"(?:" + b"|".join(forms) + b")"


def _percent(byte: int) -> bytes:
    return rb"%%(?:25){0,3}%b" % _hexadecimal(b"%02X" % byte)


def _surrogates(number: int) -> bytes:
    return chr(number).encode("utf-16-be").hex().upper().encode()


def _atom(character: str | bytes) -> bytes:
    """Return the ways to write one character; each alternative begins with a plain byte."""
    raw = character if isinstance(character, bytes) else character.encode()
    number = ord(character) if isinstance(character, str) else raw[0]
    quoted = b"".join(_percent(byte) for byte in raw)
    forms = [quoted, rb"\\\\{0,3}(?:%b)" % b"|".join(_behind_backslash(number))]
    forms.append(rb"&(?:amp;){0,2}(?:%b);" % b"|".join(_reference(number)))
    if number == 0x20:
        forms.append(rb"\+")
    forms.append(re.escape(raw))  # last: of `%25` the whole is one character
    return b"(?:" + b"|".join(forms) + b")"


def _behind_backslash(number: int) -> list[bytes]:
    if number > 0xFFFF:
        pair = _surrogates(number)
        forms = [b"u" + _hexadecimal(pair[:4]) + rb"\\{1,4}u" + _hexadecimal(pair[4:])]
    else:
        forms = [b"u" + _hexadecimal(b"%04X" % number)]
    forms.append(rb"u\{0{0,5}%b\}" % _hexadecimal(b"%X" % number))
    if number < 0x100:
        forms += [b"x" + _hexadecimal(b"%02X" % number), b"%03o" % number]
    character = chr(number)
    if character in _LETTERS:
        forms.append(_LETTERS[character])
    if character in _QUOTED:
        forms.append(re.escape(character.encode()))
    return forms


def _reference(number: int) -> list[bytes]:
    forms = [b"#0{0,5}%d" % number, b"#[xX]0{0,5}%b" % _hexadecimal(b"%X" % number)]
    names = _NAMES.get(chr(number))
    return [*forms, names] if names else forms


def _hexadecimal(digits: bytes) -> bytes:
    return b"".join(
        b"[%c%c]" % (digit, digit ^ 0x20) if digit > 0x39 else b"%c" % digit for digit in digits
    )
