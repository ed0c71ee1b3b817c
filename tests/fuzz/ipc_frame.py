"""Invariant: any frame is a message of its boundary or refused; any event a record or refused."""

import msgspec

from agent.ipc.messages import BOUNDARIES, Durable, Record, Wire
from agent.ipc.records import pack_event, unpack_event
from agent.pb import audit_pb2 as pb
from agent.reporter.encoding import Stamp, serialize_records
from agent.spool.format import RECORD_BYTES_MAX
from tests.fuzz.engine import main
from tests.unit.reporter.events import (
    denied,
    finished,
    intended,
    run_started,
    session_closed,
    session_opened,
)

_DECODERS = [
    msgspec.msgpack.Decoder(tuple[int, bool, kinds])  # type: ignore[valid-type]
    for kinds in BOUNDARIES.values()
]
_EVENTS = (run_started(), session_opened(1), intended(2), finished(2), denied(3), session_closed(1))
_encode = msgspec.msgpack.Encoder().encode
SEEDS = (
    *(_encode((0, False, Record((pack_event(event),), 7, "disk"))) for event in _EVENTS),
    _encode((0, False, Record(tuple(map(pack_event, _EVENTS)), 0, "process"))),
    _encode((0, False, Durable(9))),
    _encode((1, True, Wire("proxy@0"))),
)
_STAMP = Stamp("boot", 1_700_000_000_000, 1)


def check(data: bytes) -> None:
    """Decode for every boundary; what is a Record goes on to the bytes that would be stored."""
    for decoder in _DECODERS:
        try:
            frame = decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        assert decoder.decode(_encode(frame)) == frame
        message = frame[2]
        if isinstance(message, Record):
            _store(message)


def _store(message: Record) -> None:
    try:
        events = [unpack_event(kind, body) for kind, body in message.events]
        stored = serialize_records(events, 5, _STAMP, "proxy@0")
    except ValueError:
        return
    for seq, data in enumerate(stored, 5):
        record = pb.Record.FromString(data)
        assert record.seq == seq
        assert record.SerializeToString() == data
        assert len(data) <= RECORD_BYTES_MAX


if __name__ == "__main__":
    main("ipc_frame")
