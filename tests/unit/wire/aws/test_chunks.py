"""Signed chunks: AWS's published examples, any split of the bytes, limits, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.credential import AwsKeys
from agent.model.secret import Secret
from agent.wire.aws import chunks
from agent.wire.aws.chunks import SignedChunks
from agent.wire.aws.sigv4 import Chain, Signer, Unsigned

KNOWN = AwsKeys(
    Secret(b"AKIAIOSFODNN7EXAMPLE"), Secret(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), None
)
MAY_2013_MS = 1_369_353_600_000
FAKE = b"0" * 64
BODY = b"a" * 66_560
SIGNATURES = (
    b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
WITH_TRAILER = (
    b"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    b"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    b"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
TRAILER = b"x-amz-checksum-crc32c:sOO8/Q=="
TRAILER_SIGNATURE = b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def chain(payload: bytes, *more: tuple[bytes, bytes]) -> Chain:
    """Return the chain of the example's request."""
    fields = (
        (b"content-encoding", b"aws-chunked"),
        (b"host", b"s3.amazonaws.com"),
        (b"x-amz-decoded-content-length", b"66560"),
        (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
        *more,
    )
    path = b"/examplebucket/chunkObject.txt"
    request = Unsigned(b"PUT", path, None, fields, payload)
    return Signer(KNOWN, "us-east-1", "s3").sign(request, MAY_2013_MS).chain


def plain_chain() -> Chain:
    """Return the chain of the first example, which signs its length too."""
    return chain(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", (b"content-length", b"66824"))


def trailer_chain() -> Chain:
    """Return the chain of the second example."""
    trailer = (b"x-amz-trailer", b"x-amz-checksum-crc32c")
    return chain(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", trailer)


def coded(signatures: tuple[bytes, ...], end: bytes = b"\r\n", size: int = 65_536) -> bytes:
    """Return the example's body under these signatures."""
    pieces = [BODY[:size], BODY[size:], b""]
    found = b""
    for piece, signature in zip(pieces, signatures, strict=True):
        found += b"%x;chunk-signature=%b\r\n%b" % (len(piece), signature, piece)
        found += b"\r\n" if piece else b""
    return found + end


def played(body: SignedChunks, data: bytes, piece: int = 1 << 20) -> bytes:
    """Feed in pieces."""
    out = b"".join(
        body.feed(data[at : at + piece], last=at + piece >= len(data))
        for at in range(0, max(1, len(data)), piece)
    )
    return out if not body.error else b""


@pytest.mark.parametrize("piece", [1, 7, 65_536, 1 << 20])
def test_the_published_example(piece: int) -> None:
    """Fake signatures become those of the S3 API Reference; nothing else changes."""
    body = SignedChunks(plain_chain(), with_trailer=False)
    assert played(body, coded((FAKE,) * 3), piece) == coded(SIGNATURES)


@pytest.mark.parametrize("end", [b"\r\n", b"\n\r\n", b"\n"])
def test_the_published_example_with_a_trailer(end: bytes) -> None:
    """The trailer is under our signature too, whatever line ends an SDK makes."""

    def ending(signature: bytes) -> bytes:
        return TRAILER + end + b"x-amz-trailer-signature:" + signature + b"\r\n\r\n"

    body = SignedChunks(trailer_chain(), with_trailer=True)
    found = played(body, coded((FAKE,) * 3, ending(FAKE)), 1_000)
    assert found == coded(WITH_TRAILER, ending(TRAILER_SIGNATURE))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.integers(1, 700))
def test_any_split(pieces: list[bytes], size: int) -> None:
    """The length stays, the data stays, and the split does not matter."""
    data = b"".join(b"%X;chunk-signature=%b\r\n%b\r\n" % (len(each), FAKE, each) for each in pieces)
    data += b"0;chunk-signature=" + FAKE + b"\r\n\r\n"
    whole = played(SignedChunks(plain_chain(), with_trailer=False), data)
    assert len(whole) == len(data)
    assert FAKE not in whole
    assert played(SignedChunks(plain_chain(), with_trailer=False), data, size) == whole


@given(st.binary(max_size=2_000), st.booleans())
def test_any_bytes(data: bytes, with_trailer: bool) -> None:
    """They are chunks or an error, never an exception, and little is held."""
    body = SignedChunks(plain_chain(), with_trailer=with_trailer)
    out = played(body, data, 100)
    assert body.error or len(out) == len(data)


GOOD = b"3;chunk-signature=" + FAKE + b"\r\nabc\r\n"
LAST = b"0;chunk-signature=" + FAKE + b"\r\n"
SIGNED_END = b"x-amz-trailer-signature:" + FAKE + b"\r\n\r\n"
BROKEN = [
    (b"", False),
    (GOOD, False),
    (LAST, False),
    (GOOD + LAST + b"\r\n\r\n", False),
    (GOOD + LAST + b"\r\n" + GOOD, False),
    (b"3\r\nabc\r\n" + LAST + b"\r\n", False),
    (GOOD.replace(b"\r\nabc\r\n", b"\r\nabcX\n") + LAST + b"\r\n", False),
    (GOOD.replace(b"3;", b"-3;") + LAST + b"\r\n", False),
    (b"3;" + b"x" * 300 + b"\r\n", False),
    (GOOD + LAST + TRAILER + b"\r\n\r\n", False),
    (GOOD + LAST + TRAILER + b"\r\n\r\n", True),
    (GOOD + LAST + SIGNED_END, True),
    (GOOD + LAST + b"no field\r\n" + SIGNED_END, True),
    (GOOD + LAST + SIGNED_END[:-2] + SIGNED_END, True),
    (GOOD + LAST + (TRAILER + b"\r\n") * chunks.TRAILER_LINES_MAX + SIGNED_END, True),
    (GOOD + LAST + b"a:" + b"x" * chunks.TRAILER_BYTES_MAX + b"\r\n" + SIGNED_END, True),
]  # fmt: skip


@pytest.mark.parametrize(("data", "with_trailer"), BROKEN)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_what_is_no_such_body(data: bytes, with_trailer: bool, piece: int) -> None:
    """It is an error at the latest at its end, in a text of ours."""
    body = SignedChunks(plain_chain(), with_trailer=with_trailer)
    assert played(body, data, piece) == b""
    assert "chunk" in body.error


def test_limits() -> None:
    """A chunk of CHUNK_BYTES_MAX goes; one byte more is refused before its data is held."""
    for size, goes in ((chunks.CHUNK_BYTES_MAX, True), (chunks.CHUNK_BYTES_MAX + 1, False)):
        body = SignedChunks(plain_chain(), with_trailer=False)
        body.feed(b"%x;chunk-signature=%b\r\n" % (size, FAKE), last=False)
        assert bool(body.error) is not goes
    almost = chunks.TRAILER_BYTES_MAX - len(SIGNED_END) - 4
    for size, goes in ((almost, True), (almost + 1, False)):
        body = SignedChunks(plain_chain(), with_trailer=True)
        played(body, LAST + b"a:" + b"x" * size + b"\r\n" + SIGNED_END)
        assert bool(body.error) is not goes
    for count, goes in ((chunks.TRAILER_LINES_MAX - 1, True), (chunks.TRAILER_LINES_MAX, False)):
        body = SignedChunks(plain_chain(), with_trailer=True)
        played(body, LAST + b"a:b\r\n" * count + SIGNED_END)
        assert bool(body.error) is not goes
