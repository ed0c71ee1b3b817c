"""Invariant: a loop's bytes give only what was recorded upstream, and nothing once refused."""

from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.sql import Classified, Effect, Statement
from agent.model.verdict import Allow, Deny, Verdict
from agent.protocols.postgres.messages import error_response, message
from agent.protocols.postgres.refusing import (
    COPY_FAIL_WIRE,
    FAILING_PARSE_WIRE,
    FAILING_QUERY_WIRE,
)
from agent.wire.events import StopAsked
from tests.fuzz.engine import main
from tests.protocols.postgres.steady_rig import (
    DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    UP,
    Answers,
    Play,
    bind,
    close,
    copy_data,
    describe,
    execute,
    messages_of,
    parse,
    query,
    whole,
)

_FAILING = {FAILING_PARSE_WIRE, FAILING_QUERY_WIRE, COPY_FAIL_WIRE}
_READ = Statement("SELECT", frozenset({Effect.READ}), returns_rows=True)
_COPY = Statement("COPY FROM", frozenset({Effect.WRITE}))
_RUN = Statement("EXECUTE", frozenset({Effect.UNKNOWN}), prepared="a")
_READY = message(b"Z", b"T")
SEEDS = (
    query("SELECT 1") + query("deny") + query("SELECT 2"),
    whole("SELECT $1", "x") + whole("deny") + whole("SELECT 2") + SYNC + whole("SELECT 3") + SYNC,
    parse("SELECT 1", "a") + bind(name="a", portal="p") + execute("p", 2) + FLUSH + execute("p"),
    parse("deny", "a") + SYNC + bind(name="a") + describe("a", "S") + execute() + close("a") + SYNC,
    query("copy") + copy_data(b"1\n2") + copy_data(b"\n") + DONE + query("deny") + TERMINATE,
    whole("copy") + SYNC + copy_data(b"1\n") + message(b"f", b"no\0") + SYNC,
    query("run") + message(b"F", b"\0\0\0\x59" + bytes(6)) + SYNC + TERMINATE,
)


def _class_of(text: str) -> Classified:
    """Stand for the classifier, which has a target of its own."""
    statement = _COPY if text.startswith("copy") else _RUN if text.startswith("run") else _READ
    return Classified((statement,), text)


def _verdict(operation: Operation) -> Verdict:
    if "deny" in operation.resource:
        return Deny(RuleId("loop/1"), Reason.POLICY_DENIED, "No.", "Ask.")
    return Allow(RuleId("loop/0"), max_rows=len(operation.resource) % 3)


def _answer(kind: int, payload: bytes) -> bytes:
    """Answer one message as a server would, more or less."""
    match kind:
        case 80:
            failed = payload.startswith(b"loopwarden")
            return error_response("ERROR", "42601", "no") if failed else b"1\0\0\0\4"
        case 66:
            return b"2\0\0\0\4"
        case 67:
            return b"3\0\0\0\4"
        case 68:
            return (b"t\0\0\0\6\0\0" if payload[:1] == b"S" else b"") + b"n\0\0\0\4"
        case 69:
            return message(b"D", b"\0\0") + message(b"C", b"SELECT 1\0")
        case 83:
            return _READY
        case 81:
            if payload.startswith(b"copy"):
                return message(b"G", b"\0\0\0")
            failed = payload.startswith(b"loopwarden")
            said = error_response("ERROR", "42601", "no") if failed else b"I\0\0\0\4"
            return said + _READY
        case 99 | 102:
            return message(b"C", b"COPY 1\0") + _READY
        case 70:
            return message(b"V", b"\xff\xff\xff\xff") + _READY
        case _:
            return b""


def check(data: bytes) -> None:
    """Play the bytes as a loop, in pieces that depend on them, to a server that says yes.

    Of a third of all inputs records take their time, and cancels come between the pieces.
    """
    slow = len(data) % 3 == 0
    play = Play(Answers(verdict=_verdict, classify=_class_of, recorded=None if slow else True))
    piece = 1 + len(data) % 7 if len(data) % 2 else 1 + len(data)
    sent = bytearray()
    for at in range(0, len(data), piece):
        play.loop(data[at : at + piece])
        if slow and at // piece % 4 == 1:
            play.give(StopAsked())
        elif slow:
            _record(play)
        while play.finished is None and (up := play.take_up()):
            sent += up
            play.server(b"".join(_answer(*one) for one in messages_of(up)))
    _record(play)
    sent += play.take_up()
    play.eof(UP)
    sent += play.take_up()
    assert play.finished is not None
    play.check()
    runs = 0
    for kind, payload in messages_of(bytes(sent)):
        wire = bytes([kind]) + (len(payload) + 4).to_bytes(4, "big") + payload
        if kind in b"QEF" and wire not in _FAILING:
            runs += 1
        # Of a Parse the second text; what follows it are type oids, which can spell anything.
        text = payload.split(b"\0")[1] if kind == ord("P") else payload
        assert kind not in b"QP" or b"deny" not in text, "a refused text went upstream"
        assert kind in b"QPBDECHSFXdcf"
    recorded = sum(("message", "parse") not in one.operation.attributes for one in play.intents)
    assert runs <= recorded, "more ran than was recorded"


def _record(play: Play) -> None:
    while play.waiting_records and play.finished is None:
        play.record()


if __name__ == "__main__":
    main("postgres_steady_down")
