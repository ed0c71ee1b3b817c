"""The look at a ClientHello."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.clienthello import (
    ALPN_NAMES_MAX,
    EXTENSIONS_MAX,
    PEEK_BYTES_MAX,
    RECORDS_MAX,
    ClientHello,
    NeedMore,
    NotTls,
    peek_client_hello,
)
from tests.unit.wire.hello import extension, message, real, records, server_name, vector


def test_what_openssl_sends() -> None:
    """Name and protocols of a real ClientHello are found."""
    found = peek_client_hello(real("API.example.com", ["h2", "http/1.1"]))
    assert isinstance(found, ClientHello)
    assert found.alpn == (b"h2", b"http/1.1")
    assert found.server_name is not None
    assert found.server_name.lower() == "api.example.com"
    assert not found.ech


def test_without_name_and_protocols() -> None:
    """Both may be absent."""
    assert peek_client_hello(real(None)) == ClientHello(None, (), ech=False)
    assert peek_client_hello(records(message(None))) == ClientHello(None, (), ech=False)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 16384])
def test_fragmented_records(size: int) -> None:
    """A message cut into records of any size is read like one record."""
    hello = message(server_name(b"a.example"))
    assert peek_client_hello(records(hello, size)) == ClientHello("a.example", (), ech=False)


def test_every_beginning_needs_more() -> None:
    """No beginning of a ClientHello is refused, and none is taken for all of it."""
    data = real(alpn=["http/1.1"])
    for size in range(len(data)):
        assert isinstance(peek_client_hello(data[:size]), NeedMore)
    assert isinstance(peek_client_hello(data), ClientHello)
    assert peek_client_hello(data + b"early data") == peek_client_hello(data)


def test_ech_is_seen() -> None:
    """An encrypted_client_hello extension, real or greased, is reported."""
    found = peek_client_hello(records(message(server_name(b"outer") + extension(0xFE0D, b"\0"))))
    assert found == ClientHello("outer", (), ech=True)


@pytest.mark.parametrize(
    "name",
    [
        b"", b".", b"a..b", b"a b", b"a\0.example", b"a/b", b"-a.example", b"a-.example", b"\xff",
        b"a" * 64, b".".join([b"a" * 63] * 4), b"a@b", b"[::1]", b"a.example..",
    ],
)  # fmt: skip
def test_bad_names(name: bytes) -> None:
    """A server_name that is no DNS name is refused."""
    assert isinstance(peek_client_hello(records(message(server_name(name)))), NotTls)


@pytest.mark.parametrize(
    "extensions",
    [
        server_name(b"a") + server_name(b"b"),
        extension(0, vector(2, (b"\0" + vector(2, b"a")) * 2)),
        extension(0, vector(2, b"\1" + vector(2, b"a"))),
        extension(0, vector(2, b"\0" + vector(2, b"a")) + b"x"),
        extension(0, b""),
        extension(16, vector(2, b"")),
        extension(16, vector(2, vector(1, b""))),
        extension(16, vector(2, b"\5abc")),
        extension(0, b"\xff\xff"),
        b"\0\0\xff\xff",
        b"\0",
    ],
)
def test_bad_extensions(extensions: bytes) -> None:
    """Two of one kind, two names, and lengths that do not fit are refused."""
    assert isinstance(peek_client_hello(records(message(extensions))), NotTls)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x03\x01",  # SSLv2
        b"\x16\x02\x00\x00\x05hello",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x15\x03\x01\x00\x02\x01\x00",
        records(b"\x02" + message(None)[1:]),
        records(message(None)[:1] + vector(3, message(None)[4:] + b"x")),
        records(message(None, session=b"s" * 33)),
        records(b"\x01\x01\x00\x00"),
    ],
)
def test_not_tls(data: bytes) -> None:
    """Other protocols, bad lengths and bytes left over are no ClientHello."""
    assert isinstance(peek_client_hello(data), NotTls)


def _padded(total: int) -> bytes:
    empty = len(message(extension(21, b"")))
    return message(extension(21, bytes(total - empty)))


@pytest.mark.parametrize(("count", "fits"), [(ALPN_NAMES_MAX, True), (ALPN_NAMES_MAX + 1, False)])
def test_protocol_limit(count: int, *, fits: bool) -> None:
    """ALPN_NAMES_MAX protocols are read, one more is refused."""
    data = records(message(extension(16, vector(2, vector(1, b"a") * count))))
    assert isinstance(peek_client_hello(data), ClientHello) == fits


@pytest.mark.parametrize(("count", "fits"), [(EXTENSIONS_MAX, True), (EXTENSIONS_MAX + 1, False)])
def test_extension_limit(count: int, *, fits: bool) -> None:
    """EXTENSIONS_MAX extensions are read, one more is refused."""
    data = records(message(b"".join(extension(1000 + kind, b"") for kind in range(count))))
    assert isinstance(peek_client_hello(data), ClientHello) == fits


def test_size_limit() -> None:
    """A long message is read; one that says it is longer than PEEK_BYTES_MAX is refused at once."""
    assert isinstance(peek_client_hello(records(_padded(65000))), ClientHello)
    said = b"\x01" + (PEEK_BYTES_MAX - 4).to_bytes(3, "big")
    assert isinstance(peek_client_hello(records(said)), NeedMore)
    said = b"\x01" + (PEEK_BYTES_MAX - 3).to_bytes(3, "big")
    assert isinstance(peek_client_hello(records(said)), NotTls)


@pytest.mark.parametrize(("count", "fits"), [(RECORDS_MAX, True), (RECORDS_MAX + 1, False)])
def test_record_limit(count: int, *, fits: bool) -> None:
    """A ClientHello in RECORDS_MAX records is read, in one more it is refused."""
    hello = _padded(count)
    assert len(hello) == count
    assert isinstance(peek_client_hello(records(hello, 1)), ClientHello) == fits


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Any bytes give one of three answers."""
    assert isinstance(peek_client_hello(data), ClientHello | NeedMore | NotTls)
    assert isinstance(peek_client_hello(records(b"\x01" + data)), ClientHello | NeedMore | NotTls)
