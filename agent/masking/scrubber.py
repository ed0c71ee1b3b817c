"""Removes leased secrets from what goes to the loop. It never changes a length.

A `Scrubber` searches by what was compiled once for each secret; `scrub` takes complete data, and
`ScrubStream` a body in pieces: it holds back only an end that may be the beginning of a secret, so
that an event stream is not delayed. Both return the very bytes they were given when there is
nothing to remove.
"""

from collections.abc import Sequence

from agent.masking.escapes import cut_escape, is_thorough
from agent.masking.forms import forms_of
from agent.masking.near import Plain, is_broken, is_escaped
from agent.model.secret import Secret

MASK = b"*"
KNOWN_BYTES_MAX = 2 * 1024  # complete data up to this is not searched again when it comes again


class Scrubber:
    """The compiled forms of some secrets. Its repr shows none of them.

    Raises:
        ValueError: a secret is too short or too long (agent.masking.encodings has the numbers).
    """

    __slots__ = (
        "_anchors",
        "_first_anchors",
        "_forms",
        "_known",
        "_literals",
        "_near",
        "_subtle",
        "_wide",
        "tail_bytes_max",
    )

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._forms = tuple(forms_of(secret) for secret in secrets)
        found = [form for forms in self._forms for form in forms.literals]
        self._literals = tuple(dict.fromkeys(found))
        self._wide = tuple(forms.wide for forms in self._forms)
        self._near = tuple(near for forms in self._forms for near in forms.near)
        self._anchors = tuple((one, near) for near in self._near for one in near.anchors)
        self._first_anchors = tuple(
            (one, near) for one, near in self._anchors if near.is_first(one)
        )
        self._subtle = any(forms.subtle for forms in self._forms)
        self._known = (b"", b"")  # the complete data that came last: heads recur
        self.tail_bytes_max = max([1, *(forms.hidden_bytes_max for forms in self._forms)]) - 1

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
            _find(data, form, spans)
        if b"\0" in data:
            for form in self._wide:
                _find(data, form, spans)
        broken = is_broken(data)
        if broken or is_escaped(data):
            for anchor, near in self._anchors if broken else self._first_anchors:
                if anchor in data:
                    spans += near.spans(data, anchor)
            if self._subtle or is_thorough(data):
                self._find_escaped(data, spans)
        return spans

    def _find_escaped(self, data: bytes, spans: list[tuple[int, int]]) -> None:
        for forms in self._forms:
            escaped = forms.tolerant.search(data)
            while escaped:  # the next may overlap it
                spans.append(escaped.span())
                escaped = forms.tolerant.search(data, escaped.start() + 1)

    def tail(self, data: bytes) -> int:
        """Return where the data's end begins that may be the start of a secret."""
        begin = max(0, len(data) - self.tail_bytes_max)
        tail = data[begin:]
        keep = len(tail)
        for form in self._literals:
            keep = min(keep, _overlap(tail, form))
        if b"\0" in tail:
            for form in self._wide:
                keep = min(keep, _overlap(tail, form))
        whole = cut_escape(tail)
        if len(whole) < len(tail) or is_escaped(tail) or is_broken(tail):
            keep = min(keep, self._tail_hidden(whole))
        return begin + keep

    def _tail_hidden(self, whole: bytes) -> int:
        keep = len(whole)
        if self._subtle or is_thorough(whole):
            for forms in self._forms:
                found = forms.start.search(whole)
                keep = min(keep, found.start() if found else keep)
        begin = min([len(whole), *(near.may_begin(whole) for near in self._near)])
        plain = Plain(whole[begin:])
        begun = [near.begins(plain) for near in self._near]
        return min([keep, *(begin + start for start in begun if start is not None)])


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


def _find(data: bytes, form: bytes, spans: list[tuple[int, int]]) -> None:
    """Add where a form is; those that overlap or touch make one span."""
    size = len(form)
    start = found = data.find(form)
    while found >= 0:
        following = data.find(form, found + 1)
        if not found < following <= found + size:
            spans.append((start, found + size))
            start = following
        found = following


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
