"""A lease's life: renewed while used, replaced before its end, cut at it, whatever clocks say."""

import asyncio
from pathlib import Path

import pytest

from agent.broker import lease_calls
from agent.broker.lease_times import cut_at_ms
from agent.ipc.messages import CutLease
from agent.model.lease import LeaseState
from agent.model.reason import Reason
from tests.unit.broker.harness import run_async
from tests.unit.broker.lease_harness import (
    DAY,
    HOUR,
    LOOP,
    MINUTE,
    RUN,
    World,
    calm,
    target,
)

S = LeaseState


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_used_lease_is_renewed_at_two_thirds(world: World) -> None:
    """Not before; again and again; the same lease goes on being handed out."""

    async def main() -> None:
        lease = await world.take()
        world.use(lease)
        for count in range(1, 4):
            await world.clock.advance(40 * MINUTE - 1)
            assert world.backend.calls.count("renew") == count - 1
            await world.clock.advance(1)
            await calm()
            assert world.backend.calls.count("renew") == count
            assert world.state(lease) is S.ACTIVE
        assert world.states()[-2:] == [S.RENEWING, S.ACTIVE]
        assert (await world.take()).lease_id == lease.lease_id
        assert not world.cuts

    run_async(main())


def test_an_unused_lease_is_not_renewed(world: World) -> None:
    """No session since the last renewal: revoked at two thirds; the next operation gets another."""

    async def main() -> None:
        lease = await world.take()
        world.use(lease)
        world.leave()
        await world.clock.advance(40 * MINUTE)
        await calm()
        assert world.state(lease) is S.ACTIVE  # it was used before the renewal
        await world.clock.advance(40 * MINUTE)
        await world.leases.settled()
        assert world.state(lease) is S.REVOKED
        assert world.backend.calls.count("renew") == 1
        assert not world.cuts
        assert (await world.take()).lease_id != lease.lease_id

    run_async(main())


@pytest.mark.parametrize("luck", [0.0, 0.999])
def test_jitter_spreads_a_twentieth_each_way(world: World, luck: float) -> None:
    """Leases issued at once are not renewed at once."""

    async def main() -> None:
        world.clock.luck = luck
        lease = await world.take()
        world.use(lease)
        middle = 40 * MINUTE + int((luck - 0.5) * HOUR / 10)
        await world.clock.advance(middle - 1000)
        assert "renew" not in world.backend.calls
        await world.clock.advance(2000)
        assert "renew" in world.backend.calls

    run_async(main())


