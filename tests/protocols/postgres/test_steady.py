"""Each message of the loop in its turn: decided, recorded, then sent; refusals in order."""

import pytest

from agent.model.audit import Outcome
from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.sql import Effect
from agent.model.verdict import Allow, Deny, Literals, Verdict
from agent.protocols.postgres.messages import error_response, message, parameter_status
from agent.protocols.postgres.refusing import FAILING_PARSE_WIRE, FAILING_QUERY_WIRE
from tests.conformance.conductor import CANARY
from tests.protocols.postgres.steady_rig import (
    DONE,
    DOWN,
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
    opened,
    parse,
    query,
    whole,
)

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


def report(data: bytes) -> dict[str, str]:
    """Return the fields of the one ErrorResponse in some bytes."""
    (payload,) = [payload for kind, payload in messages_of(data) if kind == ord("E")]
    return {part[:1].decode(): part[1:].decode() for part in payload.split(b"\0") if part}


def kinds(data: bytes) -> str:
    """Return the types of complete messages."""
    return "".join(chr(kind) for kind, _ in messages_of(data))


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


# records


def test_a_query_is_recorded_before_it_is_sent() -> None:
    """Nothing goes upstream between the query's arrival and the answer that it is recorded."""
    play = Play(Answers(recorded=None))
    play.loop(query("SELECT 1"))
    assert play.take_up() == b""
    play.record()
    assert play.take_up() == query("SELECT 1")


def test_an_outcome_says_what_came_back() -> None:
    """Rows, bytes, tags, SQLSTATE and transaction state of a query are recorded once."""
    play = Play(Answers())
    play.loop(query("SELECT 1; SELECT 2"))
    play.server(ROWS + row() + tag("SELECT 1") + ROWS + row() + row() + tag("SELECT 2") + ready())
    (outcome,) = play.outcomes
    assert (outcome.outcome, outcome.status, outcome.rows) == (Outcome.ANSWERED, "00000", 3)
    assert outcome.response_bytes == 3 * len(row())
    assert outcome.upstream == "192.0.2.1:5432"
    assert dict(outcome.attributes) == {
        "command_tag": "SELECT 1; SELECT 2",
        "transaction_state": "I",
    }


def test_each_execute_has_a_record_with_its_values() -> None:
    """One Parse and two Executes: two intents, each with the values that it was given."""
    play = Play(Answers())
    text = "UPDATE t SET a = $1 WHERE b = $2"
    pair = [bind("x", None, name="s") + execute(), bind("y", "2", name="s") + execute()]
    play.loop(parse(text, "s") + pair[0] + pair[1] + SYNC)
    assert play.take_up() == parse(text, "s") + pair[0] + pair[1] + SYNC
    assert [intent.operation.attributes for intent in play.intents] == [
        (("$1", "x"), ("$2 is null", "")),
        (("$1", "y"), ("$2", "2")),
    ]
    assert {intent.operation.resource for intent in play.intents} == {text}
    assert {intent.operation.verb for intent in play.intents} == {"UPDATE"}
    play.server(PARSED + 2 * (BOUND + tag("UPDATE 1")) + ready())
    assert [outcome.status for outcome in play.outcomes] == ["00000", "00000"]
    play.check()


def test_normalized_records_have_no_values() -> None:
    """With literals normalized neither the text's literals nor bound values are recorded."""
    play = Play(Answers(verdict=lambda _: Allow(RuleId("loop/0"), literals=Literals.NORMALIZE)))
    play.loop(query("SELECT 'hunter2', 42"))
    play.server(ROWS + tag("SELECT 1") + ready())
    play.loop(whole("SELECT $1, 'hunter2'", "swordfish") + SYNC)
    for intent in play.intents:
        assert "hunter2" not in repr(intent)
        assert "swordfish" not in repr(intent)
        assert intent.operation.resource.startswith("SELECT $1")
    assert b"hunter2" in play.take_up()


