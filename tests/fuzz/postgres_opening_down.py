"""Invariant: any first bytes of a loop open a session or are refused, in any pieces alike."""

from agent.model.credential import Shape
from agent.protocols.postgres.messages import SSL_REQUEST
from agent.protocols.postgres.opening import Opening
from agent.wire.relay import ProtocolSpec
from tests.conformance.conductor import CANARY, Conductor
from tests.fuzz.engine import main
from tests.protocols.postgres.samples import SAMPLES
from tests.protocols.postgres.server import Server
from tests.protocols.postgres.world import world
from tests.protocols.postgres.wrongs import WRONGS

ALONE = ProtocolSpec("postgres", (Shape.PASSWORD,), Opening)
SEEDS = tuple(s.downstream[:1000] for s in SAMPLES) + tuple(data[:1000] for _, data, _ in WRONGS)


def check(data: bytes) -> None:
    """Send the bytes at once and in pieces of three, to a broker that gives no lease."""
    said = []
    for piece in (len(data) or 1, 3):
        conductor = Conductor(ALONE, world(Server(), lease=None))
        conductor.down(data, piece)
        conductor.cut()
        conductor.check_ended()
        assert CANARY not in conductor.to_loop + conductor.to_server
        said.append(conductor.to_loop)
    if SSL_REQUEST not in data:  # what is in clear behind it is judged by what came with it
        assert said[0] == said[1]


if __name__ == "__main__":
    main("postgres_opening_down")
