"""The loop's bytes that are not yet a request: cut into heads, bounded, refused early."""

from agent.protocols.http1.limits import HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX
from agent.protocols.http1.malformed import Malformed, bad
from agent.protocols.http1.request import RequestHead, check_request_line, parse_request_head


class Intake:
    """Bytes from the loop, in order. The relay bounds what it puts in while requests wait."""

    __slots__ = ("_empty_line", "_scanned", "held")

    def __init__(self) -> None:
        self.held = b""
        self._empty_line = False  # one came before this request
        self._scanned = 0  # how many of them hold no end of a head

    def add(self, data: bytes) -> None:
        """Append bytes."""
        self.held = self.held + data if self.held else data

    def take(self) -> bytes:
        """Return and forget all bytes: they are a request's body."""
        held, self.held = self.held, b""
        return held

    def next_head(self) -> RequestHead | Malformed | None:
        """Return the next request if its head is complete, None when more bytes are needed."""
        held = self.held
        if held[:2] == b"\r\n" and not self._scanned:
            if self._empty_line:  # RFC 9112 section 2.2: one before a request, not two
                return bad("empty lines instead of a request line")
            self._empty_line = True
            self.held = held[2:]
            return self.next_head() if len(held) > 2 else None
        end = held.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0 or end + 4 > HEAD_BYTES_MAX:
            return self._incomplete(held)
        self.held, self._scanned, self._empty_line = held[end + 4 :], 0, False
        return parse_request_head(held[: end + 4])

    def _incomplete(self, held: bytes) -> Malformed | None:
        """Refuse what can't become a request any more, without waiting for its end."""
        self._scanned = len(held) if len(held) > 2 else 0
        line, newline, _ = held[: REQUEST_LINE_BYTES_MAX + 2].partition(b"\n")
        if newline or len(line) > REQUEST_LINE_BYTES_MAX + 1:
            proper = line[:-1] if line[-1:] == b"\r" else b"" if newline else line
            checked = check_request_line(proper)
            if isinstance(checked, Malformed):
                return checked
        return bad("the request head is too long", 431) if len(held) >= HEAD_BYTES_MAX else None
