"""Leases as people see and end them: `loopwarden leases` and `loopwarden revoke`."""

from collections.abc import AsyncIterator

from agent.broker.control import Accepted, LeaseView
from agent.broker.journal import Row
from agent.broker.lease_ledger import next_action
from agent.broker.leases import Leases
from agent.broker.loops import Loops
from agent.broker.peer import Peer
from agent.model.ids import LeaseId, RunId
from agent.model.lease import OVER
from agent.model.reason import Reason

CONFIRM_S = 10.0  # how long revoke waits for providers before it says how far it came


def view(leases: Leases, row: Row) -> LeaseView:
    """Return a lease as it stands."""
    return LeaseView(
        row.run_id,
        row.lease_id,
        row.target,
        row.provider,
        row.state.value,
        row.loop,
        leases.users.of(row.lease_id),
        row.expires_ms,
        row.renewable,
        row.revocable,
        row.withdrawn,
        next_action(row),
        row.next_ms,
        row.attempts,
        row.error,
        row.provider_id,
        row.began_ms,
        row.at_ms,
    )


def visible(leases: Leases, peer: Peer, run: str, *, past: bool) -> list[LeaseView]:
    """Return the caller's leases, root's are all; of one run, if one is named."""
    return [
        view(leases, row)
        for row in leases.every(past=past)
        if (peer.is_root or row.uid == peer.uid) and run in {"", row.run_id}
    ]


def find(leases: Leases, peer: Peer, text: str) -> Row | None:
    """Return the caller's lease of this id, open or over."""
    row = leases.find(text)
    return row if row is not None and (peer.is_root or row.uid == peer.uid) else None


async def revoke_lease(
    leases: Leases, row: Row, *, rotate: bool
) -> AsyncIterator[Accepted | LeaseView]:
    """Cut and revoke one lease; yield what was done, then how far it came.

    One that is over is only told of: its run may have taken another since, which was not named.
    """
    yield Accepted(_begin(leases, row, rotate=rotate))
    await leases.over((row.lease_id,), CONFIRM_S)
    for view_ in _views(leases, (row.lease_id,)):
        yield view_


def _begin(leases: Leases, row: Row, *, rotate: bool) -> str:
    if row.state in OVER:
        text = f"lease {row.lease_id} is over already ({row.state}), and nothing was taken away"
        if row.withdrawn:
            return text
        return f"{text}: `loopwarden leases --run {row.run_id}` shows what its run has now"
    leases.revoke(row.lease_id, rotate=rotate)
    more = "" if rotate else "; its run gets no other for this target"
    return f"lease {row.lease_id} is taken away{more}"


async def revoke_run(
    loops: Loops, leases: Leases, run_id: RunId
) -> AsyncIterator[Accepted | LeaseView]:
    """End a run's access and its processes; yield what was done, then its leases' states.

    Raises:
        RunRefused: the kernel could not; what the workers had is cut all the same.
    """
    loop = loops.live[run_id].run.loop
    lease_ids = tuple(row.lease_id for row in leases.rows(run_id))
    await loops.revoke(run_id, Reason.RUN_REVOKED)
    yield Accepted(f"run {run_id} of loop {loop} is revoked")
    await leases.over(lease_ids, CONFIRM_S)
    for view_ in _views(leases, lease_ids):
        yield view_


def _views(leases: Leases, lease_ids: tuple[LeaseId, ...]) -> list[LeaseView]:
    found = [leases.find(lease_id) for lease_id in lease_ids]
    return [view(leases, row) for row in found if row is not None]
