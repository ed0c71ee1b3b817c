"""Forms that are mostly plain: what a minimal encoder, or a breaker of lines, makes of a text.

Encoders leave letters and digits alone and escape the rest, and lines are broken at 60 or 76
characters (RFC 2045 section 6.8, RFC 4648). So of a text that comes back in such a form a piece of
letters and digits stands in the data as it was: an anchor. Where one is found, the data is read
without escapes and breaks, and searched again. That holds for texts of any length, and for the
secret's base64 forms.

A body in pieces is held back from where such a form may have begun; not where a piece ends with a
line of which only the last byte would be the form's.
"""

import re
from bisect import bisect_right

from agent.masking.escapes import NAMED

ANCHOR_BYTES_MIN, ANCHOR_BYTES_MAX = 4, 16
BROKEN_BYTES_MIN = 2  # one byte before a line's end is not held back: too many lines end so
OPENING_BYTES = 3  # of a text, by which its beginning is looked for
SHORT_BYTES = 96  # at the data's end, which is always read: a shorter beginning is there
_INTRODUCERS = (b"%", b"\\", b"&", b"=")  # what an escape begins with

_RUN = re.compile(rb"[A-Za-z0-9]+")
_BREAK = (
    rb"(?:=?\r?\n(?![\r\n])|\\{1,4}r\\{1,4}n|\\{1,4}n|%(?:25){0,3}0[Dd]%(?:25){0,3}0[Aa]"
    rb"|%(?:25){0,3}0[Aa])[ \t]*"
)
_ESCAPE = re.compile(
    _BREAK + rb"|%(?:25){0,3}(?P<percent>[0-9A-Fa-f]{2})"
    rb"|\\{1,4}(?:(?:u00|x)(?P<unicode>[0-9A-Fa-f]{2})|u\{0{0,5}(?P<braces>[0-9A-Fa-f]{1,2})\}"
    rb"|(?P<same>[!-/:-@^_`{|}~\[\]])|(?P<octal>0[4-7][0-7]|1[0-7]{2}))"
    rb"|&(?:amp;){0,2}(?:#0{0,5}(?P<decimal>[0-9]{1,3})|#[xX]0{0,5}(?P<hexadecimal>[0-9A-Fa-f]{1,2})"
    rb"|(?P<name>[A-Za-z]{2,24}));"
    rb"|(?P<equals>=3[Dd])"
)


class Near:
    """One text, and what has to stand in the data for it."""

    __slots__ = ("_openings", "_text", "anchors", "window_bytes")

    def __init__(self, text: bytes) -> None:
        # "=" before a line's end is quoted-printable's break, or padding: read as the break
        self._text = text.rstrip(b"=") or text
        self.anchors = _anchors(text)
        self._openings = _openings(text)
        self.window_bytes = 2 * len(text) + 256  # what it may become at most

    def is_first(self, anchor: bytes) -> bool:
        """Whether an anchor is enough where there are no line breaks."""
        return anchor == self.anchors[0]

    def spans(self, data: bytes, anchor: bytes) -> list[tuple[int, int]]:
        """Return where it is around this anchor."""
        found = []
        for begin, end in self._windows(data, anchor):
            plain = Plain(data[begin:end])
            at = plain.text.find(self._text)
            while at >= 0:
                first, last = plain.span(at, at + len(self._text))
                if last - first <= self.window_bytes:
                    found.append((begin + first, begin + last))
                at = plain.text.find(self._text, at + 1)
        return found

    def _windows(self, data: bytes, anchor: bytes) -> list[tuple[int, int]]:
        """Return the surroundings of the anchor; those that overlap are one."""
        windows: list[tuple[int, int]] = []
        at = data.find(anchor)
        while at >= 0:
            windows.append((max(0, at - self.window_bytes), at + self.window_bytes))
            at = data.find(anchor, at + 1)
        merged: list[tuple[int, int]] = []
        for begin, end in windows:
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def may_begin(self, data: bytes) -> int:
        """Return from where the end of the data has to be read to see whether it begins there."""
        if not self.anchors:
            return len(data)
        if data[:1] == self._text[:1]:  # what is held begins so
            return 0
        begin = max(0, len(data) - self.window_bytes)
        short = max(begin, len(data) - SHORT_BYTES)
        found = [data.find(opening, begin, short + OPENING_BYTES) for opening in self._openings]
        return min([short, *(at for at in found if at >= 0)])

    def begins(self, plain: "Plain") -> int | None:
        """Return where the end of what was read begins that may be the text's beginning."""
        if not self.anchors:
            return None
        text = plain.text
        start = text.find(self._text[:1], max(0, len(text) - len(self._text) + 1))
        while start >= 0 and not self._text.startswith(text[start:]):
            start = text.find(self._text[:1], start + 1)
        if start < 0 or (plain.broken and len(text) - start < BROKEN_BYTES_MIN):
            return None
        return plain.span(start, len(text))[0]