def test_records_of_a_pipeline_are_made_side_by_side_and_sent_in_order() -> None:
    """Three Executes wait for their records at once; what is recorded first may not overtake."""
    play = Play(Answers(recorded=None))
    play.loop(whole("SELECT 1") + whole("SELECT 2") + whole("SELECT 3") + SYNC)
    assert len(play.waiting_records) == 3
    assert kinds(play.take_up()) == "PBD"
    play.waiting_records.reverse()
    play.record()
    assert kinds(play.take_up()) == ""
    play.waiting_records.reverse()
    play.record()
    assert kinds(play.take_up()) == "EPBD"
    play.record()
    assert kinds(play.take_up()) == "EPBDES"


def test_what_cannot_be_recorded_is_refused() -> None:
    """A failed record: SQLSTATE 58030, nothing upstream, the session goes on."""
    answers = Answers(recorded=False)
    play = Play(answers)
    play.loop(query("SELECT 1"))
    assert play.take_up() == b""
    assert report(play.down)["C"] == "58030"
    assert kinds(play.take_down()) == "EZ"
    play.loop(whole("SELECT 1") + whole("SELECT 2") + SYNC)
    assert kinds(play.take_up()) == "PBD" + "P" + "S"  # the last P fails, so that the server does
    play.server(PARSED + BOUND + ROWS + error("42601") + ready())
    assert kinds(play.down) == "12TEZ"
    assert report(play.take_down())["C"] == "58030"
    answers.recorded = True
    play.loop(query("SELECT 3"))
    assert play.take_up() == query("SELECT 3")
    assert not play.unsettled - {play.intents[-1].operation.operation_id}


def test_what_the_server_skipped_is_recorded_as_such() -> None:
    """After an error the rest of the pipeline has the error's SQLSTATE, and a note."""
    play = Play(Answers())
    play.loop(whole("SELECT 1/0") + whole("DELETE FROM t") + SYNC)
    play.server(PARSED + BOUND + ROWS + error("22012") + ready())
    assert [outcome.status for outcome in play.outcomes] == ["22012", "22012"]
    skipped = dict(play.outcomes[0].attributes), dict(play.outcomes[1].attributes)
    assert sum("note" in found for found in skipped) == 1
    assert not play.unsettled


# refusals


def test_a_refused_query_is_answered_and_the_session_goes_on() -> None:
    """42501 names the rule, DETAIL says why, HINT what to do; then ReadyForQuery."""
    play = Play(Answers(verdict=no_drop))
    play.loop(query("DROP TABLE t"))
    assert play.take_up() == b""
    told = report(play.down)
    assert (told["S"], told["C"]) == ("ERROR", "42501")
    assert "loop/7" in told["M"]
    assert "DROP TABLE t is ddl." in told["D"]
    assert told["H"] == "Ask for it."
    assert play.take_down().endswith(ready())
    (denied,) = play.denied
    assert (denied.status, denied.operation.resource) == ("42501", "DROP TABLE t")
    play.loop(query("SELECT 1"))
    assert play.take_up() == query("SELECT 1")
    play.check()


def test_a_refused_query_fails_the_transaction_of_both_sides() -> None:
    """Within a transaction something that fails goes upstream, and the loop sees 'E'."""
    play = Play(Answers(verdict=no_drop))
    in_transaction(play)
    play.loop(query("DROP TABLE t"))
    assert play.take_up() == FAILING_QUERY_WIRE
    assert play.take_down() == b""
    play.server(error("42601") + ready(b"E"))
    assert report(play.down)["C"] == "42501"
    assert play.take_down().endswith(ready(b"E"))
    assert not play.unsettled


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    """What was sent before a refused Parse is answered first, and undone with it."""
    play = Play(Answers(verdict=no_drop))
    play.loop(whole("INSERT INTO t VALUES (1)") + whole("DROP TABLE t") + whole("SELECT 1") + SYNC)
    up = play.take_up()
    assert up == whole("INSERT INTO t VALUES (1)") + FAILING_PARSE_WIRE + SYNC
    assert play.take_down() == b""
    play.server(PARSED + BOUND + NO_DATA + tag("INSERT 0 1"))
    assert kinds(play.take_down()) == "12nC"
    play.server(error("42601") + ready())
    assert kinds(play.down) == "EZ"
    assert report(play.down)["C"] == "42501"
    assert len(play.denied) == 1
    assert len(play.intents) == 1


