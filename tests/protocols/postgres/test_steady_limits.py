"""Row limits, in order and undone on both sides; bounds on what is held."""

import dataclasses
import sys

import pytest

from agent.model.ids import RuleId
from agent.model.reason import Reason
from agent.model.sql import Classified, Effect
from agent.model.verdict import Allow
from agent.protocols.postgres.deciding import FLIGHT_MAX, RECORDINGS_MAX
from agent.protocols.postgres.downflow import WHOLE_BYTES_MAX
from agent.protocols.postgres.messages import cancel_request, message
from agent.protocols.postgres.receiving import STEPS_MAX
from agent.protocols.postgres.refusing import FAILING_PARSE_WIRE, FAILING_QUERY_WIRE
from agent.wire.events import RecordFailed, SaidApart
from tests.protocols.postgres.steady_rig import (
    DONE,
    FLUSH,
    SYNC,
    Answers,
    Play,
    bind,
    class_of,
    close,
    copy_data,
    describe,
    execute,
    opened,
    parse,
    query,
    whole,
)
from tests.protocols.postgres.steady_words import (
    BOUND,
    CLOSED,
    COPY_IN,
    COPY_OUT,
    NO_DATA,
    PARSED,
    ROWS,
    SUSPENDED,
    error,
    in_transaction,
    kinds,
    limited,
    ready,
    report,
    row,
    tag,
)

ANSWERS = {"P": PARSED, "B": BOUND, "D": ROWS, "E": row() + tag("SELECT 1")}

# row limits


def test_a_query_may_have_as_many_rows_as_the_rule_says() -> None:
    """At the limit all passes; one past it the rows end in an error, and the session goes on."""
    play = Play(limited(2))
    play.loop(query("SELECT a FROM t"))
    play.server(ROWS + 2 * row() + tag("SELECT 2") + ready())
    assert kinds(play.take_down()) == "TDDCZ"
    play.loop(query("SELECT a FROM t"))
    play.server(ROWS + 5 * row() + tag("SELECT 5") + ready())
    assert kinds(play.down) == "TDDEZ"
    told = report(play.take_down())
    assert told["C"] == "54000"
    assert "loop/3" in told["M"]
    assert [(o.status, o.rows) for o in play.outcomes] == [("00000", 2), ("54000", 2)]


def test_past_the_limit_in_a_transaction_both_sides_fail() -> None:
    """The server's transaction is failed before the loop hears ReadyForQuery."""
    play = Play(limited(2))
    in_transaction(play)
    play.loop(query("SELECT a FROM t") + query("SELECT b FROM t"))
    assert kinds(play.take_up()) == "Q"  # the second waits until it is clear what it runs in
    play.server(ROWS + 3 * row() + tag("SELECT 3") + ready(b"T"))
    assert play.take_up() == FAILING_QUERY_WIRE + query("SELECT b FROM t")
    play.server(error("42601") + ready(b"E") + error("25P02") + ready(b"E"))
    assert kinds(play.take_down()) == "TDDEZEZ"


def test_an_execute_is_asked_for_one_row_more() -> None:
    """The server rests after limit + 1 rows; the loop gets the limit, and the pipeline ends."""
    play = Play(limited(2))
    play.loop(whole("SELECT a FROM t") + SYNC + query("SELECT 1"))
    assert play.take_up() == parse("SELECT a FROM t") + bind() + describe() + execute(most=3) + SYNC
    play.server(PARSED + BOUND + ROWS + 3 * row() + SUSPENDED + ready())
    assert kinds(play.take_down()) == "12TDDEZ"
    assert kinds(play.take_up()) == "Q"


def test_an_execute_past_its_limit_undoes_what_came_before() -> None:
    """A write before it in the pipeline: its Sync waits, and the server is failed before it."""
    play = Play(limited(1))
    play.loop(whole("INSERT INTO t VALUES (1)") + whole("SELECT a FROM t") + SYNC)
    assert kinds(play.take_up()) == "PBDEPBDEH"
    play.server(PARSED + BOUND + NO_DATA + tag("INSERT 0 1"))
    play.server(PARSED + BOUND + ROWS + 2 * row() + SUSPENDED)
    assert play.take_up() == FAILING_PARSE_WIRE + SYNC
    play.server(error("42601") + ready())
    assert kinds(play.take_down()) == "12nC12TDEZ"


def test_a_portal_is_limited_in_all() -> None:
    """Rows of several Executes of one portal count together."""
    play = Play(limited(3))
    in_transaction(play)
    play.loop(parse("SELECT a FROM t") + bind(portal="p") + execute("p", 2) + SYNC)
    assert execute("p", 2) in play.take_up()
    play.server(PARSED + BOUND + 2 * row() + SUSPENDED + ready(b"T"))
    play.loop(execute("p", 2) + SYNC)
    assert execute("p", 2) in play.take_up()
    play.server(2 * row() + SUSPENDED)
    assert kinds(play.take_down()) == "12DDsZDE"


