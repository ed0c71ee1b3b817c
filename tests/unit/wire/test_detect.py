"""What a connection begins with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.clienthello import PEEK_BYTES_MAX, ClientHello, NeedMore
from agent.wire.detect import METHOD_PEEK_BYTES, ClearHttp, Unknown, detect
from tests.unit.wire.hello import real


@pytest.mark.parametrize("data", [b"GET ", b"\r\nPOST /", b"M" * 32 + b" ", b"PRI * HTTP/2.0\r\n"])
def test_http(data: bytes) -> None:
    """A method and a space: the HTTP parser goes on from there."""
    assert detect(data) == ClearHttp()
    cut = data.index(b" ")
    assert all(isinstance(detect(data[:size]), NeedMore) for size in range(cut + 1))


def test_tls() -> None:
    """A ClientHello comes back as what it asks for."""
    assert isinstance(detect(real()), ClientHello)
    assert isinstance(detect(real()[:100]), NeedMore)


@pytest.mark.parametrize(
    "data",
    [
        b"\0", b"SSH-2.0-x\r\n", b"\x80\x2e\x01", b"M" * 33, b"\n", b"\r\r", b" GET", b"GET\t",
        b"\x16\x09",
    ],
)  # fmt: skip
def test_unknown(data: bytes) -> None:
    """Anything else is known to be unknown at once."""
    assert isinstance(detect(data), Unknown)


@given(st.binary(max_size=80))
def test_it_never_waits_beyond_its_bound(data: bytes) -> None:
    """NeedMore comes for short beginnings of methods only, or within the ClientHello's bound."""
    if isinstance(detect(data), NeedMore):
        bound = PEEK_BYTES_MAX if data[:1] == b"\x16" else METHOD_PEEK_BYTES
        assert len(data) <= bound
