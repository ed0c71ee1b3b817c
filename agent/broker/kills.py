"""Kills that the collector asks for: the same as `loopwarden revoke`, told back in two words.

The reporter brings them, and parses what the collector sends. One that was taken over could end
runs: that is what it may do at worst, for nothing here gives access.
"""

from collections.abc import AsyncIterator

from agent.broker import lease_views
from agent.broker.control import Accepted, LeaseView
from agent.broker.leases import Leases
from agent.broker.loops import Loops, RunRefused
from agent.ipc.endpoint import PeerGone
from agent.ipc.messages import KillTold
from agent.model.ids import RunId
from agent.model.lease import OVER

DETAIL_CHARACTERS_MAX = 1_000
_OVER = frozenset(state.value for state in OVER)


async def kill(loops: Loops, leases: Leases, kill_id: str, name: str) -> AsyncIterator[KillTold]:
    """End a run or a lease; yield "cut" at once, then how it ended."""
    lease = leases.find(name)
    if lease is not None:
        steps = lease_views.revoke_lease(leases, lease, rotate=False)
    elif RunId(name) in loops.live:
        steps = lease_views.revoke_run(loops, leases, RunId(name))
    else:
        yield KillTold(kill_id, "unknown", "no live run or lease of this id")
        return
    views: list[LeaseView] = []
    over = lease is not None and lease.state in OVER
    said = ""
    try:
        async for step in steps:
            if isinstance(step, Accepted):
                said = f"{step.detail}; " if over else ""
                yield KillTold(kill_id, "cut", step.detail)
            else:
                views.append(step)
    except (RunRefused, PeerGone, TimeoutError) as error:
        yield KillTold(kill_id, "failed", str(error)[:DETAIL_CHARACTERS_MAX])
        return
    confirmed = all(view.state in _OVER for view in views)
    detail = said + ", ".join(map(_end, views))
    state = "confirmed" if confirmed else "unconfirmed"
    yield KillTold(kill_id, state, detail[:DETAIL_CHARACTERS_MAX])


def _end(view: LeaseView) -> str:
    lives = " (nobody can revoke it, so it may live on)" if view.state == "forgotten" else ""
    return f"lease {view.lease_id} ({view.target}): {view.state}{lives}"