def test_a_backend_that_is_away_at_renewal_does_not_end_the_lease(world: World) -> None:
    """It is kept and asked again, closer and closer; the first answer makes it whole."""

    async def main() -> None:
        lease = await world.take()
        world.use(lease)
        world.backend.faults = {"renew": ["transient", "silent", "broken"]}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease_calls, "RENEW_S", 0.01)
            for count in (1, 2, 3):
                left = world.backend.alive[lease.lease_id] - world.clock.up
                await world.clock.advance(left * 2 // 3 + 1000)
                await asyncio.sleep(0.02)
                await calm()
                assert world.backend.calls.count("renew") == count
                assert world.state(lease) is S.ACTIVE
                row = world.leases.find(lease.lease_id)
                assert row is not None
                assert row.renewable
                assert row.error
        await world.clock.advance(3 * MINUTE)
        await calm()
        row = world.leases.find(lease.lease_id)
        assert row is not None
        assert not row.error
        assert row.expires_ms > world.clock.unix + 50 * MINUTE

    run_async(main())


@pytest.mark.parametrize("why", ["refused", "cap", "max_ttl", "plain"])
def test_before_its_end_new_operations_get_another(world: World, why: str) -> None:
    """Not renewable, at its longest, or past max_ttl: the old one drains and is cut at its end."""

    async def main() -> None:
        asked = target()
        if why == "refused":
            world.backend.faults = {"renew": ["refused"]}
        elif why == "cap":
            world.backend.most_ms = HOUR
        elif why == "plain":
            world.backend.renewable = False
        else:
            object.__setattr__(asked.credential, "max_ttl_s", 3600)
        old = await world.leases.take(RUN, LOOP, asked)
        world.use(old)
        await world.clock.advance(57 * MINUTE)
        await calm()
        assert world.state(old) is S.DRAINING
        assert world.cuts == [CutLease(RUN, old.lease_id, Reason.DRAINING, True)]
        new = await world.leases.take(RUN, LOOP, asked)
        world.use(new, "t")
        assert new.lease_id != old.lease_id
        assert world.backend.lives(old.lease_id)
        await world.clock.advance(3 * MINUTE - 1_001)
        assert len(world.cuts) == 1
        await world.clock.advance(1)
        await calm()
        assert world.cuts[1:] == [CutLease(RUN, old.lease_id, Reason.LEASE_EXPIRED, False)]
        assert world.backend.lives(old.lease_id)  # cut by us, not by the server
        world.leave()
        await calm()
        assert world.state(old) is S.REVOKED
        assert world.state(new) is S.ACTIVE

    run_async(main())


def test_a_draining_lease_ends_with_its_last_session(world: World) -> None:
    """It does not wait for its time."""

    async def main() -> None:
        world.backend.renewable = False
        lease = await world.take()
        world.use(lease, "a")
        world.use(lease, "b")
        await world.clock.advance(41 * MINUTE)
        world.leave("a")
        await calm()
        assert world.state(lease) is S.DRAINING
        world.leave("b")
        await calm()
        assert world.state(lease) is S.REVOKED
        assert [cut.when_idle for cut in world.cuts] == [True]

    run_async(main())


@pytest.mark.parametrize("end", ["run", "person", "worker"])
def test_a_draining_lease_ends_at_once_when_it_must(world: World, end: str) -> None:
    """The run's end, a person, or its worker's death do not wait for sessions to finish."""

    async def main() -> None:
        world.backend.renewable = False
        lease = await world.take()
        world.use(lease)
        await world.clock.advance(41 * MINUTE)
        await calm()
        match end:
            case "run":
                world.leases.run_ended(RUN)
                world.leases.flows_stopped(RUN)
                world.leave()
            case "person":
                world.leases.revoke(lease.lease_id, rotate=True)
                await calm()
                assert world.cuts[-1].reason is Reason.LEASE_REVOKED
                world.leave()
            case _:
                world.leases.users.worker_gone("proxy@0")
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


@pytest.mark.parametrize("jump", [-10 * 365 * DAY, -DAY, DAY, 10 * 365 * DAY])
def test_setting_the_hosts_clock_neither_kills_nor_extends(world: World, jump: int) -> None:
    """The end stays where the server put it; a lease is handed out up to there, and not beyond."""

    async def main() -> None:
        world.backend.renewable = False
        lease = await world.take()
        world.use(lease)
        world.clock.set_wall(jump)
        await world.clock.advance(39 * MINUTE)
        assert (await world.take()).lease_id == lease.lease_id
        assert not world.cuts
        await world.clock.advance(21 * MINUTE - 1_001)
        assert [cut.when_idle for cut in world.cuts] == [True]
        world.clock.set_wall(-jump)
        await world.clock.advance(1)
        await calm()
        assert [cut.reason for cut in world.cuts] == [Reason.DRAINING, Reason.LEASE_EXPIRED]
        world.leave()
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


def test_a_renewal_counts_from_the_servers_word(world: World) -> None:
    """Wall set between issue and renewal: the new end is what the renewal's answer says."""

    async def main() -> None:
        lease = await world.take()
        world.use(lease)
        world.clock.set_wall(5 * DAY)
        await world.clock.advance(40 * MINUTE)
        await calm()
        world.clock.set_wall(-9 * DAY)
        world.backend.faults = {"renew": ["*transient"]}
        await world.clock.advance(HOUR - 1_001)
        assert world.cuts[-1:] == [CutLease(RUN, lease.lease_id, Reason.DRAINING, True)]
        await world.clock.advance(1)
        await calm()
        assert world.cuts[-1].reason is Reason.LEASE_EXPIRED

    run_async(main())


def test_a_targets_ttl_ends_what_has_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A static secret with ttl: 15m: another lease after two thirds, sessions cut at the end."""

    async def main() -> None:
        world = World(tmp_path, monkeypatch, revocable=False, asks=False)
        world.backend.ttl_ms, world.backend.renewable = 0, False
        asked = target()
        object.__setattr__(asked.credential, "ttl_s", 900)
        lease = await world.leases.take(RUN, LOOP, asked)
        world.use(lease)
        await world.clock.advance(10 * MINUTE)
        assert (await world.leases.take(RUN, LOOP, asked)).lease_id != lease.lease_id
        await world.clock.advance(5 * MINUTE)
        assert world.cuts[-1] == CutLease(RUN, lease.lease_id, Reason.LEASE_EXPIRED, False)
        world.leave()
        await calm()
        assert world.state(lease) is S.FORGOTTEN

    run_async(main())


@pytest.mark.parametrize("silent", [False, True])
def test_a_run_that_ends_while_its_lease_is_renewed(world: World, silent: bool) -> None:
    """A provider that does not answer does not delay the revocation."""

    async def main() -> None:
        lease = await world.take()
        world.use(lease)
        world.backend.faults = {"renew": ["silent" if silent else "late-silent"]}
        await world.clock.advance(41 * MINUTE)
        await calm()
        assert world.state(lease) is S.RENEWING
        world.leases.run_ended(RUN)
        world.leases.flows_stopped(RUN)
        world.leave()
        await calm()
        assert world.state(lease) is S.REVOKED
        assert not world.backend.alive

    run_async(main())


def test_a_journal_that_dies_lets_nothing_be_renewed(world: World) -> None:
    """RENEWING can't be written: the lease drains instead, and is revoked."""

    async def main() -> None:
        lease = await world.take()
        world.use(lease)
        world.journal._dead = "the disk is gone"
        await world.clock.advance(41 * MINUTE)
        await calm()
        assert "renew" not in world.backend.calls
        assert [cut.when_idle for cut in world.cuts] == [True]
        world.leave()
        await calm()
        assert not world.backend.alive
        assert world.state(lease) is S.REVOKED

    run_async(main())


@pytest.mark.parametrize("ttl_ms", [10, 1_000, 19_000])
def test_very_short_leases_end_like_others(world: World, ttl_ms: int) -> None:
    """Nothing turns in circles, nothing outlives its end."""

    async def main() -> None:
        world.backend.ttl_ms = ttl_ms
        world.backend.renewable = False
        lease = await world.take()
        world.use(lease)
        await world.clock.advance(ttl_ms)
        await calm()
        assert world.cuts[-1].reason is Reason.LEASE_EXPIRED
        world.leave()
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


def test_the_cut_is_before_the_servers_end() -> None:
    """A second before it; of short leases a twentieth."""
    assert cut_at_ms(0, HOUR) == HOUR - 1_000
    assert cut_at_ms(0, 20_000) == 19_000
    assert cut_at_ms(0, 10_000) == 9_500
    assert cut_at_ms(5, 3) == 3
