"""Invariant: signed chunks read the same in any pieces, keep their length, and little is held."""

from agent.model.credential import AwsKeys
from agent.model.secret import Secret
from agent.wire.aws.chunks import CHUNK_BYTES_MAX, LINE_BYTES_MAX, SignedChunks
from agent.wire.aws.sigv4 import EMPTY_SHA256, Signer, Unsigned
from tests.fuzz.engine import main

KEYS = AwsKeys(Secret(b"AKIDEXAMPLE"), Secret(b"secret-of-nobody"), None)
ZERO = b"0" * 64
HEAD = b";chunk-signature=" + ZERO + b"\r\n"
TRAILER = b"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:" + ZERO + b"\r\n\r\n"
SEEDS = (
    b"5" + HEAD + b"hello\r\n0" + HEAD + b"\r\n",
    b"5" + HEAD + b"hello\r\n0" + HEAD + TRAILER,
    b"0" + HEAD + b"\r\n",
    b"100001" + HEAD,
    b"1" + HEAD + b"a\r\n",
)


def check(data: bytes) -> None:
    """Read in pieces of several sizes, with a trailer and without."""
    for with_trailer in (False, True):
        found = {_read(data, piece, with_trailer) for piece in (1, 3, 100, len(data) + 1)}
        assert len({(out if not failed else b"", failed) for out, failed in found}) == 1
        for out, failed in found:
            assert failed or len(out) == len(data)
            assert ZERO not in out or failed


def _read(data: bytes, piece: int, with_trailer: bool) -> tuple[bytes, bool]:
    request = Unsigned(b"PUT", b"/", None, ((b"host", b"h"),), EMPTY_SHA256)
    chain = Signer(KEYS, "eu-west-1", "s3").sign(request, 0).chain
    body, out = SignedChunks(chain, with_trailer=with_trailer), b""
    for at in range(0, max(1, len(data)), piece):
        out += body.feed(data[at : at + piece], last=at + piece >= len(data))
        assert len(body._held) <= CHUNK_BYTES_MAX + LINE_BYTES_MAX + 4 + piece
        if body.error:
            break
    return out, bool(body.error)


if __name__ == "__main__":
    main("aws_chunks")
