"""What the conformance suite plays for PostgreSQL, and how to read what came of it."""

from agent.model.operation import Operation
from agent.protocols.postgres import limits
from agent.protocols.postgres.frames import Malformed, Splitter
from agent.protocols.postgres.messages import command_complete, cstring, message
from tests.conformance.conductor import CANARY, Conductor
from tests.conformance.sample import Sample
from tests.protocols.postgres import world
from tests.protocols.postgres.server import Server
from tests.protocols.postgres.world import TERMINATE, query, startup
from tests.protocols.postgres.wrongs import GSS_REQUEST, V32

TARGET = world.target()
TLS_NAME = None
LEASE = world.lease()
# of what a loop sends, what the policy decides over; the rest goes with a session or a statement
_OPERATIONS = frozenset(b"QEFdcf")


def _row(*values: bytes) -> bytes:
    body = b"".join(len(value).to_bytes(4, "big") + value for value in values)
    return message(b"D", len(values).to_bytes(2, "big") + body)


def _described(name: str) -> bytes:
    column = cstring(name) + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff" + bytes(6)
    return message(b"T", b"\0\1" + column)


def _extended(text: str) -> bytes:
    return (
        message(b"P", b"\0" + cstring(text) + b"\0\0")
        + message(b"B", b"\0\0" + bytes(6))
        + message(b"D", b"P\0")
        + message(b"E", b"\0" + bytes(4))
    )


SYNC = message(b"S")
ONE = _described("a") + _row(b"1") + _row(b"2") + command_complete("SELECT 2")
EXECUTED = _row(b"1") + command_complete("SELECT 1")
SECRET = _described("a") + _row(b"<" + CANARY + b">") + command_complete("SELECT 1")
NONE = command_complete("SELECT 0")
FAILED = message(b"E", b"SERROR\0VERROR\0C42P01\0Mno such table\0\0")
SAMPLES = (
    Sample("query", startup() + query("SELECT a FROM t") + TERMINATE, (ONE,)),
    Sample("two queries", startup() + query("SELECT 1") + query("SELECT 2") + TERMINATE,
           (ONE, NONE)),
    Sample("3.2", startup(V32) + query("SELECT 1") + TERMINATE, (ONE,)),
    Sample("GSSAPI first", GSS_REQUEST + startup() + query("SELECT 1") + TERMINATE, (ONE,)),
    Sample("an error", startup() + query("SELECT 1") + query("SELECT 2") + TERMINATE,
           (FAILED, ONE)),
    Sample("the secret comes back", startup() + query("SELECT a FROM t") + TERMINATE, (SECRET,)),
    Sample("extended", startup() + _extended("SELECT 1") + SYNC + TERMINATE, (EXECUTED,)),
    Sample("pipelined", startup() + _extended("SELECT 1") + _extended("SELECT 2") + SYNC
           + _extended("SELECT 3") + SYNC + TERMINATE, (EXECUTED, NONE, EXECUTED)),
    Sample("two texts in one", startup() + message(b"Q", b"SELECT 1\0SELECT 2\0"), ()),
    Sample("another database's settings", startup(client_encoding="SJIS"), ()),
    Sample("no startup", query("SELECT 1"), ()),
)  # fmt: skip


def server(sample: Sample) -> Server:
    """Return the server of a sample."""
    return Server(sample.answers)


def reading(sample: Sample, conductor: Conductor) -> object:
    """Return what both ends read, however the bytes were cut into pieces."""
    found = conductor.world.server
    assert isinstance(found, Server)
    return conductor.to_loop, found.startup, found.logins, found.received


def operations(conductor: Conductor) -> bytes:
    """Return what the policy decides over: statements and data, not the session's own messages."""
    found = conductor.world.server
    if not isinstance(found, Server):
        return b""
    return b"".join(frame.payload for frame in found.received if frame.kind in _OPERATIONS)


def ahead(operation: Operation) -> bool:
    """Whether it is a Parse: judged when it is prepared, recorded when it is executed."""
    return ("message", "parse") in operation.attributes


def idle(data: bytes) -> bool:
    """Whether these messages carry no operation: Sync, Terminate, Parse of what is decided."""
    splitter = Splitter(limits.FRONTEND)
    splitter.feed(data)
    try:
        while (frame := splitter.next()) is not None:
            if frame.kind in _OPERATIONS:
                return False
    except Malformed:
        return False
    return not splitter.held