def test_a_pipeline_that_begins_with_a_refusal_never_reaches_the_server() -> None:
    """Nothing goes upstream up to the Sync, which is answered by us; what follows is sent."""
    play = Play(Answers(verdict=no_drop))
    play.loop(whole("DROP TABLE t") + whole("SELECT 1") + SYNC + whole("SELECT 2") + SYNC)
    assert kinds(play.down) == "EZ"
    assert play.take_up() == whole("SELECT 2") + SYNC


def test_a_statement_is_decided_again_at_execute() -> None:
    """A verdict that changed since Parse holds: nothing of the Execute goes upstream."""
    verdicts: list[Verdict] = [Allow(RuleId("loop/0"))]
    play = Play(Answers(verdict=lambda _: verdicts[-1]))
    play.loop(parse("SELECT 1", "s") + SYNC)
    play.server(PARSED + ready())
    play.take_up()
    verdicts.append(Deny(RuleId("loop/1"), Reason.POLICY_DENIED, "No.", "Wait."))
    play.loop(bind(name="s") + execute() + SYNC)
    assert play.take_up() == bind(name="s") + FAILING_PARSE_WIRE + SYNC


def test_copied_data_behind_a_refused_copy_goes_nowhere() -> None:
    """A loop that sends its data blindly: neither the COPY nor its data reaches the server."""
    deny = Deny(RuleId("loop/1"), Reason.POLICY_DENIED, "No.", "Wait.")
    play = Play(Answers(verdict=lambda _: deny))
    play.loop(query("COPY t FROM STDIN") + copy_data(b"1\n") + DONE)
    assert play.take_up() == b""
    assert kinds(play.take_down()) == "EZ"


@pytest.mark.parametrize(
    "text",
    [
        "SET standard_conforming_strings = off",
        "SET client_encoding = 'SJIS'",
        "SET SESSION AUTHORIZATION postgres",
        "SELECT set_config('backslash_quote', 'on', false)",
        "SELECT 1; SET ROLE postgres",
    ],
)
def test_pinned_settings_are_refused_whatever_the_policy_says(text: str) -> None:
    """What changes the meaning of text never goes upstream, as Query or as Parse."""
    play = Play(Answers())
    play.loop(query(text) + whole(text) + SYNC)
    assert play.take_up() == b""
    assert kinds(play.take_down()) == "EZEZ"
    assert {denied.rule for denied in play.denied} == {"built-in"}


def test_a_function_called_by_its_id_is_unknown() -> None:
    """FunctionCall is judged as what nobody knows, and recorded when a rule allows that."""
    call = message(b"F", (1598).to_bytes(4, "big") + bytes(6))
    play = Play(Answers())
    play.loop(call)
    assert play.take_up() == call
    (operation,) = play.judged
    assert (operation.verb, operation.resource) == ("FUNCTION", "function 1598")
    assert operation.statements[0].effects == {Effect.UNKNOWN}
    play.server(message(b"V", b"\0\0\0\1x") + ready())
    assert [outcome.status for outcome in play.outcomes] == ["00000"]


# names


def test_sql_execute_is_judged_as_what_it_runs() -> None:
    """EXECUTE of a name made by PREPARE or by Parse has the effects of that statement."""
    play = Play(Answers())
    play.loop(query("PREPARE p AS DELETE FROM t"))
    play.server(tag("PREPARE") + ready())
    play.loop(query("EXECUTE p"))
    play.server(tag("DELETE 3") + ready())
    play.loop(parse("UPDATE t SET a = 1", "q") + SYNC)
    play.server(PARSED + ready())
    play.loop(query("EXECUTE q"))
    assert [Effect.WRITE in op.statements[0].effects for op in play.judged] == [True] * 4
    assert Effect.UNKNOWN not in play.judged[-1].statements[0].effects
    assert play.judged[-1].statements[0].unbounded


