"""Leases: one flight, never without a row, given to nobody after the end of their run."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.broker import lease_calls, lease_times, leases
from agent.broker.leases import LeaseFailed
from agent.ipc.messages import CutLease
from agent.model.ids import LeaseId
from agent.model.lease import LeaseState
from agent.model.reason import Reason
from tests.unit.broker.harness import run_async
from tests.unit.broker.lease_harness import LOOP, RUN, World, calm, target

S = LeaseState


@pytest.fixture(name="patch")
def _patch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return monkeypatch


def test_many_who_ask_at_once_share_one_flight(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """Fifty sessions, one issue, one lease; a later session gets the same."""

    async def main() -> None:
        world = World(tmp_path, patch)
        asked = [asyncio.ensure_future(world.take()) for _ in range(50)]
        found = [await each for each in asked]
        assert len({lease.lease_id for lease in found}) == 1
        assert (await world.take()).lease_id == found[0].lease_id
        assert world.backend.calls == ["issue"]
        assert world.states() == [S.INTENT, S.ISSUED, S.ACTIVE]

    run_async(main())


def test_runs_and_targets_have_their_own(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """One lease for each (run, target)."""

    async def main() -> None:
        world = World(tmp_path, patch)
        pairs = [("api", "r1"), ("api", "r2"), ("db", "r1")]
        found = [await world.take(name, run) for name, run in pairs]  # type: ignore[arg-type]
        assert len({lease.lease_id for lease in found}) == 3

    run_async(main())


def test_one_who_leaves_does_not_end_the_flight(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """A cancelled session leaves the lease to the others."""

    async def main() -> None:
        world = World(tmp_path, patch)
        first = asyncio.ensure_future(world.take())
        second = asyncio.ensure_future(world.take())
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).target == "api"

    run_async(main())


@pytest.mark.parametrize("ends", [True, False])
def test_a_run_that_ends_while_its_lease_is_made_gets_none(
    tmp_path: Path, patch: pytest.MonkeyPatch, ends: bool
) -> None:
    """What was issued after the end, or a policy's change, is revoked by its handle."""

    async def main() -> None:
        world = World(tmp_path, patch)
        asked = asyncio.ensure_future(world.take())
        await asyncio.sleep(0)
        if ends:
            world.leases.run_ended(RUN)
            world.leases.flows_stopped(RUN)
        else:
            world.leases.forget(RUN)
        with pytest.raises(LeaseFailed):
            await asked
        await world.leases.settled()
        [(lease_id, handle)] = world.backend.revoked_with
        assert handle == f"h-{lease_id}"
        assert world.states()[-1] is S.REVOKED
        if ends:
            with pytest.raises(LeaseFailed, match="ended"):
                await world.take()
        else:
            assert (await world.take()).lease_id != lease_id

    run_async(main())


