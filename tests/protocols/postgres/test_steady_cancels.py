"""Cancels that come while what they mean has not gone upstream, and those that are the server's."""

import pytest

from agent.model.reason import Reason
from agent.protocols.postgres.refusing import FAILING_PARSE_WIRE
from agent.wire.events import StopAsked, TextClassified
from tests.protocols.postgres.steady_rig import (
    SYNC,
    TERMINATE,
    Answers,
    Play,
    bind,
    class_of,
    execute,
    parse,
    query,
    whole,
)
from tests.protocols.postgres.steady_words import (
    BOUND,
    COPY_OUT,
    NO_DATA,
    PARSED,
    ROWS,
    error,
    in_transaction,
    kinds,
    ready,
    report,
    row,
    tag,
)

SLOW = f"SELECT '{'literal ' * 50_000}'"


class Undecided(Play):
    """A Play whose texts are classified when the test says so."""

    def __init__(self) -> None:
        super().__init__(Answers(classify=lambda _: None))

    def classify(self) -> None:
        """Answer the oldest text."""
        self.give(TextClassified("", class_of("SELECT 1")))


def stopped(play: Play) -> str:
    """Assert that the loop was told what a server says; return what came in all."""
    assert play.stopped == 1
    told = report(play.down)
    assert (told["S"], told["C"]) == ("ERROR", "57014")
    assert told["M"] == "canceling statement due to user request"
    (denied,) = play.denied
    assert (denied.status, denied.reason) == ("57014", Reason.DONE)
    return kinds(play.take_down())


@pytest.mark.parametrize("asked", [query(SLOW), whole(SLOW) + SYNC])
def test_what_is_being_classified_never_goes_upstream(asked: bytes) -> None:
    """A large text: 57014 at once, its class when it comes is nobody's, and the session goes on."""
    play = Undecided()
    play.loop(asked)
    play.give(StopAsked())
    assert stopped(play) == "EZ"
    assert play.take_up() == b""
    play.classify()
    assert play.take_up() == play.take_down() == b""
    play.loop(query("SELECT 2"))
    play.classify()
    assert play.take_up() == query("SELECT 2")
    assert "literal" not in play.denied[0].operation.resource
    play.check()


@pytest.mark.parametrize("asked", [query("SELECT 1"), whole("SELECT 1") + SYNC])
def test_what_is_being_recorded_never_goes_upstream(asked: bytes) -> None:
    """The record comes too late: one denial ends the operation."""
    play = Play(Answers(recorded=None))
    play.loop(asked)
    play.give(StopAsked())
    play.record()
    up = play.take_up()
    assert b"E\0\0\0\x09\0" not in up
    assert query("SELECT 1") not in up
    if up:
        assert FAILING_PARSE_WIRE in up
        play.server(PARSED + BOUND + NO_DATA + error("42601") + ready())
    assert stopped(play) in {"EZ", "12nEZ"}
    assert not play.unsettled
    play.check()


def test_a_session_that_ends_behind_what_is_stopped_says_so_first() -> None:
    """Whoever asked for the cancel is answered before the session is over."""
    play = Undecided()
    play.loop(query(SLOW) + TERMINATE)
    play.give(StopAsked())
    assert play.stopped == 1
    assert play.finished is not None
    play.check()


def test_what_is_still_being_read_never_goes_upstream() -> None:
    """The first half of the message is here when the cancel comes."""
    play = Play(Answers())
    asked = query(SLOW)
    play.loop(asked[:200_000], 65_536)
    play.give(StopAsked())
    assert play.stopped == 1
    play.loop(asked[200_000:] + query("SELECT 2"), 65_536)
    assert play.take_up() == query("SELECT 2")
    assert stopped(play) == "EZ"
    play.check()


def test_a_bind_that_is_being_read_stops_its_execute() -> None:
    """What is large may be the value: the Execute behind it is meant. What follows is not."""
    play = Play(Answers())
    play.loop(parse("SELECT $1", "s") + SYNC)
    play.server(PARSED + ready())
    play.take_up()
    play.take_down()
    asked = bind("x" * 200_000, name="s")
    play.loop(asked[:100_000])
    play.give(StopAsked())
    play.loop(asked[100_000:])
    play.loop(execute() + SYNC)
    assert play.take_up() == asked + FAILING_PARSE_WIRE + SYNC
    play.server(BOUND + error("42601") + ready())
    assert stopped(play) == "2EZ"
    play.loop(query("SELECT 2"))
    assert play.take_up() == query("SELECT 2")


def test_a_cancel_behind_a_segment_stops_nothing_of_the_next() -> None:
    """Half a Sync was here: nothing was to be stopped."""
    play = Play(Answers())
    play.loop(SYNC[:3])
    play.give(StopAsked())
    play.loop(SYNC[3:])
    play.server(ready())
    play.take_up()
    play.loop(query("SELECT 2"))
    assert play.take_up() == query("SELECT 2")


def test_in_a_transaction_both_sides_fail() -> None:
    """The server's transaction is failed as the loop's is."""
    play = Undecided()
    play.loop(query("BEGIN"))
    play.give(TextClassified("BEGIN", class_of("BEGIN")))
    play.server(tag("BEGIN") + ready(b"T"))
    play.take_up()
    play.take_down()
    play.loop(query(SLOW))
    play.give(StopAsked())
    assert kinds(play.take_up()) == "Q"  # something that fails, in its place
    play.server(error("42601") + ready(b"E"))
    assert stopped(play) == "EZ"


@pytest.mark.parametrize(
    "said", [b"", ROWS + row(), COPY_OUT], ids=["nothing yet", "rows", "a copy"]
)
def test_what_runs_is_the_servers_to_stop(said: bytes) -> None:
    """Also where another statement is held behind it: the server is at the first."""
    play = Play(Answers())
    play.loop(query("COPY t TO STDOUT" if said == COPY_OUT else "SELECT a FROM t"))
    play.server(said)
    play.loop(query("SELECT 2"))
    play.give(StopAsked())
    assert (play.stopped, play.denied) == (0, [])


def test_a_session_at_rest_has_nothing_to_stop() -> None:
    """A server takes such a cancel for nothing, too."""
    play = Play(Answers())
    in_transaction(play)
    play.give(StopAsked())
    play.loop(query("SELECT 2"))
    assert play.stopped == 0
    assert play.take_up() == query("SELECT 2")
