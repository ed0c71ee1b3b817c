"""What a client may send before it has a session: packets without a type byte.

PostgreSQL documentation, "Message Formats": SSLRequest, GSSENCRequest, CancelRequest and
StartupMessage. All have an int32 length that counts itself, and an int32 code.
"""

from dataclasses import dataclass, field

from agent.protocols.postgres.frames import Fields, Malformed
from agent.protocols.postgres.limits import (
    BACKEND_KEY_BYTES_MAX,
    BACKEND_KEY_BYTES_MIN,
    PARAMETER_NAME_BYTES_MAX,
    PARAMETERS_MAX,
    STARTUP_BYTES_MAX,
)

NEWEST_MINOR = 2
_CANCEL = 1234 << 16 | 5678
_SSL = 1234 << 16 | 5679
_GSS = 1234 << 16 | 5680
_HEAD_BYTES = 8
_EXTENSION = "_pq_."


@dataclass(frozen=True, slots=True)
class SslRequest:
    """Asks for TLS."""


@dataclass(frozen=True, slots=True)
class GssRequest:
    """Asks for GSSAPI encryption."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Says Terminate before it asks for anything: a client that gave up while it connected."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Asks to cancel what another session does; the key is what that session was told."""

    pid: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Startup:
    """Asks for a session. parameters in order, names different; extensions: `_pq_.` names."""

    major: int
    minor: int
    parameters: tuple[tuple[str, str], ...] = ()
    extensions: tuple[str, ...] = ()

    @property
    def spoken(self) -> int:
        """The newest minor version that the client and we speak; 3.1 was never one."""
        return NEWEST_MINOR if self.minor >= NEWEST_MINOR else 0


Packet = SslRequest | GssRequest | CancelRequest | Startup | Goodbye


def next_packet(data: bytes) -> tuple[Packet, bytes] | None:
    """Return the first packet and the bytes behind it; None when more bytes are needed.

    Raises:
        Malformed: it can't become a packet, or is none.
    """
    if any(data[:2]):  # a proper length is below 65,536: do not wait for what is no packet
        raise Malformed("what is no startup packet of PostgreSQL")
    if len(data) < 4:
        return None
    length = int.from_bytes(data[:4], "big")
    if not _HEAD_BYTES <= length <= STARTUP_BYTES_MAX:
        raise Malformed("a startup packet whose length may not be")
    if len(data) < length:
        return None
    return _parse(data[4:length]), data[length:]


def _parse(body: bytes) -> Packet:
    fields = Fields(body)
    code = fields.int32()
    match code:
        case code if code == _SSL:
            fields.end()
            return SslRequest()
        case code if code == _GSS:
            fields.end()
            return GssRequest()
        case code if code == _CANCEL:
            pid, key = fields.take(4), fields.rest()
            if not BACKEND_KEY_BYTES_MIN <= len(key) <= BACKEND_KEY_BYTES_MAX:
                raise Malformed("a cancel key whose length may not be")
            return CancelRequest(pid, key)
        case _:
            return _startup(code, fields)


def _startup(code: int, fields: Fields) -> Startup:
    major, minor = code >> 16, code & 0xFFFF
    if major != 3:
        return Startup(major, minor)  # what follows is of another protocol
    found: dict[str, str] = {}
    extensions: list[str] = []
    seen: set[str] = set()
    while name := fields.cstring():
        if len(name) > PARAMETER_NAME_BYTES_MAX or len(seen) >= PARAMETERS_MAX:
            raise Malformed("a startup parameter with too long a name, or too many of them")
        if not name.isascii() or not name.decode().isprintable() or b" " in name:
            raise Malformed("a startup parameter whose name is no name")
        text, value = name.decode(), fields.text()
        if text.lower() in seen:
            raise Malformed("a startup parameter twice")
        seen.add(text.lower())
        if text.startswith(_EXTENSION):
            extensions.append(text)
        else:
            found[text] = value
    fields.end()
    return Startup(major, minor, tuple(found.items()), tuple(extensions))