def test_the_end_has_an_order(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """Not before the kernel stopped the flows and the sessions are closed is the provider told."""

    async def main() -> None:
        world = World(tmp_path, patch)
        lease = await world.take()
        world.use(lease)
        world.leases.run_ended(RUN)
        await calm()
        assert world.state(lease) is S.DRAINING
        world.leases.flows_stopped(RUN)
        await calm()
        assert "revoke" not in world.backend.calls
        world.leave()
        await world.leases.settled()
        assert world.backend.calls == ["issue", "revoke", "confirm"]
        assert world.states()[-3:] == [S.DRAINING, S.REVOKING, S.REVOKED]
        assert not world.cuts  # the run's sessions were cut by its own notice

    run_async(main())


@pytest.mark.parametrize("kernel_answers", [True, False])
def test_a_silent_kernel_or_worker_keeps_no_credential_alive(
    tmp_path: Path, patch: pytest.MonkeyPatch, kernel_answers: bool
) -> None:
    """After a second the provider is told all the same."""

    async def main() -> None:
        world = World(tmp_path, patch)
        lease = await world.take()
        world.use(lease)
        world.leases.run_ended(RUN)
        if kernel_answers:
            world.leases.flows_stopped(RUN)
        await world.clock.advance(999)
        assert world.backend.lives(lease.lease_id)
        await world.clock.advance(1)
        await world.leases.settled()
        assert not world.backend.lives(lease.lease_id)

    run_async(main())


def test_a_changed_policy_gives_a_new_lease(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """The old one is revoked, the run may ask again."""

    async def main() -> None:
        world = World(tmp_path, patch)
        first = await world.take()
        world.leases.forget(RUN)
        second = await world.take()
        await world.leases.settled()
        assert first.lease_id != second.lease_id
        assert world.state(first) is S.REVOKED
        assert world.state(second) is S.ACTIVE

    run_async(main())


def test_after_a_restart_nothing_is_left(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """The secrets and the sessions went with the broker: each lease is taken away, then anew."""

    async def main() -> None:
        world = World(tmp_path, patch)
        lease = await world.take()
        await world.crash(live=frozenset({RUN}))
        await world.leases.settled()
        assert world.state(lease) is S.REVOKED
        assert (await world.take()).lease_id != lease.lease_id

    run_async(main())


def test_a_crash_between_issue_and_journal_is_found_by_id(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """INTENT alone was written: the provider is told the lease's id, without a handle."""

    async def main() -> None:
        world = World(tmp_path, patch)
        world.backend.faults = {"issue": ["late-silent"]}
        asked = asyncio.ensure_future(world.take())
        await calm()
        assert len(world.backend.alive) == 1
        await world.crash()
        asked.cancel()
        await world.leases.settled()
        assert [handle for _, handle in world.backend.revoked_with] == [""]
        assert not world.backend.alive

    run_async(main())


def test_no_lease_without_a_row(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """A journal that can't be written issues nothing."""

    async def main() -> None:
        world = World(tmp_path, patch)
        world.journal._dead = "the disk is gone"
        with pytest.raises(LeaseFailed, match="journal"):
            await world.take()
        assert not world.backend.calls

    run_async(main())


def test_a_journal_that_dies_after_the_issue_hands_nothing_out(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """What exists is revoked, by its handle, though that can't be written either."""

    async def main() -> None:
        world = World(tmp_path, patch)
        gate = world.backend.gates["issue"] = asyncio.Event()
        asked = asyncio.ensure_future(world.take())
        await calm()

        def fail(fd: int) -> None:
            raise OSError(5, "Input/output error")

        with patch.context() as patched:
            patched.setattr(os, "fdatasync", fail)
            gate.set()
            with pytest.raises(LeaseFailed, match="journal"):
                await asked
        await world.leases.settled()
        assert not world.backend.alive
        assert world.backend.revoked_with[0][1].startswith("h-")

    run_async(main())


FAULTS = {
    "transient": "the backend is away",
    "refused": "the role does not exist",
    "late": "cut off",
    "silent": "did not answer within",
    "late-silent": "did not answer within",
    "broken": "the provider failed (KeyError)",
    "empty": "its secret is empty",
    "expired": "it has expired already",
    "endless": "its handle is too long",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_provider_that_fails_leaves_nothing_and_says_what_to_do(
    tmp_path: Path, patch: pytest.MonkeyPatch, fault: str
) -> None:
    """Down, slow, nonsense, refusing: the answer has cause, lease id and next step, no secret."""
    patch.setattr(lease_calls, "ISSUE_S", 0.01)

    async def main() -> None:
        world = World(tmp_path, patch)
        world.backend.faults = {"issue": [fault]}
        with pytest.raises(LeaseFailed) as caught:
            await world.take()
        text = str(caught.value)
        assert FAULTS[fault] in text
        assert "c4n4ry" not in text
        [row] = world.leases.every(past=True)
        assert row.lease_id in text
        assert f"loopwarden leases --all --run {RUN}" in text
        await world.leases.settled()
        assert not world.backend.alive
        assert world.states()[-1] is S.REVOKED
        assert (fault == "refused") == ("revoke" not in world.backend.calls)
        await world.take()  # repaired at once: the first failure does not bar the way

    run_async(main())


def test_a_provider_that_stays_down_is_not_asked_for_each_session(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """From the second failure the same answer is given for 1, 2, 4 … 30 s without a call."""

    async def main() -> None:
        world = World(tmp_path, patch)
        world.backend.faults = {"issue": ["*refused"]}
        for _ in range(2):
            with pytest.raises(LeaseFailed):
                await world.take()
        for wait_ms in (1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000):
            calls = len(world.backend.calls)
            await world.clock.advance(wait_ms - 1)
            with pytest.raises(LeaseFailed, match="does not exist"):
                await world.take()
            assert len(world.backend.calls) == calls
            await world.clock.advance(1)
            with pytest.raises(LeaseFailed):
                await world.take()
            assert len(world.backend.calls) == calls + 1
        world.backend.faults = {}
        await world.clock.advance(lease_times.REFUSE_MOST_MS)
        await world.take()

    run_async(main())


def test_leases_that_cannot_be_ended_are_bounded(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """Eight for a run and target; one past it is refused without a call, other targets are not."""

    async def main() -> None:
        world = World(tmp_path, patch)
        world.backend.faults = {"revoke": ["*permanent"]}
        for _ in range(leases.OPEN_A_TARGET_MAX):
            await world.take()
            world.leases.forget(RUN)
            await calm()
        calls = len(world.backend.calls)
        with pytest.raises(LeaseFailed, match="8 earlier leases"):
            await world.take()
        assert len(world.backend.calls) == calls
        patch.setattr(leases, "OPEN_MAX", 9)
        await world.take("db")
        with pytest.raises(LeaseFailed, match="not ended yet"):
            await world.take("third")

    run_async(main())


def test_a_revoked_lease_is_the_last_for_its_run_and_target(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """Its sessions are cut first; the run gets no other, across restarts; other targets go on."""

    async def main() -> None:
        world = World(tmp_path, patch)
        lease = await world.take()
        world.use(lease)
        world.leases.revoke(lease.lease_id, rotate=False)
        await calm()
        assert world.cuts == [CutLease(RUN, lease.lease_id, Reason.LEASE_REVOKED, False)]
        assert "revoke" not in world.backend.calls
        world.leave()
        await world.leases.over([lease.lease_id], 5)
        assert world.state(lease) is S.REVOKED
        with pytest.raises(LeaseFailed, match=f"{lease.lease_id}.*by a person"):
            await world.take()
        await world.take("db")
        await world.crash(live=frozenset({RUN}))
        with pytest.raises(LeaseFailed, match="by a person"):
            await world.take()
        world.leases.run_ended(RUN)
        world.leases.run_removed(RUN)
        assert not world.journal.withdrawn

    run_async(main())


def test_a_rotated_lease_is_followed_by_another(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """The sessions are cut and the credential dies; the next operation gets a new one."""

    async def main() -> None:
        world = World(tmp_path, patch)
        lease = await world.take()
        world.leases.revoke(lease.lease_id, rotate=True)
        assert (await world.take()).lease_id != lease.lease_id
        await world.leases.over([lease.lease_id], 5)
        assert world.state(lease) is S.REVOKED
        world.leases.revoke(lease.lease_id, rotate=False)  # over: nothing happens
        assert not world.journal.withdrawn

    run_async(main())


def test_a_lease_can_be_revoked_while_it_is_made(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """The issue's answer is taken away at once; nobody gets it."""

    async def main() -> None:
        world = World(tmp_path, patch)
        gate = world.backend.gates["issue"] = asyncio.Event()
        asked = asyncio.ensure_future(world.take())
        await calm()
        [row] = world.journal.open_rows()
        world.leases.revoke(row.lease_id, rotate=False)
        gate.set()
        with pytest.raises(LeaseFailed):
            await asked
        await world.leases.settled()
        assert not world.backend.alive
        with pytest.raises(LeaseFailed, match="by a person"):
            await world.take()

    run_async(main())


def test_what_nobody_can_revoke_is_not_called_revoked(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """Without an end of its own it is forgotten; with one it is awaited, then expired."""

    async def main() -> None:
        world = World(tmp_path, patch, revocable=False, asks=False)
        world.backend.ttl_ms = 0
        lease = await world.take()
        world.leases.forget(RUN)
        await world.leases.settled()
        assert world.state(lease) is S.FORGOTTEN
        world.backend.ttl_ms = 60_000
        world.backend.renewable = False
        short = await world.take()
        world.leases.forget(RUN)
        await world.clock.advance(59_999)
        assert world.state(short) is S.DRAINING
        world.leases.revoke(short.lease_id, rotate=False)
        await world.clock.advance(0)
        assert world.state(short) is S.DRAINING
        await world.clock.advance(1)
        await calm()
        assert world.state(short) is S.EXPIRED
        assert "revoke" not in world.backend.calls

    run_async(main())


def test_a_stop_takes_away_what_sessions_leave(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """Draining: no new lease; free ones are revoked at once, used ones before the time is up."""

    async def main() -> None:
        world = World(tmp_path, patch)
        used, free = await world.take("used"), await world.take("free")
        world.use(used)
        time_is_up = asyncio.Event()
        over, waits = world.leases.over, list[float]()

        async def waited(lease_ids: Iterable[LeaseId], within_s: float) -> None:
            """Wait as told, but let the test say when the sessions' time is up."""
            waits.append(within_s)
            if len(waits) == 1:
                await time_is_up.wait()
            else:
                await over(lease_ids, within_s)

        patch.setattr(world.leases, "over", waited)
        stop = asyncio.ensure_future(world.leases.drain(leases.DRAIN_MARGIN_S + 7))
        await calm()
        assert world.state(free) is S.REVOKED
        assert world.state(used) is S.DRAINING
        with pytest.raises(LeaseFailed, match="stopping"):
            await world.take()
        time_is_up.set()
        await calm()
        await world.clock.advance(1_000)
        await stop
        assert world.state(used) is S.REVOKED
        assert waits == [7, leases.DRAIN_MARGIN_S]

    run_async(main())


def test_a_target_without_a_credential_has_no_lease(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    """And a provider that this version lacks makes none."""

    async def main() -> None:
        world = World(tmp_path, patch)
        with pytest.raises(LeaseFailed, match="no provider 'other'"):
            await world.leases.take(RUN, LOOP, target(provider="other"))
        await world.leases.settled()
        assert len(world.leases) == 0

    run_async(main())
