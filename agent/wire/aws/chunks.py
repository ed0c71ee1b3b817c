"""The aws-chunked coding with signed chunks: each signature replaced by ours, nothing else.

Source: Amazon S3 API Reference, "Signature Calculations … Transferring Payload in Multiple Chunks
(Chunked Upload)" and "… with Trailing Headers". A chunk's signature stands before its data, so a
chunk is held until it is complete. Sizes and lines stay as they are: the body's length, which went
before it, holds.
"""

import re

from agent.wire.aws.sigv4 import Chain

CHUNK_BYTES_MAX = 1 << 20  # of one signed chunk; SDKs make 64 or 128 KiB → refused
LINE_BYTES_MAX = 256  # of a chunk's head without CR LF → refused
TRAILER_BYTES_MAX = 8 << 10  # trailer with its signature → refused
TRAILER_LINES_MAX = 16
_HEAD = re.compile(rb"([0-9A-Fa-f]{1,16});chunk-signature=[0-9a-f]{64}")
_TRAILER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}):([\x20-\x7e]*)")
_TRAILER_SIGNATURE = re.compile(rb"x-amz-trailer-signature:[0-9a-f]{64}")
_SIGNATURE_CHARS = 64


class SignedChunks:
    """One body. `feed` returns what may go; `error` is a fixed text, and ends it."""

    __slots__ = ("_chain", "_complete", "_held", "_left", "_rest", "_with_trailer", "error")

    def __init__(self, chain: Chain, *, with_trailer: bool) -> None:
        self._chain = chain
        self._with_trailer = with_trailer
        self._held = bytearray()
        self._left = -1  # the size of the chunk whose data is awaited, -1: its head is
        self._rest = False  # the last chunk came: what is behind it
        self._complete = False
        self.error = ""

    @property
    def held_bytes(self) -> int:
        """How much is held: a chunk that is not complete."""
        return len(self._held)

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Take bytes of the body; last: there are no more."""
        out: list[bytes] = []
        self._held += data
        while not self.error and self._step(out):
            pass
        if last and not self.error and not self._finish(out):
            self.error = self.error or "the aws-chunked body ends before its last chunk"
        return b"".join(out)

    def _step(self, out: list[bytes]) -> bool:
        """Go one part further; False when more bytes are needed, or all are read."""
        if self._rest:
            limit = TRAILER_BYTES_MAX if self._with_trailer else 2
            if len(self._held) > limit:
                self.error = "there is too much behind the last chunk of the aws-chunked body"
            return False
        return self._head() if self._left < 0 else self._chunk(out)

    def _head(self) -> bool:
        end = self._held.find(b"\r\n", 0, LINE_BYTES_MAX + 2)
        if end < 0:
            if len(self._held) >= LINE_BYTES_MAX + 2:
                self.error = "a chunk's head of the aws-chunked body is too long"
            return False
        head = _HEAD.fullmatch(self._held, 0, end)
        if head is None:
            self.error = "a chunk of the aws-chunked body has no head with a signature"
            return False
        size = int(head[1], 16)
        if size > CHUNK_BYTES_MAX:
            self.error = f"a signed chunk has more than {CHUNK_BYTES_MAX} bytes"
            return False
        self._left = size
        return True

    def _chunk(self, out: list[bytes]) -> bool:
        """Sign a complete chunk. Its head is held with it."""
        begin = self._held.find(b"\r\n") + 2
        end = begin + self._left
        if self._left == 0:
            self._sign(out, begin, begin)
            self._rest = True
            return True
        if len(self._held) < end + 2:
            return False
        if self._held[end : end + 2] != b"\r\n":
            self.error = "a chunk of the aws-chunked body does not end with CR LF"
            return False
        self._sign(out, begin, end)
        out.append(b"\r\n")
        del self._held[:2]
        self._left = -1
        return True

    def _sign(self, out: list[bytes], begin: int, end: int) -> None:
        data = bytes(self._held[begin:end])
        head = bytes(self._held[: begin - 2 - _SIGNATURE_CHARS])
        out += [head, self._chain.chunk(data), b"\r\n", data]
        del self._held[:end]

    def _finish(self, out: list[bytes]) -> bool:
        if not self._rest or self._complete:
            return self._complete
        rest = bytes(self._held)
        signed = self._trailer(rest) if self._with_trailer else rest if rest == b"\r\n" else None
        if signed is None:
            self.error = "what is behind the last chunk of the aws-chunked body is no signed end"
            return False
        out.append(signed)
        self._held.clear()
        self._complete = True
        return True

    def _trailer(self, rest: bytes) -> bytes | None:
        """Return the trailer under our signature; SDKs differ in its line ends."""
        lines = [line.removesuffix(b"\r") for line in rest.split(b"\n")]
        lines = [line for line in lines if line]
        if not 2 <= len(lines) <= TRAILER_LINES_MAX or not rest.endswith(b"\r\n"):
            return None
        canonical = b""
        for line in lines[:-1]:
            field = _TRAILER_LINE.fullmatch(line)
            if field is None or field[1].lower() == b"x-amz-trailer-signature":
                return None
            canonical += field[1].lower() + b":" + field[2].strip(b" ") + b"\n"
        if not _TRAILER_SIGNATURE.fullmatch(lines[-1]):
            return None
        begin, _, behind = rest.rpartition(lines[-1])
        name = lines[-1][:-_SIGNATURE_CHARS]
        return begin + name + self._chain.trailer(canonical) + behind