def test_a_name_that_stands_for_nothing_known_is_unknown() -> None:
    """EXECUTE, and Execute, of a name that this session never made."""
    play = Play(Answers())
    play.loop(query("EXECUTE nobody"))
    play.server(error("26000") + ready())
    play.loop(execute("nobody") + SYNC)
    assert [Effect.UNKNOWN in op.statements[0].effects for op in play.judged] == [True, True]


def test_a_failed_parse_does_not_change_a_name() -> None:
    """The server kept the old statement: a Bind behind the next Sync runs, and records, that."""
    play = Play(Answers())
    play.loop(parse("SELECT 1", "s") + SYNC)
    play.server(PARSED + ready())
    play.loop(parse("SELECT 2", "s") + SYNC + bind(name="s") + execute() + SYNC)
    assert kinds(play.take_up()) == "PSPS"  # the Bind waits for what the name stands for
    play.server(error("42P05") + ready())
    assert kinds(play.take_up()) == "BES"
    assert play.intents[-1].operation.resource == "SELECT 1"


def test_a_name_is_sure_within_its_segment() -> None:
    """Parse, Bind, Execute of one pipeline need no answer in between."""
    play = Play(Answers())
    play.loop(parse("SELECT 1", "s") + bind(name="s") + execute() + SYNC)
    assert kinds(play.take_up()) == "PBES"


def test_fetch_is_judged_with_the_portals_that_it_may_run() -> None:
    """FETCH from a portal of Bind runs its statement: the effects are the portal's too."""
    play = Play(Answers())
    play.loop(query("BEGIN"))
    play.server(tag("BEGIN") + ready(b"T"))
    play.loop(parse("DELETE FROM t RETURNING a", "s") + bind(name="s", portal="p") + SYNC)
    play.server(PARSED + BOUND + ready(b"T"))
    play.loop(query("FETCH ALL FROM p"))
    assert any(Effect.WRITE in s.effects for s in play.judged[-1].statements)


def test_names_of_sql_that_deallocates_are_forgotten() -> None:
    """After DEALLOCATE, DEALLOCATE ALL and Close a name is unknown."""
    for text in ("DEALLOCATE s", "DEALLOCATE ALL", "DISCARD ALL"):
        play = Play(Answers())
        play.loop(parse("SELECT 1", "s") + SYNC)
        play.server(PARSED + ready())
        play.loop(query(text))
        play.server(tag(text if text.endswith("ALL") else "DEALLOCATE") + ready())
        play.loop(bind(name="s") + execute() + SYNC)
        assert Effect.UNKNOWN in play.judged[-1].statements[0].effects, text
    play = Play(Answers())
    play.loop(parse("SELECT 1", "s") + close("s") + bind(name="s") + execute() + SYNC)
    assert Effect.UNKNOWN in play.judged[-1].statements[0].effects


def test_names_past_63_bytes_are_one() -> None:
    """Servers keep 63 bytes of a name: a longer one is the statement with the same beginning."""
    play = Play(Answers())
    long = "n" * 63
    play.loop(parse("SELECT 1", long + "x") + bind(name=long + "y") + execute() + SYNC)
    assert play.intents[0].operation.resource == "SELECT 1"


# COPY


def test_copy_in_is_hashed_and_counted() -> None:
    """Size and SHA-256 of what was copied are in the outcome, however it was cut."""
    import hashlib

    for piece in (1, 3, 64 * 1024):
        play = Play(Answers())
        play.loop(query("COPY t FROM STDIN"))
        play.server(COPY_IN)
        data = copy_data(b"1\n") + copy_data(b"22\n") + DONE
        play.loop(data, piece)
        assert play.take_up() == query("COPY t FROM STDIN") + data
        play.server(tag("COPY 2") + ready())
        notes = dict(play.outcomes[0].attributes)
        assert notes["copy_in_bytes"] == "5"
        assert notes["copy_in_sha256"] == hashlib.sha256(b"1\n22\n").hexdigest()