def test_past_the_limit_where_nothing_can_be_undone_the_session_ends() -> None:
    """INSERT … RETURNING outside of a transaction: the loop must not believe it undone."""
    play = Play(limited(1))
    play.loop(query("INSERT INTO t VALUES (1), (2) RETURNING a"))
    play.server(ROWS + 2 * row())
    assert play.finished is Reason.LIMIT_EXCEEDED
    assert report(play.down)["S"] == "FATAL"


def test_copy_out_is_limited_as_rows_are() -> None:
    """One CopyData is one row."""
    play = Play(limited(1))
    play.loop(query("COPY t TO STDOUT"))
    play.server(COPY_OUT + 3 * copy_data(b"1\n") + DONE + tag("COPY 3") + ready())
    assert kinds(play.take_down()) in {"HdEZ", "HdE"}


KEY = (b"\0\0\1\2", b"abcd")


def stopping(most: int) -> Play:
    """Allow so many rows of a server that can be told to stop; the test says when it was."""
    answers = limited(most)
    return Play(dataclasses.replace(answers, opened=opened(backend=KEY), apart=None))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("status", [b"I", b"T"])
def test_past_the_limit_the_server_is_told_to_stop(status: bytes, *, late: bool) -> None:
    """A long result ends upstream too, and what is behind it waits until that word is over.

    late: the server was done before it heard it.
    """
    play = stopping(2)
    if status == b"T":
        in_transaction(play)
    play.loop(query("SELECT a FROM t") + query("SELECT b FROM t"))
    play.take_up()
    play.server(ROWS + 5 * row())
    assert play.apart == [cancel_request(*KEY)]
    assert kinds(play.down) == "TDDE"
    if late:
        play.server(row() + tag("SELECT 6") + ready(status))
        failing = FAILING_QUERY_WIRE if status == b"T" else b""
        assert play.take_up() == failing
        if failing:
            play.server(error("42601") + ready(b"E"))
    else:
        play.server(row() + error("57014") + ready(b"E" if status == b"T" else b"I"))
        assert play.take_up() == b""
    assert kinds(play.down) == "TDDEZ"
    play.give(SaidApart())
    assert play.take_up() == query("SELECT b FROM t")
    assert play.outcomes[-1].status == "54000"
    assert ("upstream", "told to stop") in play.outcomes[-1].attributes
    play.check()


@pytest.mark.parametrize("late", [False, True])
def test_past_the_limit_a_copy_of_a_pipeline_is_stopped(*, late: bool) -> None:
    """Its Sync waits for the word, so that no commit is hit by it."""
    play = stopping(1)
    play.loop(whole("COPY t TO STDOUT") + SYNC + query("SELECT 1"))
    assert kinds(play.take_up()) == "PBDEH"
    play.server(PARSED + BOUND + NO_DATA + COPY_OUT + 3 * copy_data(b"1\n"))
    assert play.apart == [cancel_request(*KEY)]
    if late:
        play.server(DONE + tag("COPY 3"))
        assert play.take_up() == FAILING_PARSE_WIRE
        play.server(error("42601"))
    else:
        play.server(error("57014"))
    assert play.take_up() == b""
    play.give(SaidApart())
    assert play.take_up() == SYNC + query("SELECT 1")
    play.server(ready())
    assert kinds(play.down) == "12nHdEZ"


def test_an_execute_past_its_limit_needs_no_word() -> None:
    """The server rests where we asked it to."""
    play = stopping(2)
    play.loop(whole("SELECT a FROM t") + SYNC)
    play.server(PARSED + BOUND + ROWS + 3 * row() + SUSPENDED + ready())
    assert play.apart == []


# bounds


