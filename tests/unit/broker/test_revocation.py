"""Revoked means revoked: told until confirmed, across failures, restarts and reboots."""

import asyncio
from pathlib import Path

import pytest

from agent.broker import lease_calls
from agent.broker.lease_times import ATTEMPTS_MAX, QUARANTINE_RETRY_MS, RETRY_MOST_MS
from agent.model.audit import Alarm
from agent.model.ids import LeaseId
from agent.model.lease import Lease, LeaseState
from tests.unit.broker.harness import run_async
from tests.unit.broker.lease_harness import DAY, HOUR, MINUTE, RUN, World, calm

S = LeaseState


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


async def _ended(world: World, *faults: str, ttl_ms: int = 30 * DAY) -> Lease:
    """Return a lease whose run ended, while revoking fails so."""
    world.backend.faults = {"revoke": list(faults)}
    world.backend.ttl_ms = ttl_ms
    lease = await world.take()
    world.leases.forget(RUN)
    await calm()
    return lease


def test_a_failed_revocation_is_tried_again_later_and_later(world: World) -> None:
    """1, 2, 4, … 256, 300 s; REVOKED comes after the first success, once."""

    async def main() -> None:
        lease = await _ended(world, *["transient"] * (ATTEMPTS_MAX - 1))
        waits: list[int] = []
        while world.state(lease) is S.REVOKE_RETRY:
            row = world.leases.find(lease.lease_id)
            assert row is not None
            assert row.attempts == len(waits) + 1
            assert row.error == "the backend is away"
            waits.append(row.next_ms - world.clock.unix)
            await world.clock.advance(waits[-1] - 1)
            assert world.backend.calls.count("revoke") == len(waits)
            await world.clock.advance(1)
            await calm()
        assert waits == [*(1000 * 2**n for n in range(9)), RETRY_MOST_MS, RETRY_MOST_MS]
        assert world.states().count(S.REVOKED) == 1
        assert not world.backend.alive
        assert not world.alarms

    run_async(main())


@pytest.mark.parametrize("permanent", [True, False])
def test_what_cannot_be_revoked_is_quarantined_not_forgotten(world: World, permanent: bool) -> None:
    """At once when the provider says so, else after twelve failures; tried daily from then on."""

    async def main() -> None:
        lease = await _ended(world, "*permanent" if permanent else "*transient")
        if not permanent:
            await world.clock.advance((511 + 2 * 300) * 1000 - 1)
            assert world.state(lease) is S.REVOKE_RETRY
            await world.clock.advance(1)
            await calm()
        assert world.state(lease) is S.QUARANTINED
        assert world.leases.quarantined == 1
        [(alarm, text)] = world.alarms
        assert alarm is Alarm.LEASE_QUARANTINED
        assert lease.lease_id in text
        assert ("owns a table" if permanent else "away") in text
        before = world.backend.calls.count("revoke")
        await world.clock.advance(QUARANTINE_RETRY_MS - 1)
        assert world.backend.calls.count("revoke") == before
        for _ in range(3):
            await world.clock.advance(QUARANTINE_RETRY_MS)
            await calm()
            assert world.state(lease) is S.QUARANTINED
        assert world.backend.calls.count("revoke") == before + 3
        world.backend.faults = {}
        await world.clock.advance(QUARANTINE_RETRY_MS)
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


def test_a_person_need_not_wait_for_the_next_try(world: World) -> None:
    """`revoke LEASE` of a quarantined or waiting lease tries now."""

    async def main() -> None:
        lease = await _ended(world, "permanent", "transient")
        world.leases.revoke(lease.lease_id, rotate=True)
        await calm()
        assert world.state(lease) is S.REVOKE_RETRY
        world.leases.revoke(lease.lease_id, rotate=True)
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


def test_a_person_who_asks_during_a_try_gets_another(world: World) -> None:
    """The try that is under way fails; the next begins at once, and that is all."""

    async def main() -> None:
        world.backend.gates["revoke"] = asyncio.Event()
        lease = await _ended(world, "transient", "transient")
        assert world.state(lease) is S.REVOKING
        world.leases.revoke(lease.lease_id, rotate=True)
        world.backend.gates["revoke"].set()
        await calm()
        assert world.state(lease) is S.REVOKE_RETRY
        assert world.backend.calls.count("revoke") == 2

    run_async(main())


