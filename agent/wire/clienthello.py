"""A look at a TLS ClientHello before TLS is answered (RFC 8446 sections 4.1.2 and 5.1, RFC 6066).

The bytes are only looked at: the same bytes go to the TLS engine afterwards. A ClientHello may be
cut into many records, and each record into many segments.
"""

import re
from dataclasses import dataclass

PEEK_BYTES_MAX = 64 * 1024  # a ClientHello with its record headers → NotTls beyond
RECORD_BYTES_MAX = 16 * 1024  # RFC 8446 section 5.1
RECORDS_MAX = 128  # that one ClientHello may be cut into: each look costs their number
ALPN_NAMES_MAX = 64
EXTENSIONS_MAX = 256

_HANDSHAKE = 0x16
_SERVER_NAME = 0x0000
_ALPN = 0x0010
_ECH = 0xFE0D
_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rb"(?=.{1,254}\Z)" + _LABEL + rb"(?:\." + _LABEL + rb")*\.?")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asked for. server_name is as sent; None when there was none.

    ech: there is an encrypted_client_hello extension, real or greased; server_name is then the
    outer name.
    """

    server_name: str | None
    alpn: tuple[bytes, ...]
    ech: bool


@dataclass(frozen=True, slots=True)
class NeedMore:
    """So far it is one, but it is not complete."""


@dataclass(frozen=True, slots=True)
class NotTls:
    """It is none that can be served. detail is fixed text."""

    detail: str


class _Bad(ValueError):
    """A length or a value does not fit. The text is fixed."""


def peek_client_hello(data: bytes) -> ClientHello | NeedMore | NotTls:
    """Look at all bytes that came so far."""
    try:
        message = _handshake_message(data)
        if message is not None:
            return _parse(message)
    except _Bad as error:
        return NotTls(str(error))
    if len(data) >= PEEK_BYTES_MAX:
        return NotTls("the ClientHello is too long")
    return NeedMore()


def _handshake_message(data: bytes) -> bytes | None:
    """Return the first handshake message's body, None when it is not complete."""
    message = b""
    at = count = 0
    while at < len(data):
        if data[at] != _HANDSHAKE or (len(data) > at + 1 and data[at + 1] != 3):
            raise _Bad("not a TLS handshake record")
        if len(data) < at + 5:
            break
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        count += 1
        if not 0 < length <= RECORD_BYTES_MAX or count > RECORDS_MAX:
            raise _Bad("a TLS record has a bad length, or there are too many")
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if _is_complete(message):
            return message[4 : _wanted(message)]
    return None


def _is_complete(message: bytes) -> bool:
    if message[:1] not in {b"", b"\x01"}:
        raise _Bad("the first handshake message is not a ClientHello")
    if len(message) < 4:
        return False
    if _wanted(message) > PEEK_BYTES_MAX:
        raise _Bad("the ClientHello is too long")
    return len(message) >= _wanted(message)


def _wanted(message: bytes) -> int:
    return 4 + int.from_bytes(message[1:4], "big")


class _Cursor:
    """Reads vectors of one buffer; every length is checked against what is there."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise _Bad("a length in the ClientHello does not fit")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        return self.take(self.number(length_size))

    @property
    def done(self) -> bool:
        return self._at == len(self._data)


def _parse(body: bytes) -> ClientHello:
    cursor = _Cursor(body)
    if cursor.take(2)[0] != 3:
        raise _Bad("the ClientHello's version is not TLS")
    cursor.take(32)
    if len(cursor.vector(1)) > 32 or len(cursor.vector(2)) % 2 or not cursor.vector(1):
        raise _Bad("a length in the ClientHello does not fit")
    extensions = {} if cursor.done else _extensions(cursor.vector(2))
    if not cursor.done:
        raise _Bad("bytes behind the ClientHello's extensions")
    name = extensions.get(_SERVER_NAME)
    alpn = extensions.get(_ALPN)
    return ClientHello(
        None if name is None else _server_name(name),
        () if alpn is None else _alpn_names(alpn),
        _ECH in extensions,
    )


def _extensions(data: bytes) -> dict[int, bytes]:
    cursor = _Cursor(data)
    found: dict[int, bytes] = {}
    while not cursor.done:
        kind = cursor.number(2)
        if kind in found or len(found) >= EXTENSIONS_MAX:
            raise _Bad("a ClientHello extension comes twice, or there are too many")
        found[kind] = cursor.vector(2)
    return found


def _server_name(data: bytes) -> str:
    """RFC 6066 section 3: one list with one name of type host_name."""
    outer = _Cursor(data)
    entries = _Cursor(outer.vector(2))
    kind, name = entries.number(1), entries.vector(2)
    if kind != 0 or not entries.done or not outer.done:
        raise _Bad("server_name is not one host name")
    if not _DNS_NAME.fullmatch(name):
        raise _Bad("server_name is not a DNS name")
    return name.decode("ascii")


def _alpn_names(data: bytes) -> tuple[bytes, ...]:
    outer = _Cursor(data)
    entries = _Cursor(outer.vector(2))
    names: list[bytes] = []
    while not entries.done:
        names.append(entries.vector(1))
        if not names[-1] or len(names) > ALPN_NAMES_MAX:
            raise _Bad("an ALPN name is empty, or there are too many")
    if not outer.done or not names:
        raise _Bad("the ALPN list is empty or does not fit")
    return tuple(names)
