"""What tests of the PostgreSQL relay begin with: targets, leases, startup packets, a play."""

from typing import Protocol

from agent.model.credential import Credential, Password, Shape
from agent.model.grant import PostgresOptions, Target
from agent.model.lease import Lease
from agent.model.secret import Secret
from agent.protocols.postgres import SPEC
from agent.protocols.postgres.frames import Frame, Splitter, report_fields
from agent.protocols.postgres.limits import BACKEND
from agent.protocols.postgres.messages import cstring, message, startup_message
from tests.conformance import conductor
from tests.conformance.conductor import CANARY, Conductor, World
from tests.protocols.postgres.server import Server

HOST = "orders.internal"
TERMINATE = message(b"X")


def target(options: PostgresOptions | None = None, **changes: object) -> Target:
    """Return a target of protocol postgres."""
    fields: dict[str, object] = {
        "host": HOST, "port": 5432, "dial_host": HOST, "dial_port": 5432,
        "shape": Shape.PASSWORD, "postgres": options or PostgresOptions(),
    }  # fmt: skip
    return conductor.target("postgres", **(fields | changes))


def lease(credential: Credential | None = None) -> Lease:
    """Return a lease whose secret is CANARY."""
    return conductor.lease(credential or Password("lease_user", Secret(CANARY)))


def startup(version: int = 3 << 16, /, **parameters: str) -> bytes:
    """Return a startup message; user and database are there unless told."""
    chosen = {"user": "agent", "database": "orders"} | parameters
    return startup_message(version, chosen.items())


def query(text: str) -> bytes:
    """Return a Query."""
    return message(b"Q", cstring(text))


def world(server: Server | None = None, **changes: object) -> World:
    """Return a world with this server."""
    fields: dict[str, object] = {
        "target": target(), "tls_name": None, "lease": lease(), "server": server or Server(),
    }  # fmt: skip
    return World(**(fields | changes))  # type: ignore[arg-type]


def begin(server: Server | None = None, **changes: object) -> Conductor:
    """Return a session that has begun, with nothing sent."""
    return Conductor(SPEC, world(server, **changes))


def frames(data: bytes) -> list[Frame]:
    """Return the server's messages in these bytes, all complete."""
    splitter = Splitter(BACKEND)
    splitter.feed(data)
    found = []
    while (frame := splitter.next()) is not None:
        found.append(frame)
    assert not splitter.held
    return found


class Told(Protocol):
    """Whoever has what the loop was told."""

    @property
    def to_loop(self) -> bytes:
        """All of it."""
        ...


def fatal(told: Told, skip: int = 0) -> dict[str, str]:
    """Return the fields of the one FATAL ErrorResponse that the loop got as its last message."""
    last = frames(told.to_loop[skip:])[-1]
    assert last.kind == ord("E")
    fields = {chr(k): v.decode() for k, v in report_fields(last.payload).items()}
    assert fields["S"] == fields["V"] == "FATAL"
    return fields
