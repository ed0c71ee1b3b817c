"""Invariant: a server's bytes pass as whole messages without the secret, or end the session."""

from agent.model.ids import RuleId
from agent.model.verdict import Allow
from agent.protocols.postgres.messages import error_response, message, parameter_status
from tests.conformance.conductor import CANARY
from tests.fuzz.engine import main
from tests.protocols.postgres.steady_rig import (
    DONE,
    SYNC,
    UP,
    Answers,
    Play,
    copy_data,
    describe,
    messages_of,
    query,
    whole,
)

ROWS = message(b"T", b"\0\x01a\0" + bytes(18))
ROW = message(b"D", b"\0\x01\0\0\0\1x")
READY = message(b"Z", b"I")
SEEDS = (
    ROWS + ROW + message(b"C", b"SELECT 1\0") + READY,
    ROWS + ROW * 9 + message(b"C", b"SELECT 9\0") + message(b"Z", b"T"),
    b"1\0\0\0\42\0\0\0\4" + ROWS + ROW + message(b"C", b"SELECT 1\0") + READY,
    b"1\0\0\0\42\0\0\0\4" + ROWS + ROW * 4 + b"s\0\0\0\4" + READY,
    error_response("ERROR", "22012", "no", CANARY.decode()) + READY,
    error_response("FATAL", "57P01", "no"),
    message(b"H", b"\0\0\0") + copy_data(CANARY) + DONE + message(b"C", b"COPY 1\0") + READY,
    message(b"G", b"\0\0\0") + error_response("ERROR", "57014", "no") + READY,
    parameter_status("TimeZone", "UTC") + message(b"N", b"SNOTICE\0C00000\0Mx\0\0"),
    ROWS + message(b"D", b"\0\1\0\4\0\0" + b"y" * 262_144)[:9_000],
    message(b"D", CANARY) + message(b"A", b"\0\0\0\1a\0b\0"),
)
_ASKED = (
    query("SELECT 1") + query("SELECT 2"),
    whole("SELECT 1") + whole("SELECT 2") + SYNC,
    query("COPY t TO STDOUT"),
    query("COPY t FROM STDIN"),
    describe("a", "S") + SYNC,
)
_LIMITS = (
    lambda _: Allow(RuleId("loop/0")),
    lambda _: Allow(RuleId("loop/0"), max_rows=1),
    lambda _: Allow(RuleId("loop/0"), max_rows=2),
)


def check(data: bytes) -> None:
    """Play the bytes as the answer to several questions, with and without a row limit."""
    for number, asked in enumerate(_ASKED):
        play = Play(Answers(verdict=_LIMITS[number % 3]))
        play.loop(asked)
        play.server(data, 1 + len(data) % 11 if len(data) % 2 else 1 + len(data))
        said = bytes(play.down)
        if play.finished is None:
            play.eof(UP)
        assert play.finished is not None
        assert CANARY not in said
        assert CANARY not in bytes(play.down)
        whole_bytes = sum(5 + len(payload) for _, payload in messages_of(bytes(play.down)))
        assert whole_bytes == len(play.down) or play.steady._down.left, "half a message went down"
        play.check()


if __name__ == "__main__":
    main("postgres_steady_up")
