"""The way of the server's bytes to the loop: in large slices, whole messages, without the secret.

A message longer than WHOLE_BYTES_MAX passes in pieces as it comes; all others pass whole, so that
a last word of ours can stand behind them.
"""

from struct import Struct

from agent.masking.scrubber import Scrubber, ScrubStream

WHOLE_BYTES_MAX = 256 * 1024  # of rows and copied data; more is passed in pieces
HEAD_BYTES = 5
ACROSS = "a credential that begins or ends in the frame of a message"
_length = Struct("!i").unpack_from


def broken_frame(before: bytes, after: bytes) -> int:
    """Return where the first message has another type or length after scrubbing, or -1.

    A server that knows the secret can let a message's length end with its first byte: what takes
    the secret out then makes other messages of the bytes.
    """
    at = 0
    while at + HEAD_BYTES <= len(before):
        if before[at : at + HEAD_BYTES] != after[at : at + HEAD_BYTES]:
            return at
        length: int = _length(before, at + 1)[0]
        at += 1 + length
    return -1


class Downflow:
    """Scrubs what goes downstream. `left`: bytes of a message that passes in pieces, to come."""

    __slots__ = ("_scrubber", "_stream", "left")

    def __init__(self, scrubber: Scrubber | None) -> None:
        self._scrubber = scrubber
        self._stream: ScrubStream | None = None
        self.left = 0

    @property
    def whole(self) -> bool:
        """Whether all that went down were complete messages."""
        return not self.left

    def clean(self, data: bytes) -> bytes:
        """Return complete messages without the secret."""
        return data if self._scrubber is None else self._scrubber.scrub(data)

    def begin(self, piece: bytes, left: int) -> bytes:
        """Return the beginning of a message that passes in pieces; left: bytes to come."""
        self.left = left
        if self._scrubber is None:
            return piece
        self._stream = self._scrubber.stream()
        return self._stream.feed(piece, last=not left)

    def go_on(self, piece: bytes) -> bytes:
        """Return the next piece of it: at most `left` bytes."""
        self.left -= len(piece)
        if self._stream is None:
            return piece
        clean = self._stream.feed(piece, last=not self.left)
        if not self.left:
            self._stream = None
        return clean
