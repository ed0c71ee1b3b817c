"""Invariant: a chunked body reads the same in any pieces, and never holds more than a line."""

from agent.protocols.http1.body import ChunkedBody
from agent.protocols.http1.limits import TRAILER_BYTES_MAX
from tests.fuzz.engine import main

SEEDS = (
    b"5\r\nhello\r\n0\r\n\r\n",
    b"3;a=b\r\nabc\r\n0a;x\r\n0123456789\r\n0\r\nT: 1\r\nU: 2\r\n\r\nnext",
    b"0\r\n\r\n",
    b"ffffffffffffff\r\n",
    b"1\r\na\r\n" * 20 + b"0\r\n\r\n",
)


def check(data: bytes) -> None:
    """Read in pieces of several sizes."""
    assert len({_read(data, piece) for piece in (1, 2, 3, 10, len(data) + 1)}) == 1


def _read(data: bytes, piece: int) -> tuple[bytes, bytes, bool, bool]:
    body, payload, rest = ChunkedBody(), b"", b""
    for at in range(0, len(data), piece):
        if body.error:
            break
        if body.done:
            rest += data[at : at + piece]
            continue
        got, behind = body.feed(data[at : at + piece])
        payload, rest = payload + got, rest + behind
        assert len(body._held) <= TRAILER_BYTES_MAX + 2
    return payload, rest, body.done, bool(body.error)


if __name__ == "__main__":
    main("http1_chunks")
