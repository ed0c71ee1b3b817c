"""Messages that we build: what the loop is told, and what the server is told."""

from collections.abc import Iterable

PROTOCOL_3 = 3 << 16
SSL_REQUEST = (8).to_bytes(4, "big") + (1234 << 16 | 5679).to_bytes(4, "big")
TERMINATE = b"X\0\0\0\4"
SYNC = b"S\0\0\0\4"
FLUSH = b"H\0\0\0\4"
AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"


def message(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one message: type, length, payload.

    Raises:
        OverflowError: the payload is longer than a length can say.
    """
    return kind + (len(payload) + 4).to_bytes(4, "big", signed=True) + payload


def cstring(value: str | bytes) -> bytes:
    """Return a text with its end.

    Raises:
        ValueError: there is a NUL in it.
    """
    data = value.encode() if isinstance(value, str) else value
    if b"\0" in data:
        raise ValueError("a NUL within a text")
    return data + b"\0"


def _shown(value: str) -> bytes:
    return value.encode("utf-8", "replace").replace(b"\0", b"?")


def error_response(
    severity: str, sqlstate: str, text: str, detail: str = "", hint: str = ""
) -> bytes:
    """Return an ErrorResponse. severity: "ERROR" keeps the session, "FATAL" ends it."""
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", text))
    optional = (("D", detail), ("H", hint))
    said = [*fields, *((name, value) for name, value in optional if value)]
    body = b"".join(name.encode() + _shown(value) + b"\0" for name, value in said)
    return message(b"E", body + b"\0")


def ready_for_query(status: bytes) -> bytes:
    """Return ReadyForQuery: b"I" idle, b"T" in a transaction, b"E" in a failed one."""
    return message(b"Z", status)


def parameter_status(name: str, value: str) -> bytes:
    """Return ParameterStatus."""
    return message(b"S", cstring(name) + cstring(value))


def backend_key_data(pid: bytes, key: bytes) -> bytes:
    """Return BackendKeyData: 4 bytes and the key."""
    return message(b"K", pid + key)


def negotiate_protocol_version(version: int, unknown: Iterable[str]) -> bytes:
    """Return NegotiateProtocolVersion: the newest that we speak, and options that we do not know.

    version is whole (major in the high half), as servers send it since there is a 3.2.
    """
    names = [cstring(name) for name in unknown]
    body = version.to_bytes(4, "big") + len(names).to_bytes(4, "big") + b"".join(names)
    return message(b"v", body)


def command_complete(tag: str) -> bytes:
    """Return CommandComplete."""
    return message(b"C", cstring(tag))


def startup_message(version: int, parameters: Iterable[tuple[str, str]]) -> bytes:
    """Return a StartupMessage; it has no type byte."""
    body = b"".join(cstring(name) + cstring(value) for name, value in parameters) + b"\0"
    return (len(body) + 8).to_bytes(4, "big") + version.to_bytes(4, "big") + body


def cancel_request(pid: bytes, key: bytes) -> bytes:
    """Return a CancelRequest; it has no type byte."""
    code = (1234 << 16 | 5678).to_bytes(4, "big")
    return (12 + len(key)).to_bytes(4, "big") + code + pid + key


def password_message(data: bytes) -> bytes:
    """Return a PasswordMessage; data without its end."""
    return message(b"p", data + b"\0")


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """Return a SASLInitialResponse."""
    return message(b"p", cstring(mechanism) + len(data).to_bytes(4, "big") + data)


def sasl_response(data: bytes) -> bytes:
    """Return a SASLResponse."""
    return message(b"p", data)
