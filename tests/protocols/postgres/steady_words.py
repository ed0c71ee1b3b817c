"""Words of servers and loops that tests of the steady half use."""

from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.verdict import Allow, Deny, Verdict
from agent.protocols.postgres.messages import error_response, message
from tests.protocols.postgres.steady_rig import Answers, Play, messages_of, query

PARSED = b"1\0\0\0\4"
BOUND = b"2\0\0\0\4"
CLOSED = b"3\0\0\0\4"
NO_DATA = b"n\0\0\0\4"
SUSPENDED = b"s\0\0\0\4"
ROWS = message(b"T", b"\0\x01a\0" + bytes(18))
COPY_IN = message(b"G", b"\0\0\0")
COPY_OUT = message(b"H", b"\0\0\0")


def ready(status: bytes = b"I") -> bytes:
    """Return ReadyForQuery."""
    return message(b"Z", status)


def row(data: bytes = b"x") -> bytes:
    """Return a DataRow of one value."""
    return message(b"D", b"\0\x01" + len(data).to_bytes(4, "big") + data)


def tag(text: str) -> bytes:
    """Return CommandComplete."""
    return message(b"C", text.encode() + b"\0")


def error(sqlstate: str = "22012", severity: str = "ERROR") -> bytes:
    """Return an ErrorResponse."""
    return error_response(severity, sqlstate, "no")


def report(data: bytes | bytearray) -> dict[str, str]:
    """Return the fields of the one ErrorResponse in some bytes."""
    (payload,) = [payload for kind, payload in messages_of(bytes(data)) if kind == ord("E")]
    return {part[:1].decode(): part[1:].decode() for part in payload.split(b"\0") if part}


def kinds(data: bytes | bytearray) -> str:
    """Return the types of complete messages."""
    return "".join(chr(kind) for kind, _ in messages_of(bytes(data)))


def no_drop(operation: Operation) -> Verdict:
    """Allow all but DROP and DELETE."""
    if any(s.kind.startswith(("DROP", "DELETE")) for s in operation.statements):
        return Deny(RuleId("loop/7"), Reason.POLICY_DENIED, "DROP TABLE t is ddl.", "Ask for it.")
    return Allow(RuleId("loop/0"))


def limited(most: int) -> Answers:
    """Allow all, with at most so many rows."""
    return Answers(verdict=lambda _: Allow(RuleId("loop/3"), max_rows=most))


def in_transaction(play: Play) -> None:
    """Let a transaction begin."""
    play.loop(query("BEGIN"))
    play.server(tag("BEGIN") + ready(b"T"))
    play.take_up()
    play.take_down()
