"""What the parts of a worker share: its peers, its recorder, its connections."""

from dataclasses import dataclass

from agent.proxy.apart import Apart
from agent.proxy.classifier import Classifier
from agent.proxy.dial import Dialler
from agent.proxy.leaves import Leaves
from agent.proxy.peers import Peers
from agent.proxy.pool import Pool
from agent.proxy.recorder import Recorder
from agent.proxy.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Services:
    """One worker's."""

    peers: Peers
    recorder: Recorder
    sessions: Sessions
    pool: Pool
    dialler: Dialler
    leaves: Leaves
    classifier: Classifier
    apart: Apart
