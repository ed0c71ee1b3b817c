"""Each message of the loop in its turn: decided, recorded, then sent; refusals in order."""

import pytest

from agent.model.audit import Outcome
from agent.model.ids import RuleId
from agent.model.reason import Reason
from agent.model.sql import Effect
from agent.model.verdict import Allow, Deny, Literals, Verdict
from agent.protocols.postgres.messages import message
from agent.protocols.postgres.refusing import FAILING_PARSE_WIRE, FAILING_QUERY_WIRE
from tests.protocols.postgres.steady_rig import (
    DONE,
    SYNC,
    Answers,
    Play,
    bind,
    copy_data,
    execute,
    parse,
    query,
    whole,
)
from tests.protocols.postgres.steady_words import (
    BOUND,
    NO_DATA,
    PARSED,
    ROWS,
    error,
    in_transaction,
    kinds,
    no_drop,
    ready,
    report,
    row,
    tag,
)

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
    """Three Executes wait for their records at once; what is recorded first may not overtake.

    What only prepares an Execute waits with it.
    """
    play = Play(Answers(recorded=None))
    play.loop(whole("SELECT 1") + whole("SELECT 2") + whole("SELECT 3") + SYNC)
    assert len(play.waiting_records) == 3
    assert kinds(play.take_up()) == ""
    play.waiting_records.reverse()
    play.record()
    assert kinds(play.take_up()) == ""
    play.waiting_records.reverse()
    play.record()
    assert kinds(play.take_up()) == "PBDEPBD"
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


def test_refusals_of_pinned_settings_keep_no_literals_either() -> None:
    """They are recorded as the rule says, like all else."""
    play = Play(Answers(verdict=lambda _: Allow(RuleId("loop/0"), literals=Literals.NORMALIZE)))
    text = "SET client_encoding = 'SJIS'; SELECT 'hunter2'"
    play.loop(query(text) + whole(text) + SYNC)
    assert play.take_up() == b""
    assert [denied.rule for denied in play.denied] == ["built-in"] * 2
    assert "hunter2" not in repr(play.denied)


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
