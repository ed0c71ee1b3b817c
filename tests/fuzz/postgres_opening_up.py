"""Invariant: any bytes of a server in its login give the loop a session or a FATAL, no secret."""

from agent.model.credential import Shape
from agent.model.grant import PostgresOptions
from agent.protocols.postgres.frames import Frame
from agent.protocols.postgres.messages import AUTHENTICATION_OK
from agent.protocols.postgres.opening import Opening
from agent.wire.relay import ProtocolSpec
from tests.conformance.conductor import CANARY, Conductor
from tests.fuzz.engine import main
from tests.protocols.postgres.rogues import ROGUES, SASL
from tests.protocols.postgres.server import Server, authentication, welcome
from tests.protocols.postgres.world import fatal, frames, startup, target, world

ALONE = ProtocolSpec("postgres", (Shape.PASSWORD,), Opening)
_PARTS = [part for _, change, _ in ROGUES for part in change.values() if isinstance(part, bytes)]
SEEDS = (
    AUTHENTICATION_OK + welcome(),
    SASL,
    authentication(11, b"r=x,s=eA==,i=4096"),
    *(part for part in _PARTS if len(part) < 1000),
    *(AUTHENTICATION_OK + part for part in _PARTS if len(part) < 1000),
)


class _Mute(Server):
    """Gets to the login and says nothing: the input speaks instead."""

    def _login(self, frame: Frame) -> bytes:
        return b""


def _ended_in_words(conductor: Conductor, data: bytes) -> bool:
    """Whether the last message is a FATAL of ours, or an ErrorResponse as the server said it."""
    last = frames(conductor.to_loop)[-1]
    return (last.kind == ord("E") and last.payload in data) or bool(fatal(conductor))


def check(data: bytes) -> None:
    """Play the bytes as the server's login, at once and in pieces, trusted and not."""
    for methods in ((), ("trust",)):
        said = []
        for piece in (len(data) or 1, 3):
            chosen = target(PostgresOptions(auth=methods))
            server = _Mute(request=b"")
            conductor = Conductor(ALONE, world(server, target=chosen))
            conductor.down(startup())
            conductor.up(data, piece)
            opening = conductor.relay
            assert isinstance(opening, Opening)
            opened = opening.opened is not None
            assert methods or not opened, "in, without a proof"
            if conductor.running() and not opened:
                conductor.up_eof()
            if not opened:
                conductor.check_ended()
                assert _ended_in_words(conductor, data)
            assert CANARY not in conductor.to_loop + conductor.to_server
            said.append((opened, conductor.to_loop))
        assert said[0] == said[1]


if __name__ == "__main__":
    main("postgres_opening_up")
