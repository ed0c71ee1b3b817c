"""What a provider may say beside its answers: what to keep, when to ask again, what is gone."""

import asyncio
from pathlib import Path

import pytest

from agent.broker import lease_calls
from agent.broker.lease_calls import RETRY_AFTER_S_MAX, CallFailed
from agent.broker.leases import LeaseFailed
from agent.model.ids import LeaseId
from agent.model.lease import LeaseState
from agent.model.reason import Reason
from tests.unit.broker.harness import run_async
from tests.unit.broker.lease_harness import MINUTE, World, calm

S = LeaseState


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_kept_handle_survives_a_crash(world: World) -> None:
    """It is in the file before issue goes on; what was under way is revoked by it."""

    async def main() -> None:
        world.backend.faults["issue"] = ["kept"]
        taking = asyncio.create_task(world.take())
        await calm()
        [row] = world.journal.open_rows()
        assert row.handle == f"k-{row.lease_id}"
        assert f"k-{row.lease_id}".encode() in world.path.read_bytes()
        await world.crash()
        await calm()
        assert world.backend.revoked_with == [(row.lease_id, f"k-{row.lease_id}")]
        taking.cancel()

    run_async(main())


def test_a_kept_handle_counts_when_the_call_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that then hangs: its handle is what revoke is given."""

    async def main() -> None:
        monkeypatch.setattr(lease_calls, "ISSUE_S", 0.01)
        world.backend.faults["issue"] = ["kept"]
        with pytest.raises(LeaseFailed, match="did not answer"):
            await world.take()
        await calm()
        [(lease_id, handle)] = world.backend.revoked_with
        assert handle == f"k-{lease_id}"

    run_async(main())


def test_a_handle_that_can_not_be_kept_ends_the_issue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too long for a row; a journal that is dead: the provider hears of it at once."""

    async def main() -> None:
        world.backend.faults["issue"] = ["kept-endless", "kept"]
        with pytest.raises(LeaseFailed, match="too long for the journal"):
            await world.take()
        kept = world.journal.keep_handle

        def dead(lease_id: LeaseId, handle: str) -> None:
            monkeypatch.setattr("os.fdatasync", _full)
            kept(lease_id, handle)

        world.leases._calls._keep = dead
        with pytest.raises(LeaseFailed, match="cannot be written"):
            await world.take("other")

    run_async(main())


def _full(_fd: int) -> None:
    raise OSError(28, "No space left on device")


def test_revoke_waits_for_as_long_as_it_is_told(world: World) -> None:
    """The first retry is after a second; a backend that says 30 s is not asked before."""

    async def main() -> None:
        lease = await world.take()
        world.backend.faults["revoke"] = ["limited"]
        world.leases.run_ended(lease.run_id)
        world.leases.flows_stopped(lease.run_id)
        await calm()
        assert world.state(lease) is S.REVOKE_RETRY
        await world.clock.advance(29_999)
        assert world.backend.calls.count("revoke") == 1
        await world.clock.advance(1)
        await calm()
        assert world.state(lease) is S.REVOKED

    run_async(main())


def test_issue_is_not_asked_again_before_it_may_be(world: World) -> None:
    """The first failure alone would be asked again at once; this one says when."""

    async def main() -> None:
        world.backend.faults["issue"] = ["limited"]
        for _ in range(3):
            with pytest.raises(LeaseFailed, match="asked too often"):
                await world.take()
        assert world.backend.calls.count("issue") == 1
        await world.clock.advance(30_000)
        await world.take()

    run_async(main())


def test_a_backend_is_not_believed_for_ever() -> None:
    """RETRY_AFTER_S_MAX counts, one more does not; less than nothing is nothing."""
    for said, counts in (
        (RETRY_AFTER_S_MAX, RETRY_AFTER_S_MAX),
        (RETRY_AFTER_S_MAX + 1, RETRY_AFTER_S_MAX),
        (-1.0, 0.0),
    ):
        assert CallFailed("x", retry_after_s=said).retry_after_ms == 1000 * counts


def test_a_credential_that_is_gone_is_replaced_at_once(world: World) -> None:
    """A renewal that finds it gone cuts its sessions; the next operation gets another."""

    async def main() -> None:
        lease = await world.take()
        world.use(lease)
        world.backend.faults["renew"] = ["gone"]
        await world.clock.advance(40 * MINUTE)
        await calm()
        [cut] = world.cuts
        assert (cut.lease_id, cut.reason, cut.when_idle) == (
            lease.lease_id, Reason.LEASE_EXPIRED, False,
        )  # fmt: skip
        other = await world.take()
        assert other.lease_id != lease.lease_id

    run_async(main())
