"""Makes ClientHellos: real ones by OpenSSL, and ones put together by hand."""

import ssl
from collections.abc import Sequence


def real(name: str | None = "api.example.com", alpn: Sequence[str] = ()) -> bytes:
    """Return what OpenSSL sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def vector(size: int, data: bytes) -> bytes:
    """Return data with its length in so many bytes before it."""
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    """Return one extension."""
    return kind.to_bytes(2, "big") + vector(2, data)


def message(extensions: bytes | None, *, session: bytes = b"") -> bytes:
    """Return a ClientHello handshake message."""
    body = b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, b"\x13\x01") + vector(1, b"\0")
    if extensions is not None:
        body += vector(2, extensions)
    return b"\x01" + vector(3, body)


def records(data: bytes, size: int = 16384) -> bytes:
    """Return a message cut into records."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def server_name(name: bytes) -> bytes:
    """Return a server_name extension."""
    return extension(0, vector(2, b"\0" + vector(2, name)))
