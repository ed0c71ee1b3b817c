"""How sessions end: by a side, by a cut, by what may not be said; and the secret never."""

from base64 import b64encode

import pytest

from agent.model.audit import Outcome
from agent.model.reason import Reason
from agent.protocols.postgres.messages import (
    cancel_request,
    error_response,
    message,
    parameter_status,
)
from agent.wire.events import Eof
from tests.conformance.conductor import CANARY
from tests.fuzz.postgres_steady_down import check as steady_down
from tests.protocols.postgres.steady_rig import (
    DOWN,
    TERMINATE,
    UP,
    Answers,
    Play,
    copy_data,
    opened,
    query,
)
from tests.protocols.postgres.steady_words import (
    BOUND,
    CLOSED,
    COPY_OUT,
    NO_DATA,
    PARSED,
    ROWS,
    SUSPENDED,
    error,
    kinds,
    ready,
    report,
    row,
    tag,
)

# endings


def test_a_cut_says_its_true_cause() -> None:
    """FATAL 57P01, an outcome for what was under way, and the end."""
    play = Play(Answers())
    play.loop(query("SELECT pg_sleep(60)"))
    play.cut(Reason.RUN_ENDED)
    told = report(play.down)
    assert (told["S"], told["C"]) == ("FATAL", "57P01")
    assert "run has ended" in told["M"]
    assert play.finished is Reason.RUN_ENDED
    assert [outcome.outcome for outcome in play.outcomes] == [Outcome.ABORTED]
    play.check()


def test_a_cut_has_the_server_stop_what_it_is_at() -> None:
    """With the server's own key, which the loop never saw; a session at rest needs no such word."""
    key = (b"\0\0\1\2", b"abcd")
    play = Play(Answers(opened=opened(backend=key)))
    play.cut(Reason.RUN_ENDED)
    assert play.apart == []
    play = Play(Answers(opened=opened(backend=key)))
    play.loop(query("SELECT pg_sleep(60)"))
    play.cut(Reason.RUN_ENDED)
    assert play.apart == [cancel_request(*key)]
    play = Play(Answers(opened=opened(backend=key)))
    play.loop(query("SELECT pg_sleep(60)"))
    play.give(Eof(UP))
    assert play.finished is Reason.UPSTREAM_CLOSED
    assert play.apart == []


def test_a_cut_before_the_record_sends_nothing() -> None:
    """What waits for its record when the session is cut never goes upstream."""
    play = Play(Answers(recorded=None))
    play.loop(query("DELETE FROM t"))
    play.cut()
    assert play.take_up() == b""
    assert [outcome.outcome for outcome in play.outcomes] == [Outcome.DENIED]
    play.check()


def test_a_cut_within_a_large_row_adds_nothing_to_it() -> None:
    """An error within a message would be read as a part of it."""
    play = Play(Answers())
    play.loop(query("SELECT a FROM t"))
    big = row(b"x" * (1 << 20))
    play.server(ROWS + big[: 1 << 19])
    assert len(play.down) > 1 << 18
    play.cut()
    assert bytes(play.down) == ROWS + big[: 1 << 19]


def test_terminate_is_passed_on_when_all_is_answered() -> None:
    """X waits for the answers before it."""
    play = Play(Answers())
    play.loop(query("SELECT 1") + TERMINATE)
    assert play.running()
    play.server(ROWS + tag("SELECT 1") + ready())
    assert play.take_up().endswith(TERMINATE)
    assert play.finished is Reason.DONE
    play.check()


def test_the_ends_of_both_sides() -> None:
    """The loop's end comes after its answers; the server's end is told, with an outcome."""
    play = Play(Answers())
    play.loop(query("SELECT 1"))
    play.eof(DOWN)
    assert play.running()
    play.server(ROWS + tag("SELECT 1") + ready())
    assert play.finished is Reason.DOWNSTREAM_CLOSED
    play = Play(Answers())
    play.loop(query("SELECT 1"))
    play.server(error("57P01", "FATAL"))
    play.eof(UP)
    assert play.finished is Reason.UPSTREAM_CLOSED
    assert kinds(play.down) == "E"
    assert [outcome.outcome for outcome in play.outcomes] == [Outcome.ABORTED]
    play.check()


@pytest.mark.parametrize(
    "data",
    [
        b"p\0\0\0\5\0",
        b"?\0\0\0\4",
        b"Q\0\0\0\3",
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\4",
        message(b"Q", b"SELECT 1"),
        message(b"Q", b"SELECT 1\0; DROP TABLE t\0"),
        message(b"Q", b"SELECT '\xff'\0"),
        message(b"P", b"\0SELECT 1\0\0\1"),
        message(b"P", b"\0SELECT 1\0\0\0\0"),
        message(b"B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"),
        message(b"B", b"\0\0\0\0\0\1\0\0\0\2x\0\0"),
        message(b"B", b"\0\0\0\0\0\0\0\0\0"),
        message(b"D", b"X\0"),
        message(b"D", b"S\0\0"),
        message(b"E", b"\0\0\0\0"),
        message(b"S", b"\0"),
        message(b"X", b"\0"),
        message(b"F", b"\0\0\0\1\0\0\0\1\0\0\0\5x\0\0"),
    ],
)
def test_what_has_no_one_meaning_ends_the_session(data: bytes) -> None:
    """Nothing of it goes upstream: FATAL 08P01, and a record."""
    play = Play(Answers())
    play.loop(data)
    assert play.take_up() == b""
    assert play.finished in {Reason.PROTOCOL_ERROR, Reason.LIMIT_EXCEEDED}
    told = report(play.down)
    assert (told["S"], told["C"]) == ("FATAL", "08P01")
    assert len(play.denied) == 1