def test_a_person_who_asks_as_we_start_need_not_wait(world: World) -> None:
    """A quarantined lease is tried at once, though it was just read back."""

    async def main() -> None:
        lease = await _ended(world, "permanent")
        await world.crash()
        world.leases.revoke(lease.lease_id, rotate=True)
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


def test_counters_survive_restarts(world: World) -> None:
    """Attempts go on from where they were; so does the time of the next one."""

    async def main() -> None:
        lease = await _ended(world, "*transient")
        await world.clock.advance(7_000)
        await calm()
        row = world.leases.find(lease.lease_id)
        assert row is not None
        wait_ms = row.next_ms - world.clock.unix
        await world.crash()
        assert world.leases.find(lease.lease_id) == row
        await world.clock.advance(wait_ms - 1)
        assert world.state(lease) is S.REVOKE_RETRY
        await world.clock.advance(1)
        await calm()
        again = world.leases.find(lease.lease_id)
        assert again is not None
        assert again.attempts == row.attempts + 1
        assert again.next_ms - world.clock.unix == 2 * wait_ms

    run_async(main())


@pytest.mark.parametrize("jump", [-365 * DAY, 365 * DAY])
def test_a_set_clock_does_not_put_a_try_off(world: World, jump: int) -> None:
    """After a restart with another date, the next try is at most ten minutes away."""

    async def main() -> None:
        lease = await _ended(world, "transient")
        world.clock.set_wall(jump)
        await world.crash()
        await world.clock.advance(2 * RETRY_MOST_MS)
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


@pytest.mark.parametrize("fault", ["silent", "broken", "late", "transient"])
def test_whatever_a_provider_does_it_is_asked_again(world: World, fault: str) -> None:
    """Slow, broken, or done and then cut off: nothing is shown as revoked before it is."""

    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease_calls, "REVOKE_S", 0.01)
            lease = await _ended(world, fault)
            while world.state(lease) is S.REVOKING:
                assert S.REVOKED not in world.states()
                await world.leases.over([lease.lease_id], 0.05)
            assert world.state(lease) is S.REVOKE_RETRY
            await world.clock.advance(1_000)
            await world.leases.settled()
        assert world.state(lease) is S.REVOKED
        assert not world.backend.alive

    run_async(main())


def test_a_backend_that_only_queues_is_not_believed(world: World) -> None:
    """revoke succeeds, confirm says that it is there: not REVOKED, until it is gone."""

    async def main() -> None:
        world.backend.sticky = True
        lease = await _ended(world)
        assert world.state(lease) is S.REVOKE_RETRY
        row = world.leases.find(lease.lease_id)
        assert row is not None
        assert "still there" in row.error
        world.backend.alive.clear()
        await world.clock.advance(1_000)
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


def test_a_backend_that_revokes_soon_is_asked_until_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An asynchronous revocation is confirmed within the same attempt."""
    monkeypatch.setattr(lease_calls, "CONFIRM_POLLS_S", (0.0, 0.001, 0.001))

    async def main() -> None:
        world.backend.sticky = True
        world.backend.ttl_ms = 30 * DAY
        lease = await world.take()
        during: list[LeaseState] = []

        def lives(_: LeaseId) -> bool:
            """Say so twice; then it is done."""
            during.append(world.state(lease))
            return len(during) <= 2

        monkeypatch.setattr(world.backend, "lives", lives)
        world.leases.forget(RUN)
        await world.leases.settled()
        assert during == [S.REVOKING] * 3
        assert world.state(lease) is S.REVOKED
        assert S.REVOKE_RETRY not in world.states()

    run_async(main())


def test_expired_needs_the_time_and_the_providers_word(world: World) -> None:
    """Revoking fails past the end: EXPIRED when the provider says gone, not by the clock alone."""

    async def main() -> None:
        lease = await _ended(world, "*transient", ttl_ms=HOUR)
        world.backend.faults["confirm"] = ["*transient"]
        await world.clock.advance(HOUR + RETRY_MOST_MS)
        await calm()
        assert world.state(lease) in {S.REVOKE_RETRY, S.QUARANTINED}
        world.backend.faults["confirm"] = []
        world.clock.set_wall(-DAY)
        await world.clock.advance(DAY)
        await calm()
        assert world.state(lease) is S.EXPIRED

    run_async(main())


def test_a_provider_that_cannot_be_asked_is_told_until_it_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without confirm its time alone ends nothing."""

    async def main() -> None:
        world = World(tmp_path, monkeypatch, asks=False)
        lease = await _ended(world, "*transient", ttl_ms=MINUTE)
        await world.clock.advance(HOUR)
        assert world.state(lease) is S.QUARANTINED
        world.backend.faults = {}
        await world.clock.advance(DAY)
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