class Plain:
    """Data without escapes and line breaks, and where each byte of it was."""

    __slots__ = ("_ends", "_here", "_there", "broken", "text")

    def __init__(self, data: bytes) -> None:
        pieces: list[bytes] = []
        self._here, self._there, self._ends = [0], [0], [-1]
        size = at = 0
        self.broken = False
        for found in _ESCAPE.finditer(data):
            byte = _meant(found)
            if byte is None:
                continue
            start, end = found.span()
            pieces += (data[at:start], byte)
            size += start - at
            if byte:
                self._note(size, start, end)
                size += 1
            self._note(size, end, -1)
            at = end
            self.broken = end == len(data) and not byte
        pieces.append(data[at:])
        self.text = b"".join(pieces)

    def _note(self, here: int, there: int, end: int) -> None:
        self._here.append(here)
        self._there.append(there)
        self._ends.append(end)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return from where to where these bytes were in the data."""
        first = bisect_right(self._here, start) - 1
        last = bisect_right(self._here, end - 1) - 1
        stop = self._ends[last]
        if stop < 0:
            stop = self._there[last] + end - self._here[last]
        return self._there[first] + start - self._here[first], stop


def is_escaped(data: bytes) -> bool:
    """Whether there is an escape in the data at all."""
    if b"\\" in data or b"%" in data or b"&" in data:
        return True
    return b"=" in data and b"=3" in data


def is_broken(data: bytes) -> bool:
    """Whether there is a line break in the data, or the escape of one."""
    return b"\n" in data or (b"\\" in data and b"\\n" in data) or (b"%" in data and b"%0" in data)


def _meant(found: re.Match[bytes]) -> bytes | None:
    """Return the byte, b"" for a break, None for what is none of ours."""
    match found.lastgroup:
        case None:
            return b""
        case "same":
            return found["same"]
        case "octal":
            return bytes((int(found["octal"], 8),))
        case "decimal":
            number = int(found["decimal"])
            return bytes((number,)) if number < 0x80 else None
        case "name":
            return NAMED.get(found["name"])
        case "equals":
            return b"="
        case group:
            return bytes((int(found[group], 16),))


def _openings(text: bytes) -> tuple[bytes, ...]:
    """Return what a text's first bytes look like in data, up to the first that is escaped."""
    run = _RUN.match(text)
    plain = run[0][:OPENING_BYTES] if run else b""
    if len(plain) == OPENING_BYTES:
        return (plain,)
    return tuple(plain + byte for byte in (text[len(plain) : len(plain) + 1], *_INTRODUCERS))


def _anchors(text: bytes) -> tuple[bytes, ...]:
    """Return two pieces of letters and digits, of which one break destroys one at most."""
    runs = sorted(_RUN.findall(text), key=len, reverse=True)[:2]
    if runs and (len(runs) == 1 or len(runs[0]) > 2 * len(runs[1])):
        half = min(len(runs[0]) // 2, ANCHOR_BYTES_MAX)
        runs = [runs[0][:half], runs[0][half : 2 * half]]
    return tuple(run[:ANCHOR_BYTES_MAX] for run in runs if len(run) >= ANCHOR_BYTES_MIN)