# what the server may say


@pytest.mark.parametrize(
    "data",
    [
        row(),
        tag("SELECT 1"),
        ready(),
        PARSED,
        BOUND,
        CLOSED,
        NO_DATA,
        SUSPENDED,
        COPY_OUT,
        error(),
        copy_data(b"x"),
        message(b"V", b"\xff\xff\xff\xff"),
        message(b"R", b"\0\0\0\0"),
        b"?\0\0\0\4",
        b"T\0\0\0\3",
        b"T\x7f\xff\xff\xff",
        message(b"N", b"no end"),
        parameter_status("client_encoding", "SJIS"),
    ],
)
def test_a_server_that_says_what_may_not_come_ends_the_session(data: bytes) -> None:
    """When nothing was asked, only notices, notifications and parameters may come."""
    play = Play(Answers())
    play.server(data)
    assert play.finished is not None
    assert report(play.down)["S"] == "FATAL"


def test_an_error_without_sqlstate_is_not_passed_on() -> None:
    """It would leave drivers guessing."""
    play = Play(Answers())
    play.loop(query("SELECT 1"))
    play.server(message(b"E", b"SERROR\0Moops\0\0"))
    assert play.finished is Reason.UPSTREAM_PROTOCOL_ERROR


def test_notices_and_notifications_pass_at_any_time() -> None:
    """Between queries and within them, parameters that are not pinned too."""
    play = Play(Answers())
    said = message(b"N", b"SNOTICE\0C00000\0Mhello\0\0")
    said += message(b"A", b"\0\0\0\1channel\0payload\0") + parameter_status("TimeZone", "UTC")
    play.server(said)
    assert play.take_down() == said
    play.loop(query("SELECT 1"))
    play.server(said + ROWS + said + row() + said + tag("SELECT 1") + ready())
    assert kinds(play.take_down()) == "NASTNASDNASCZ"


@pytest.mark.parametrize("piece", [1, 5, 64 * 1024])
def test_the_secret_never_goes_down(piece: int) -> None:
    """A server that says the lease's password back: in rows, errors, notices and copies."""
    play = Play(Answers())
    play.loop(query("SELECT secret"))
    big = row(b"y" * (300 * 1024) + CANARY + b"y" * (300 * 1024) + CANARY)
    said = ROWS + row(CANARY) + big + row(b"'" + CANARY + b"'") + tag("SELECT 3") + ready()
    for at in range(0, len(said), max(piece, len(said) // 2000)):
        play.server(said[at : at + max(piece, len(said) // 2000)])
    assert CANARY not in play.down
    assert len(play.down) == len(said)
    play.take_down()
    play.loop(query("SELECT secret"))
    play.server(error_response("ERROR", "XX000", f"secret {CANARY.decode()}") + ready(), piece)
    assert CANARY not in play.down
    assert kinds(play.take_down()) == "EZ"


@pytest.mark.parametrize("encoded", [CANARY, CANARY.hex().encode(), b64encode(CANARY)])
def test_no_record_quotes_a_secret_that_the_server_repeats(encoded: bytes) -> None:
    """What a server calls the end of a command is recorded, without the secret in it."""
    play = Play(Answers())
    play.loop(query("SELECT 1"))
    play.server(tag(f"SELECT {encoded.decode()}") + ready())
    [outcome] = play.outcomes
    [told] = [value for name, value in outcome.attributes if name == "command_tag"]
    assert told.startswith("SELECT ***************")
    assert encoded.decode()[4:12] not in told


@pytest.mark.parametrize("size", [CANARY[0], CANARY[0] << 16 | CANARY[0]])
@pytest.mark.parametrize("piece", [1, 64 * 1024])
def test_a_secret_that_begins_in_a_length_ends_the_session(size: int, piece: int) -> None:
    """A length that ends with the secret's first byte: no other messages are made of the bytes."""
    play = Play(Answers())
    play.loop(query("COPY t TO STDOUT"))
    payload = (CANARY[1:] + b"y" * size)[: size - 4]
    said = COPY_OUT + b"d" + size.to_bytes(4, "big") + payload + ready()
    step = max(piece, len(said) // 500)
    for at in range(0, len(said), step):
        play.server(said[at : at + step])
    assert CANARY not in play.down
    assert play.finished is Reason.UPSTREAM_PROTOCOL_ERROR
    down = play.take_down()
    assert kinds(down) == ("HE" if size < 100_000 else "H")
    if size < 100_000:
        assert "begins or ends in the frame" in report(down)["M"]


def test_nothing_goes_up_behind_the_end_of_what_waited() -> None:
    """Messages that waited for a copy to begin, the session's end among them; fuzzing found it."""
    again = b"d\0\0\x002d\0\0\0\0\0\0\4Q\0\0\0\tdeny\0X\0\0\0\4"
    steady_down(b"Q\0\0\0\tcopy\0" + 3 * again)