@pytest.mark.parametrize("reboot", [False, True])
def test_what_only_time_can_end_is_awaited_across_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reboot: bool
) -> None:
    """A key that nobody can revoke: DRAINING until its end, on this boot's clock or the next's."""

    async def main() -> None:
        world = World(tmp_path, monkeypatch, revocable=False, asks=False)
        world.backend.ttl_ms = HOUR
        lease = await world.take()
        await world.clock.advance(10 * MINUTE)
        if reboot:
            world.clock.reboot()
        else:
            world.clock.set_wall(5 * DAY)  # the same boot: its clock decides, not the wall
        await world.crash()
        await world.clock.advance(50 * MINUTE - 1)
        assert world.state(lease) is S.DRAINING
        await world.clock.advance(1)
        await calm()
        assert world.state(lease) is S.EXPIRED

    run_async(main())


async def _life(world: World, fault: str) -> Lease:
    """Live through every state that a fault leads to, to the end."""
    world.backend.faults = {"revoke": [fault] if fault else []}
    lease = await world.take()
    world.use(lease)
    await world.clock.advance(41 * MINUTE)  # renewed
    await calm()
    world.leases.run_ended(RUN)
    world.leases.flows_stopped(RUN)
    world.leave()
    await calm()
    return lease


@pytest.mark.parametrize("fault", ["", "transient", "permanent"])
def test_from_every_prefix_of_the_journal_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """SIGKILL or a power cut at any byte: what an INTENT was written for is ended, by id at least.

    The credential is alive at the backend for every prefix with a row in it: the worst case.
    """

    async def main() -> None:
        world = World(tmp_path, monkeypatch)
        lease = await _life(world, fault)
        whole = world.path.read_bytes()
        over_at = whole.rindex(b"\n", 0, -1) + 1 if world.state(lease) is S.REVOKED else len(whole)
        lines = {0, *(at + 1 for at, byte in enumerate(whole) if byte == 10)}
        for cut in sorted(lines | {*range(0, len(whole), 41)}):
            world.path.write_bytes(whole)
            rows = whole[:cut].count(b"\n") - 1
            world.backend.alive = {lease.lease_id: 0} if rows > 0 and cut <= over_at else {}
            world.backend.faults = {}
            await world.crash(cut)
            await world.clock.advance(DAY)
            await calm()
            assert len(world.leases) == 0, cut
            assert not world.backend.alive, cut
            if rows > 0:
                assert world.state(lease) is S.REVOKED

    run_async(main())


def test_what_nobody_can_end_any_more_is_outlived(world: World) -> None:
    """It is shown as alive and not revocable until its own end, across a crash; then EXPIRED."""

    async def main() -> None:
        lease = await _ended(world, "lost", ttl_ms=HOUR)
        row = world.leases.find(lease.lease_id)
        assert row is not None
        assert (row.state, row.revocable, row.error) == (S.DRAINING, False, "the token is lost")
        assert row.expires_ms == world.clock.unix + HOUR
        await world.clock.advance(HOUR // 2)
        await world.crash()
        await calm()
        assert world.state(lease) is S.DRAINING
        await world.clock.advance(HOUR // 2 - 1)
        assert world.state(lease) is S.DRAINING
        await world.clock.advance(1)
        await calm()
        assert world.state(lease) is S.EXPIRED
        assert world.backend.calls.count("revoke") == 1
        assert S.REVOKED not in world.states()
        assert not world.alarms

    run_async(main())
