"""A cancel may come to another worker than the one whose session holds what it means."""

import asyncio
import logging

from agent.broker.api import Parts
from agent.ipc.endpoint import Endpoint, PeerGone, RequestFailed
from agent.ipc.messages import HeldStopped, Message, StopHeld
from agent.model.ids import SessionId

STOP_TIMEOUT_S = 1.0  # a worker that hangs holds up no other
NAME_BYTES_MAX = 512  # a longer name is nobody's
logger = logging.getLogger(__name__)


async def ask_others(parts: Parts, worker: str, session_id: SessionId, name: bytes) -> Message:
    """Ask the other workers for the session of the asking one's own run and target."""
    session = parts.sessions.find(worker, session_id)
    if session is None or session.grant is None or not 0 < len(name) <= NAME_BYTES_MAX:
        return HeldStopped(taken=False)
    wanted = StopHeld(session.attribution.run_id, session.grant.target.name, name)
    others = [endpoint for other, endpoint in parts.workers.items() if other != worker]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(endpoint, wanted)) for endpoint in others]
    return HeldStopped(taken=any(task.result() for task in asked))


async def _ask(endpoint: Endpoint, wanted: StopHeld) -> bool:
    try:
        answer = await endpoint.request(wanted, HeldStopped, timeout_s=STOP_TIMEOUT_S)
    except (PeerGone, RequestFailed, TimeoutError) as error:
        logger.warning("a worker was not asked to stop: %s", error)
        return False
    return answer.taken
