"""Whether another worker's session holds what is to be stopped: asked by way of the broker."""

import logging

from agent.ipc.endpoint import PeerGone, RequestFailed
from agent.ipc.messages import AskStopped, HeldStopped
from agent.model.ids import SessionId
from agent.proxy.peers import Peers

STOP_TIMEOUT_S = 2.0  # then it counts as not held, and the server is asked
logger = logging.getLogger(__name__)


async def ask_others(peers: Peers, session_id: SessionId, name: bytes) -> bool:
    """Have the session of the same run and target that answers to this name stop; if it did."""
    try:
        answer = await peers.require_broker().request(
            AskStopped(session_id, name), HeldStopped, timeout_s=STOP_TIMEOUT_S
        )
    except (PeerGone, RequestFailed, TimeoutError) as error:
        logger.warning("session %s: nobody else could be asked to stop: %s", session_id, error)
        return False
    return answer.taken
