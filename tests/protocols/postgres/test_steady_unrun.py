"""A Parse without Execute is recorded too: when it fails, when many follow, or at the end."""

import pytest

from agent.model.audit import Outcome
from agent.model.ids import RuleId
from agent.model.verdict import Allow, Literals
from agent.protocols.postgres.unrun import UNRUN_BYTES_MAX, UNRUN_MAX
from tests.protocols.postgres.steady_rig import (
    SYNC,
    TERMINATE,
    Answers,
    Play,
    bind,
    describe,
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
    no_drop,
    ready,
    tag,
)

PARAMETERS = b"t\0\0\0\6\0\0"


def _prepare(play: Play, text: str, name: str = "s") -> None:
    play.loop(parse(text, name) + describe(name, "S") + SYNC)
    play.server(PARSED + PARAMETERS + ROWS + ready())


def test_what_never_ran_is_recorded_at_the_end() -> None:
    """One record: the text, the rule, and that it was prepared and never executed."""
    play = Play(Answers())
    _prepare(play, "SELECT card FROM customers")
    assert (play.intents, play.outcomes) == ([], [])
    play.loop(TERMINATE)
    (intent,), (outcome,) = play.intents, play.outcomes
    assert intent.operation.resource == "SELECT card FROM customers"
    assert intent.operation == play.judged[0]
    assert intent.rule == "loop/0"
    assert ("message", "parse") in intent.operation.attributes
    assert (outcome.outcome, outcome.status, outcome.rows) == (Outcome.ANSWERED, "00000", 0)
    assert ("note", "prepared, and never executed") in outcome.attributes
    assert outcome.duration_ns < 100_000
    play.check()


@pytest.mark.parametrize("end", ["cut", "eof"])
def test_however_the_session_ends(end: str) -> None:
    """A cut, and a server that goes away."""
    from agent.wire.side import Side

    play = Play(Answers())
    _prepare(play, "SELECT 1")
    if end == "cut":
        play.cut()
    else:
        play.eof(Side.UPSTREAM)
    assert len(play.intents) == len(play.outcomes) == 1
    play.check()


def test_what_ran_has_its_own_record() -> None:
    """An Execute, also a denied one, or an EXECUTE of its name: nothing more is said."""
    play = Play(Answers())
    _prepare(play, "SELECT 1")
    play.loop(bind(name="s") + execute() + SYNC)
    play.server(BOUND + tag("SELECT 1") + ready())
    _prepare(play, "SELECT 2", "t")
    play.loop(query("EXECUTE t"))
    play.server(tag("SELECT 1") + ready())
    play.loop(whole("SELECT 3") + SYNC)
    play.server(PARSED + BOUND + NO_DATA + tag("SELECT 1") + ready())
    play.loop(TERMINATE)
    assert len(play.intents) == 3
    play.check()


def test_a_parse_that_fails_is_recorded_at_once() -> None:
    """Its error tells whether a name exists."""
    play = Play(Answers())
    play.loop(parse("SELECT secret_name FROM customers") + SYNC)
    play.server(error("42703") + ready())
    (outcome,) = play.outcomes
    assert outcome.status == "42703"
    play.loop(TERMINATE)
    assert len(play.intents) == 1
    play.check()


def test_what_the_server_never_looked_at_is_not_recorded() -> None:
    """Skipped after an error, or refused by us, which is a record of its own."""
    play = Play(Answers(verdict=no_drop))
    play.loop(parse("bad") + parse("SELECT 1", "s") + SYNC)
    play.server(error("42601") + ready())
    assert [outcome.status for outcome in play.outcomes] == ["42601"]
    play.loop(parse("DROP TABLE t") + SYNC)
    assert len(play.denied) == 1
    play.loop(TERMINATE)
    assert len(play.intents) == 1
    play.check()


def test_so_many_are_remembered() -> None:
    """At the bound none is recorded yet; one past it the oldest is."""
    play = Play(Answers())
    for number in range(UNRUN_MAX):
        _prepare(play, f"SELECT {number}", f"s{number}")
    assert play.intents == []
    _prepare(play, "SELECT 'one more'", "more")
    assert [intent.operation.resource for intent in play.intents] == ["SELECT 0"]
    play.loop(TERMINATE)
    assert len(play.intents) == len(play.outcomes) == UNRUN_MAX + 1
    play.check()


def test_large_ones_are_remembered_up_to_their_bytes() -> None:
    """Texts past the bound together: the oldest is recorded."""
    play = Play(Answers())
    text = f"SELECT '{'x' * (UNRUN_BYTES_MAX // 5)}'"
    for number in range(4):
        _prepare(play, text, f"s{number}")
    assert play.intents == []
    _prepare(play, text, "one more")
    assert len(play.intents) == len(play.outcomes) == 1


def test_its_literals_are_the_rules_to_keep() -> None:
    """With literals normalized the record has none."""
    play = Play(Answers(verdict=lambda _: Allow(RuleId("loop/0"), literals=Literals.NORMALIZE)))
    _prepare(play, "SELECT 'hunter2'")
    play.loop(TERMINATE)
    assert "hunter2" not in repr(play.intents)
