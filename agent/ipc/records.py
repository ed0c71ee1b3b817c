"""Audit events as IPC bodies: the kind is the class's name, the body msgpack."""

import msgspec

from agent.model import audit

KINDS: dict[str, type[audit.AuditEvent]] = {
    kind.__name__: kind
    for kind in (
        audit.RunStarted,
        audit.RunEnded,
        audit.SessionOpened,
        audit.SessionRefused,
        audit.OperationIntended,
        audit.OperationFinished,
        audit.OperationDenied,
        audit.SessionClosed,
        audit.LeaseChanged,
        audit.Alarmed,
        audit.Heartbeat,
    )
}
_encoder = msgspec.msgpack.Encoder()
_decoders = {name: msgspec.msgpack.Decoder(kind) for name, kind in KINDS.items()}


def pack_event(event: audit.AuditEvent) -> tuple[str, msgspec.Raw]:
    """Return (kind, body) for a Record frame."""
    return type(event).__name__, msgspec.Raw(_encoder.encode(event))


def unpack_event(kind: str, body: msgspec.Raw) -> audit.AuditEvent:
    """Return the event.

    Raises:
        ValueError: an unknown kind, or a body that is not of the kind.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        raise ValueError(f"unknown kind of event: {kind[:40]!r}")
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"body is not a {kind}: {error}") from error
