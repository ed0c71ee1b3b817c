"""Body framings (RFC 9112 section 6): what of the bytes is payload, and where the body ends.

`feed` returns the payload in these bytes, and the bytes behind the end of the body (empty until
`done`). Bytes that are not of the framing set `error`, a fixed text, and end the body there: the
payload before them is still returned, however the bytes were cut into pieces. Chunk extensions
and trailers are checked and dropped: they are never forwarded.
"""

import re
from typing import Protocol

from agent.protocols.http1.limits import BODY_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX
from agent.protocols.http1.malformed import FramingError

CR = 0x0D
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,14})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Body(Protocol):
    """One body's reader."""

    done: bool
    error: str

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return payload and what is behind the body."""
        ...


class LengthBody:
    """Exactly so many bytes."""

    __slots__ = ("_left", "done", "error")

    def __init__(self, length: int) -> None:
        self.error = ""
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes up to the length."""
        size = len(data)
        if size <= self._left:
            self._left -= size
            self.done = self._left == 0
            return data, b""
        payload, rest = data[: self._left], data[self._left :]
        self._left, self.done = 0, True
        return payload, rest


class ClosedBody:
    """Everything until the connection ends."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.error = ""
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take all."""
        return data, b""


class ChunkedBody:
    """Chunked transfer coding (RFC 9112 section 7.1). Holds at most one line of it."""

    __slots__ = ("_held", "_left", "_trailer_bytes", "done", "error")

    def __init__(self) -> None:
        self.error = ""
        self._held = b""
        self._left = 0  # of the chunk; with its CRLF: the last two are no payload
        self._trailer_bytes = -1  # below 0: not in the trailer section
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take chunks; payload of several comes joined."""
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        at = 0
        try:
            while at < len(data) and not self.done:
                take = self._take_chunk if self._left else self._take_line
                at = take(data, at, pieces)
        except FramingError as error:
            self.error, at = str(error), len(data)
        return b"".join(pieces), data[at:]

    def _line_max(self) -> int:
        left = TRAILER_BYTES_MAX - self._trailer_bytes
        return CHUNK_LINE_BYTES_MAX if self._trailer_bytes < 0 else left

    def _take_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        end = min(at + self._left, len(data))
        left = self._left - (end - at)
        payload_end = end - max(0, 2 - left)  # the chunk's CR LF is its last two bytes
        if payload_end > at:
            pieces.append(data[at:payload_end])
        crlf = data[max(at, payload_end) : end]
        if crlf and crlf != b"\r\n"[max(0, 2 - self._left) : 2 - left]:
            raise FramingError("a chunk does not end with CR LF")
        self._left = left
        return end

    def _take_line(self, data: bytes, at: int, _: list[bytes]) -> int:
        end = data.find(b"\n", at, at + self._line_max() + 2)
        if end < 0:
            if len(data) - at > self._line_max() + 1:
                raise FramingError("a chunk line or a trailer is too long")
            self._held = data[at:]
            return len(data)
        if end == at or data[end - 1] != CR:
            raise FramingError("a line of the chunked body does not end with CR LF")
        self._read_line(data[at : end - 1])
        return end + 1

    def _read_line(self, line: bytes) -> None:
        if self._trailer_bytes < 0:
            size = _CHUNK_LINE.fullmatch(line)
            if not size:
                raise FramingError("not a chunk size line")
            number = int(size[1], 16)
            if number > BODY_BYTES_MAX:
                raise FramingError("a chunk is too long")
            self._left = number + 2 if number else 0
            self._trailer_bytes = -1 if number else 0
        elif not line:
            self.done = True
        elif not _TRAILER.fullmatch(line):
            raise FramingError("not a trailer field line")
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > TRAILER_BYTES_MAX:
                raise FramingError("the trailer section is too long")


def serialize_chunk(payload: bytes) -> bytes:
    """Return one chunk, or nothing for an empty payload (it would end the body)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


LAST_CHUNK = b"0\r\n\r\n"
