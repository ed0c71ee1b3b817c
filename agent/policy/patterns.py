"""Path patterns: `*` within a segment, `**` across segments, on the canonical path.

`/a/*` is one segment below /a, `/a/**` is everything below /a (not /a itself), `/a/**/b` has any
number of segments between, none included. Matching takes time linear in the path: stars of a
segment are tried once each (atomic groups), so no path can make a pattern slow.

Servers differ in what they take an encoded slash, a backslash or an empty segment for. So a path
with one of these has several readings: allow needs all of them to match, deny needs any. And they
take `=` and `%3D`, as all that may stand plain, for one: a loose pattern, of deny, matches both.
Some take "/a;v=1" for "/a": deny has these readings too.
"""

import re
from collections.abc import Callable

PATTERN_CHARACTERS_MAX = 1_024
# RFC 3986 section 3.3: pchar and "/", where an escape is upper case and not of an unreserved
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PCHAR = _UNRESERVED | frozenset("!$&'()*+,;=:@/")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_CHARACTER = re.compile(r"%[0-9A-F]{2}|.", re.DOTALL)
_ODD = re.compile(r"%2[Ff]|%5[Cc]|\\|//|/\.\.?(?:/|$)|%2[Ee]")
_PARAMETERS = re.compile(r"(?:;|%3[Bb])[^/]*")  # RFC 3986 section 3.3
_AMBIGUOUS = re.compile(r"/(?:\.|%2[Ee]){1,2}(?:[/;]|\Z)")


def check_pattern(pattern: str) -> str | None:
    """Return what is wrong with a pattern, None when it can be compiled."""
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        return f"a path pattern has at most {PATTERN_CHARACTERS_MAX} characters"
    if not pattern.startswith("/"):
        return "a path pattern begins with '/'"
    if "?" in pattern or "#" in pattern:
        return "a path pattern has no query and no fragment: rules see the path alone"
    for segment in pattern[1:].split("/"):
        if "**" in segment and segment != "**":
            return "'**' stands alone between slashes; within a segment use '*'"
        if segment in (".", ".."):
            return "'.' and '..' never stand in a canonical path"
    return _check_characters(pattern)


def _check_characters(pattern: str) -> str | None:
    for escape in _ESCAPE.finditer(pattern):
        if chr(int(escape[1], 16)) in _UNRESERVED:
            plain = chr(int(escape[1], 16))
            return f"write {plain!r} for {escape[0]!r}: canonical paths do not escape it"
        if escape[1] != escape[1].upper():
            return f"write {escape[0].upper()!r} for {escape[0]!r}: canonical escapes are so"
    bare = _ESCAPE.sub("", pattern)
    for character in bare:
        if character not in _PCHAR:
            escaped = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))
            return f"write {escaped!r} for {character!r}: canonical paths escape it"
    return None


def compile_pattern(pattern: str, *, loose: bool = False) -> re.Pattern[str]:
    """Return the regular expression of a checked pattern, for `fullmatch`.

    loose: what may stand plain or escaped matches both.

    Raises:
        ValueError: check_pattern has an objection.
    """
    objection = check_pattern(pattern)
    if objection is not None:
        raise ValueError(objection)
    blocks: list[list[str]] = [[]]
    for segment in pattern[1:].split("/"):
        if segment == "**":
            blocks.append([])
        else:
            blocks[-1].append(_segment(segment, _loose if loose else re.escape))
    return re.compile("/" + _join(blocks), re.ASCII | re.DOTALL)


def readings(path: str) -> tuple[str, ...]:
    """Return the path as servers may read it: itself, slashes decoded, slashes merged."""
    if _ODD.search(path) is None:
        return (path,)
    decoded = re.sub(r"%2[Ff]|%5[Cc]|\\", "/", path)
    merged = re.sub(r"/{2,}", "/", decoded)
    return tuple(dict.fromkeys((path, decoded, merged)))


def loose_readings(every: tuple[str, ...]) -> tuple[str, ...]:
    """Return the readings of a path, and each without the parameters of its segments."""
    return tuple(dict.fromkeys((*every, *(_PARAMETERS.sub("", reading) for reading in every))))


def is_ambiguous(path: str) -> bool:
    """Whether some reading has a dot segment, which the server may resolve to another path."""
    return any(_AMBIGUOUS.search(reading) is not None for reading in readings(path))


def _join(blocks: list[list[str]]) -> str:
    """Join blocks of segments that stand between `**`.

    A block between two `**` has a fixed number of segments, so its first match is as good as any
    later one: the atomic group forgets the others.
    """
    if len(blocks) == 1:
        return "/".join(blocks[0])
    first, *middle, last = blocks
    parts = ["/".join(first) + "/" if first else ""]
    parts += [f"(?>(?:[^/]*+/)*?{'/'.join(block)}/)" for block in middle if block]
    parts.append(f"(?:[^/]*+/)*{'/'.join(last)}" if last else ".*")
    return "".join(parts)


def _loose(piece: str) -> str:
    """Return the expression of a text that has no `*` but as %2A."""
    return "".join(_either(found[0]) for found in _CHARACTER.finditer(piece))


def _either(written: str) -> str:
    plain = chr(int(written[1:], 16)) if len(written) > 1 else written
    if plain not in _PCHAR or plain in _UNRESERVED or plain == "/":
        return re.escape(written)
    digits = "".join(f"[{digit}{digit.lower()}]" for digit in f"{ord(plain):02X}")
    return f"(?:{re.escape(plain)}|%{digits})"


def _segment(segment: str, escape: Callable[[str], str]) -> str:
    """Return the expression of one segment; a `*` followed by text takes the first that fits."""
    pieces = [escape(piece) for piece in re.split(r"\*", segment)]
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    inner = "".join(f"(?>[^/]*?{piece})" for piece in middle)
    tail = f"(?>[^/]*?{last}(?=/|\\Z))" if last else "[^/]*+"
    return first + inner + tail
