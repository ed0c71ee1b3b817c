"""What names stand for, and where copied data goes."""

import pytest

from agent.model.reason import Reason
from agent.model.sql import Effect
from agent.protocols.postgres.messages import message
from tests.protocols.postgres.steady_rig import (
    DONE,
    SYNC,
    Answers,
    Play,
    bind,
    close,
    copy_data,
    execute,
    opened,
    parse,
    query,
    whole,
)
from tests.protocols.postgres.steady_words import (
    BOUND,
    COPY_IN,
    NO_DATA,
    PARSED,
    SUSPENDED,
    error,
    in_transaction,
    kinds,
    ready,
    row,
    tag,
)

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


def test_a_cursor_takes_the_name_of_a_portal() -> None:
    """After CLOSE and DECLARE a portal's name is the cursor's: an Execute of it is unknown.

    Otherwise it would be decided over, limited and recorded as the statement that was bound.
    """
    for texts in (("CLOSE p", "DECLARE p CURSOR FOR SELECT b FROM u"), ("CLOSE ALL",)):
        play = Play(Answers())
        in_transaction(play)
        play.loop(parse("SELECT a FROM t") + bind(portal="p") + execute("p", most=1) + SYNC)
        play.server(PARSED + BOUND + row() + SUSPENDED + ready(b"T"))
        play.loop(execute("p", most=1) + SYNC)
        assert Effect.UNKNOWN not in play.judged[-1].statements[0].effects
        play.server(row() + SUSPENDED + ready(b"T"))
        play.take_up()
        play.loop(b"".join(map(query, texts)) + execute("p", most=1) + SYNC)
        assert kinds(play.take_up()) == "Q" * len(texts)  # and the Execute waits for what they do
        for text in texts:
            done = {"CLOSE ALL": "CLOSE CURSOR ALL", "CLOSE p": "CLOSE CURSOR"}
            play.server(tag(done.get(text, "DECLARE CURSOR")) + ready(b"T"))
        assert Effect.UNKNOWN in play.judged[-1].statements[0].effects
        play.check()


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
    assert granted.running()


def test_a_replicating_server_sends_data_behind_its_end() -> None:
    """What it is decoding comes behind its CopyDone: both go on until it says that it is over."""
    play = Play(Answers(opened=opened(replication="database")))
    play.loop(query("START_REPLICATION SLOT s LOGICAL 0/0"))
    said = message(b"W", b"\0\0\0") + copy_data(b"w") + DONE + 3 * copy_data(b"late")
    play.server(said)
    play.loop(DONE)
    play.server(copy_data(b"last") + tag("COPY 0") + tag("START_REPLICATION") + ready())
    assert kinds(play.take_down()) == "WdcddddCCZ"
    assert [outcome.status for outcome in play.outcomes] == ["00000"]
    play.loop(query("IDENTIFY_SYSTEM"))
    play.server(DONE)
    assert play.finished is Reason.UPSTREAM_PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("told", "known"),
    [("15.18 (Debian 15.18-0+deb12u1)", False), ("16.4", True), ("18beta1", True), ("", False)],
)
def test_a_word_is_a_call_where_the_server_is_older(told: str, *, known: bool) -> None:
    """JSON_ARRAY is a function of the database before PostgreSQL 16."""
    play = Play(Answers(opened=opened(parameters={"server_version": told})))
    play.loop(query("SELECT JSON_ARRAY(1, 2)"))
    (statement,) = play.judged[-1].statements
    assert [call.name for call in statement.calls] == ([] if known else ["json_array"])