def test_a_loop_that_sends_more_than_can_be_decided_is_paused() -> None:
    """Past the bound of waiting messages reading stops, and goes on when half are gone."""
    play = Play(Answers(recorded=None))
    one = bind(name="s") + execute()
    play.loop(parse("SELECT 1", "s"))
    for _ in range(STEPS_MAX // 2):
        play.loop(one)
    assert play.reading()
    play.loop(one)
    assert not play.reading()
    while play.waiting_records:
        play.record()
    assert play.reading()


def test_a_pipeline_without_end_is_paused_and_flushed() -> None:
    """Past the bound of unanswered messages reading stops, and the server is asked to answer."""
    play = Play(Answers())
    play.loop(describe() * FLIGHT_MAX)
    assert play.reading()
    play.loop(describe())
    assert not play.reading()
    assert play.take_up().endswith(FLUSH)
    play.server(NO_DATA * (FLIGHT_MAX // 2 + 1))
    assert play.reading()


def test_a_pipeline_has_so_many_records_on_their_way_and_no_more() -> None:
    """What one read brings is decided as records come back: others' records get through too."""
    many = 5 * RECORDINGS_MAX
    play = Play(Answers(recorded=None))
    play.loop(parse("SELECT 1", "s") + (bind(name="s") + execute()) * many + SYNC)
    assert len(play.waiting_records) == RECORDINGS_MAX
    for made in range(many):
        assert len(play.waiting_records) in range(1, RECORDINGS_MAX + 1)
        play.record()
        assert kinds(play.up).count("E") == made + 1
    assert not play.waiting_records
    play.server(PARSED + (BOUND + row() + tag("SELECT 1")) * many + ready())
    assert [outcome.reason for outcome in play.outcomes] == [Reason.DONE] * many
    play.check()


def test_a_record_that_fails_ends_what_waits_for_its_turn() -> None:
    """The pipeline is refused from there on, and the next one is decided as ever."""
    play = Play(Answers(recorded=None))
    play.loop(parse("SELECT 1", "s") + (bind(name="s") + execute()) * 3 * RECORDINGS_MAX + SYNC)
    play.give(RecordFailed(play.waiting_records.pop(0)))
    play.waiting_records.clear()
    play.server(PARSED + BOUND + error("26000") + ready())
    assert kinds(play.take_down()) == "12EZ"
    play.loop(query("SELECT 2"))
    assert len(play.waiting_records) == 1
    play.record()
    play.server(ROWS + row() + tag("SELECT 1") + ready())
    assert kinds(play.take_down()) == "TDCZ"
    play.check()


def test_one_read_brings_more_than_may_be_in_flight() -> None:
    """The rest waits, the server is asked to answer, and it goes on as answers come."""
    play = Play(Answers())
    play.loop(describe() * 2 * FLIGHT_MAX + SYNC)
    assert not play.reading()
    up = play.take_up()
    assert up.endswith(FLUSH)
    assert kinds(up) == "D" * (FLIGHT_MAX + 1) + "H"
    play.server(NO_DATA * FLIGHT_MAX)
    play.server(NO_DATA * FLIGHT_MAX + ready())
    assert kinds(play.take_up()).replace("H", "") == "D" * (FLIGHT_MAX - 1) + "S"
    assert kinds(play.take_down()) == "n" * 2 * FLIGHT_MAX + "Z"
    assert play.reading()
    play.check()


def calls_of(statements: int) -> int:
    """Return how many functions are called, generators' steps too, for a pipeline in one read."""
    data = whole("SELECT $1::text", "x") * statements
    play = Play(Answers())
    calls = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        play.loop(data, len(data))
        while sent := kinds(play.take_up()):
            play.server(b"".join(ANSWERS.get(kind, b"") for kind in sent))
    finally:
        sys.setprofile(None)
    assert len(play.intents) == statements
    return calls


def test_a_long_pipeline_costs_what_its_messages_cost() -> None:
    """Eight times the statements are eight times the work; adding up what waits was 600 times.

    Work is counted in calls: no busy machine changes that. The many are more than are in flight.
    """
    few, many = FLIGHT_MAX // 8, FLIGHT_MAX
    assert calls_of(many) < 1.5 * (many // few) * calls_of(few)


def test_a_text_past_the_classifiers_bound_is_unknown() -> None:
    """At the bound it is classified; one byte past it, it is not, and is of the worst class."""
    from agent.protocols.postgres.sql import CLASSIFY_BYTES_MAX

    asked: list[int] = []

    def note(text: str) -> object:
        from agent.model.sql import unknown

        asked.append(len(text))
        return unknown("not looked at")

    play = Play(Answers(classify=note))  # type: ignore[arg-type]
    play.loop(query("x" * CLASSIFY_BYTES_MAX))
    play.server(error() + ready())
    play.loop(query("x" * (CLASSIFY_BYTES_MAX + 1)))
    assert asked == [CLASSIFY_BYTES_MAX]
    assert Effect.UNKNOWN in play.judged[-1].statements[0].effects


def test_a_text_that_nobody_had_time_for_is_refused() -> None:
    """53000 whatever the rules say of unknown: it may be tried again, and nothing went upstream."""
    waits = True
    busy = Classified((), "", busy=True)
    play = Play(Answers(classify=lambda text: busy if waits else class_of(text)))
    for asked in (query("SELECT 'literal'"), whole("SELECT 'literal'") + SYNC):
        play.loop(asked)
        told = report(play.down)
        assert (told["S"], told["C"]) == ("ERROR", "53000")
        assert kinds(play.take_down()) == "EZ"
        assert play.take_up() == b""
        assert play.denied[-1].reason is Reason.OVERLOADED
        assert "literal" not in play.denied[-1].operation.resource
    assert not play.judged
    waits = False
    play.loop(query("SELECT 'literal'"))
    assert play.take_up() == query("SELECT 'literal'")


def test_one_name_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse, PREPARE and Bind: 54000, nothing upstream, and Close makes room."""
    monkeypatch.setattr("agent.protocols.postgres.names.NAMES_MAX", 1)
    play = Play(Answers())
    play.loop(parse("SELECT 1", "a") + SYNC)
    play.server(PARSED + ready())
    play.take_up()
    play.take_down()
    for asked in (parse("SELECT 2", "b") + SYNC, query("PREPARE c AS SELECT 3")):
        play.loop(asked)
        assert play.take_up() == b""
        assert report(play.down)["C"] == "54000"
        assert kinds(play.take_down()) == "EZ"
    play.loop(bind(name="a") + bind(name="a", portal="p") + SYNC)
    assert play.take_up() == bind(name="a") + FAILING_PARSE_WIRE + SYNC
    play.server(BOUND + error("42601") + ready())
    play.loop(close("a") + SYNC)
    play.server(CLOSED + ready())
    play.take_up()
    play.loop(parse("SELECT 2", "b") + SYNC)
    assert play.take_up() == parse("SELECT 2", "b") + SYNC
    play.check()


# rows in errors


def hiding(*, columns: bool) -> Answers:
    """Allow all; columns: some may not be read."""
    return Answers(verdict=lambda _: Allow(RuleId("l/0"), hides_columns=columns))


def quoting(sqlstate: str) -> bytes:
    """Return an error that quotes a row."""
    fields = {
        "S": "ERROR",
        "V": "ERROR",
        "C": sqlstate,
        "M": "no",
        "D": "Failing row contains (1, card).",
        "t": "t",
    }
    return message(b"E", b"".join(f"{k}{v}\0".encode() for k, v in fields.items()) + b"\0")


@pytest.mark.parametrize("sqlstate", ["23502", "23514", "23P01", "44000"])
def test_errors_quote_no_rows_where_columns_are_hidden(sqlstate: str) -> None:
    """The DETAIL goes, all else stays; where no rule is about columns, the whole passes."""
    for hides in (True, False):
        play = Play(hiding(columns=hides))
        play.loop(query("UPDATE t SET a = NULL"))
        play.server(quoting(sqlstate) + ready())
        told = report(bytes(play.down[: -len(ready())]))
        assert ("D" in told) is not hides
        assert {**told, "D": ""} == {
            "S": "ERROR", "V": "ERROR", "C": sqlstate, "M": "no", "D": "", "t": "t"
        }  # fmt: skip
        play.take_down()
        play.loop(whole("UPDATE t SET a = NULL") + SYNC)
        play.server(PARSED + BOUND + NO_DATA + quoting(sqlstate) + ready())
        assert (b"Failing row" in play.take_down()) is not hides
        play.check()


def test_other_errors_keep_their_detail() -> None:
    """Only errors of constraints quote rows that were not asked for."""
    play = Play(hiding(columns=True))
    play.loop(query("SELECT 1"))
    play.server(quoting("22012") + ready())
    assert b"Failing row" in play.take_down()


def test_a_row_waits_for_its_end_up_to_a_bound() -> None:
    """A row of WHOLE_BYTES_MAX bytes goes down when it is whole; of one more, as it comes."""
    for size in (WHOLE_BYTES_MAX, WHOLE_BYTES_MAX + 1):
        play = Play(Answers())
        play.loop(query("SELECT a FROM t"))
        large = row(b"x" * (size - len(row(b""))))
        play.server(ROWS)
        play.take_down()
        play.server(large[:-1], piece=size)
        assert bool(play.down) is (size > WHOLE_BYTES_MAX)
        play.server(large[-1:] + tag("SELECT 1") + ready())
        assert play.take_down() == large + tag("SELECT 1") + ready()
        play.check()


def test_what_is_large_is_passed_on_as_it_comes() -> None:
    """8 MiB in one row down, and in one message of a COPY up: no more is held than may be."""
    mebibyte = b"x" * (1 << 20)
    play = Play(Answers())
    play.loop(query("SELECT a FROM t") + query("COPY t FROM STDIN"))
    large = row(8 * mebibyte)
    play.server(ROWS)
    for at in range(0, len(large), len(mebibyte)):
        play.server(large[at : at + len(mebibyte)])
        assert len(play.down) >= len(ROWS) + min(at, len(large) - len(mebibyte))
    play.server(tag("SELECT 1") + ready() + COPY_IN)
    play.take_up()
    copied = copy_data(8 * mebibyte)
    for at in range(0, len(copied), len(mebibyte)):
        play.loop(copied[at : at + len(mebibyte)])
        assert len(play.take_up()) == len(copied[at : at + len(mebibyte)])
    play.loop(DONE)
    play.server(tag("COPY 1") + ready())
    play.check()
    assert not play.unsettled
