"""Removes leased secrets from what goes to the loop (R15). It never changes a length.

`Scrubber` is compiled once a lease; `scrub` takes complete data, `ScrubStream` takes a body in
pieces and holds back only an end that may be the beginning of a secret, so that an event stream
is not delayed. Both return the very bytes they were given when there is nothing to remove.
"""

import re
from collections.abc import Sequence

from agent.masking.encodings import (
    ESCAPED_BYTES_MAX,
    TOLERANT_BYTES_MAX,
    literals,
    tolerant_pattern,
    tolerant_start,
)
from agent.model.secret import Secret

MASK = b"*"
KNOWN_BYTES_MAX = 2 * 1024  # complete data up to this is not searched again when it comes again
_CUT_ESCAPE = re.compile(rb"(?:%[0-9A-Fa-f]?|\\(?:u0{0,2}|u00[0-9A-Fa-f])?)\Z")


class Scrubber:
    """The compiled forms of some secrets. Its repr shows none of them.

    Raises:
        ValueError: a secret is too short or too long (agent.masking.encodings has the numbers).
    """

    __slots__ = ("_known", "_literals", "_starts", "_tolerant", "tail_bytes_max")

    def __init__(self, secrets: Sequence[Secret]) -> None:
        forms = [form for secret in secrets for form in literals(secret)]
        self._literals = tuple(dict.fromkeys(forms))
        self._known = (b"", b"")  # the complete data that came last: heads recur
        self._tolerant = tuple(re.compile(tolerant_pattern(secret)) for secret in secrets)
        self._starts = tuple(re.compile(tolerant_start(secret)) for secret in secrets)
        re.purge()  # its cache of patterns would keep the secrets longer than their leases live
        escaped = ESCAPED_BYTES_MAX * TOLERANT_BYTES_MAX if secrets else 0
        self.tail_bytes_max = max([1, escaped, *map(len, self._literals)]) - 1

    def scrub(self, data: bytes) -> bytes:
        """Return complete data without the secrets: each byte of a form becomes MASK."""
        if data == self._known[0]:
            return self._known[1]
        spans = self.spans(data)
        clean = _masked(data, spans) if spans else data
        if len(data) <= KNOWN_BYTES_MAX:
            self._known = (data, clean)
        return clean

    def stream(self) -> "ScrubStream":
        """Return the state for one body."""
        return ScrubStream(self)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Return where forms are, from and to; they may overlap."""
        spans: list[tuple[int, int]] = []
        for form in self._literals:
            size = len(form)
            start = found = data.find(form)
            while found >= 0:
                following = data.find(form, found + 1)
                if not found < following <= found + size:  # else they make one span
                    spans.append((start, found + size))
                    start = following
                found = following
        if b"%" in data or b"\\" in data:
            for pattern in self._tolerant:
                escaped = pattern.search(data)
                while escaped:  # the next may overlap it
                    spans.append(escaped.span())
                    escaped = pattern.search(data, escaped.start() + 1)
        return spans

    def tail(self, data: bytes) -> int:
        """Return where the data's end begins that may be the start of a secret."""
        begin = max(0, len(data) - self.tail_bytes_max)
        tail = data[begin:]
        keep = len(tail)
        for form in self._literals:
            keep = min(keep, _overlap(tail, form))
        if b"%" in tail or b"\\" in tail:
            cut = _CUT_ESCAPE.search(tail)
            whole = tail[: cut.start()] if cut else tail
            keep = min(keep, len(whole))
            for pattern in self._starts:
                found = pattern.search(whole)
                keep = min(keep, found.start() if found else keep)
        return begin + keep


class ScrubStream:
    """Scrubs one body that comes in pieces. Holds at most `tail_bytes_max` bytes."""

    __slots__ = ("_held", "_hit", "_scrubber")

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._held = b""
        self._hit = 0  # how many of the held bytes are of a form that was found already

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Return what may go on; an end that may begin a secret waits for the next piece.

        last: there is no next piece, so that nothing needs to wait.
        """
        if self._held:
            data = self._held + data
        hit = self._hit
        spans = self._spans(data)
        if last:
            self._held = b""
            return _masked(data, spans) if spans else data
        tail = self._scrubber.tail(data)
        if not spans and tail == len(data):
            self._held = b""
            return data
        self._held = data[tail:]
        # What is found again in the held bytes needs no memory; what began before them does.
        self._hit = max([0, hit - tail, *(end - tail for start, end in spans if start < tail)])
        return _masked(data, spans)[:tail]

    def flush(self) -> bytes:
        """Return the held end: the body is complete."""
        held, self._held = self._held, b""
        return _masked(held, self._spans(held))

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        spans = self._scrubber.spans(data)
        if self._hit:
            spans.append((0, self._hit))
            self._hit = 0
        return spans


def _overlap(tail: bytes, form: bytes) -> int:
    """Return the first index from which the tail is a proper beginning of the form."""
    start = tail.find(form[:1], max(0, len(tail) - len(form) + 1))
    while start >= 0 and not form.startswith(tail[start:]):
        start = tail.find(form[:1], start + 1)
    return len(tail) if start < 0 else start


def _masked(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for start, end in spans:
        out[start:end] = MASK * (end - start)
    return bytes(out)
