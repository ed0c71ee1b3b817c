"""What a worker keeps of leases between sessions, and for how long."""

import asyncio

import pytest

from agent.model.credential import Credential, Password
from agent.model.ids import LeaseId, RunId, TargetName
from agent.model.lease import Lease
from agent.model.secret import Secret
from agent.proxy.kept import KEPT_MAX, KEPT_S, KeptLeases
from tests.unit.proxy.clock import Clock

RUN, OTHER_RUN = RunId("run-1"), RunId("run-2")


def lease(name: str = "lease", password: bytes = b"pencil", run: RunId = RUN) -> Lease:
    """Return a lease as it comes for each session: new objects."""
    credential = Password("user", Secret(password))
    return Lease(LeaseId(name), run, TargetName("orders"), credential, 0, revocable=True)


def test_the_same_credential_is_the_same_object() -> None:
    """As long as it is the same: another secret, or another lease, is another object."""

    async def scenario() -> None:
        leases = KeptLeases()
        first: Credential = leases.same(lease()).credential
        assert leases.same(lease()).credential is first
        assert leases.same(lease("another")).credential is not first
        other = leases.same(lease(password=b"pen")).credential
        assert other is not first
        assert leases.same(lease(password=b"pen")).credential is other

    asyncio.run(scenario())


def test_it_goes_with_the_lease_the_run_and_the_broker() -> None:
    """After each of the three nothing of it is kept, and other runs' leases are."""

    async def scenario() -> None:
        leases = KeptLeases()
        first = leases.same(lease()).credential
        leases.drop_lease(LeaseId("lease"))
        leases.drop_lease(LeaseId("lease"))
        assert leases.same(lease()).credential is not first
        other = leases.same(lease("theirs", run=OTHER_RUN)).credential
        leases.drop_run(RUN)
        assert len(leases) == 1
        assert leases.same(lease("theirs", run=OTHER_RUN)).credential is other
        leases.clear()
        assert len(leases) == 0

    asyncio.run(scenario())


def test_it_goes_when_no_session_began_with_it_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """KEPT_S after the last one; each new one begins the time anew."""

    async def scenario() -> None:
        leases = KeptLeases()
        clock = Clock()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
        first = leases.same(lease()).credential
        for _ in range(3):
            clock.advance(KEPT_S - 1)
            assert leases.same(lease()).credential is first
        clock.advance(KEPT_S - 1)
        assert len(leases) == 1
        clock.advance(1)
        assert len(leases) == 0
        monkeypatch.undo()

    asyncio.run(scenario())


def test_no_more_than_so_many_are_kept() -> None:
    """At KEPT_MAX the first is there; one past it, it is gone."""

    async def scenario() -> None:
        leases = KeptLeases()
        first = leases.same(lease("0")).credential
        for number in range(1, KEPT_MAX):
            leases.same(lease(str(number)))
        assert len(leases) == KEPT_MAX
        assert leases.same(lease("0")).credential is first
        leases.same(lease("one past it"))
        assert len(leases) == KEPT_MAX
        assert leases.same(lease("0")).credential is first  # it was used, "1" was not
        leases.clear()

    asyncio.run(scenario())
