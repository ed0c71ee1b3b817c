"""The way of the server's bytes to the loop: in large slices, whole messages, without the secret.

A message longer than WHOLE_BYTES_MAX passes in pieces as it comes; all others pass whole, so that
a last word of ours can stand behind them.
"""

from agent.masking.scrubber import Scrubber, ScrubStream

WHOLE_BYTES_MAX = 256 * 1024  # of rows and copied data; more is passed in pieces


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