def test_a_message_in_the_middle_of_a_copy_ends_it() -> None:
    """A Query during COPY FROM never goes upstream: the COPY fails instead, as at a server."""
    play = Play(Answers())
    play.loop(query("COPY t FROM STDIN"))
    play.server(COPY_IN)
    play.take_up()
    play.loop(copy_data(b"1\n") + query("DROP TABLE t"))
    assert kinds(play.take_up()) == "df"
    play.server(error("57014") + ready())
    assert kinds(play.take_down()) == "GEZ"
    assert not play.unsettled


def test_sync_during_copy_in_is_not_waited_for() -> None:
    """The Sync that libpq sends behind Execute is ignored by a server that copies."""
    play = Play(Answers())
    play.loop(whole("COPY t FROM STDIN") + SYNC)
    play.server(PARSED + BOUND + NO_DATA + COPY_IN)
    play.loop(copy_data(b"1\n") + DONE + SYNC)
    play.server(tag("COPY 1") + ready())
    assert play.steady._flight == play.steady._decided  # noqa: SIM300 - both empty
    play.loop(query("SELECT 1"))
    assert play.take_up().endswith(query("SELECT 1"))


def test_copied_data_outside_of_a_copy_is_thrown_away() -> None:
    """As servers do after a COPY that failed."""
    play = Play(Answers())
    play.loop(copy_data(b"late") + DONE + query("SELECT 1"))
    assert play.take_up() == query("SELECT 1")


def test_both_ways_needs_a_replication_session() -> None:
    """CopyBothResponse ends a session that was not granted replication."""
    play = Play(Answers())
    play.loop(query("START_REPLICATION SLOT s LOGICAL 0/0"))
    play.server(message(b"W", b"\0\0\0"))
    assert play.finished is Reason.POLICY_DENIED
    granted = Play(Answers(opened=opened(replication="database")))
    granted.loop(query("START_REPLICATION SLOT s LOGICAL 0/0"))
    granted.server(message(b"W", b"\0\0\0") + copy_data(b"w"))
    granted.loop(copy_data(b"r"))
    assert granted.take_up().endswith(copy_data(b"r"))
    assert granted.finished is None


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
    assert play.finished is None
    play.server(ROWS + tag("SELECT 1") + ready())
    assert play.take_up().endswith(TERMINATE)
    assert play.finished is Reason.DONE
    play.check()


def test_the_ends_of_both_sides() -> None:
    """The loop's end comes after its answers; the server's end is told, with an outcome."""
    play = Play(Answers())
    play.loop(query("SELECT 1"))
    play.eof(DOWN)
    assert play.finished is None
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


# bounds


def test_a_loop_that_sends_more_than_can_be_decided_is_paused() -> None:
    """Past the bound of waiting messages reading stops, and goes on when half are gone."""
    from agent.protocols.postgres.receiving import STEPS_MAX

    play = Play(Answers(recorded=None))
    one = bind(name="s") + execute()
    play.loop(parse("SELECT 1", "s"))
    for _ in range(STEPS_MAX // 2):
        play.loop(one)
    assert not play.paused
    play.loop(one)
    assert play.paused
    while play.waiting_records:
        play.record()
    assert not play.paused


def test_a_pipeline_without_end_is_paused_and_flushed() -> None:
    """Past the bound of unanswered messages reading stops, and the server is asked to answer."""
    from agent.protocols.postgres.receiving import FLIGHT_MAX

    play = Play(Answers())
    play.loop(describe() * FLIGHT_MAX)
    assert not play.paused
    play.loop(describe())
    assert play.paused
    assert play.take_up().endswith(FLUSH)
    play.server(NO_DATA * (FLIGHT_MAX // 2 + 1))
    assert not play.paused


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
