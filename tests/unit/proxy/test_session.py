"""A session's life is the table, and it is closed once."""

import itertools

import pytest

from agent.model.flow import Attribution, Evidence, Process, Tier
from agent.model.flow import Endpoint as Address
from agent.model.ids import CgroupId, LoopName, RunId, SessionId, Tag, TargetName
from agent.model.reason import Reason
from agent.proxy.session import IllegalTransition, Session, State, allowed
from agent.proxy.sessions import CONNECTIONS_A_RUN_MAX, CONNECTIONS_MAX, Sessions
from agent.proxy.worker import connections_max

RUN = RunId("r")


def session() -> Session:
    process = Process(1, 1, 1, "c", "/c", (), False)
    attribution = Attribution(
        SessionId("s"), RUN, Tag(1), CgroupId(1), Evidence.TAG_AND_CGROUP, Tier.LAUNCHED,
        Address("::1", 1), 1, 1, 1, process, (),
    )  # fmt: skip
    return Session(attribution, LoopName("l"), None, 100)


class Quiet:
    """Something that serves a session."""

    def __init__(self, registry: Sessions) -> None:
        self.session = session()
        self.registry = registry
        registry.opened(self)

    def cut(self, reason: Reason) -> None:
        """End."""
        self.registry.closed(self, reason)

    def stop(self, target: TargetName, name: bytes) -> bool:
        """See Live."""
        return False

    def drain(self) -> None:
        """End."""
        self.cut(Reason.DRAINING)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_transitions_are_the_table(before: State, after: State) -> None:
    """What the table allows happens; all else raises and changes nothing."""
    one = session()
    one.state = before
    if after in allowed[before]:
        one.become(after)
        assert one.state is after
    else:
        with pytest.raises(IllegalTransition):
            one.become(after)
        assert one.state is before


def test_a_session_is_closed_once_with_its_first_reason() -> None:
    """The second close gives no record."""
    one = session()
    last = one.close(Reason.RUN_ENDED, 350)
    assert last is not None
    assert (last.reason, last.duration_ns) == (Reason.RUN_ENDED, 250)
    assert one.close(Reason.DOWNSTREAM_CLOSED, 400) is None


def test_the_registry_tells_each_end_once() -> None:
    """Cut, cut again, closed again: one record; the run is forgotten with its last session."""
    ends: list[Reason] = []
    registry = Sessions(lambda _, last: ends.append(last.reason))
    live = Quiet(registry)
    assert len(registry) == 1
    registry.cut_run(RUN, Reason.RUN_ENDED)
    registry.cut_all(Reason.INTERNAL)
    live.cut(Reason.INTERNAL)
    assert (len(registry), ends) == (0, [Reason.RUN_ENDED])


def test_a_run_has_room_up_to_its_bound() -> None:
    """CONNECTIONS_A_RUN_MAX sessions fit, one more does not; another run is not concerned."""
    registry = Sessions(lambda *_: None)
    for _ in range(CONNECTIONS_A_RUN_MAX):
        assert registry.has_room(RUN)
        Quiet(registry)
    assert not registry.has_room(RUN)
    assert registry.has_room(RunId("other"))


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(1 << 20, CONNECTIONS_MAX), (2_304, 880), (256, 1), (0, 1)],
)
def test_connections_fit_the_descriptors(descriptors: int, connections: int) -> None:
    """A worker takes no more connections than it has descriptors for."""
    assert connections_max(descriptors) == connections


def test_a_run_gets_no_more_than_its_share() -> None:
    """Where a worker takes few connections, one run leaves room for others; arrivals count."""
    registry = Sessions(lambda *_: None, connections_max=4)
    Quiet(registry)
    with registry.arriving(RUN):
        assert not registry.has_room(RUN)
        assert registry.has_room(RunId("other"))
    assert registry.has_room(RUN)


def test_a_cut_reaches_what_is_about_to_be_a_session() -> None:
    """The broker's answer may be read with the cut that follows it: both cuts are seen."""
    registry = Sessions(lambda *_: None)
    with registry.arriving(RUN) as first, registry.arriving(RunId("other")) as second:
        registry.cut_run(RUN, Reason.RUN_ENDED)
        assert (first.cut, second.cut) == (Reason.RUN_ENDED, None)
        registry.cut_all(Reason.INTERNAL)
        assert second.cut is Reason.INTERNAL
    with registry.arriving(RUN) as later:
        assert later.cut is None
