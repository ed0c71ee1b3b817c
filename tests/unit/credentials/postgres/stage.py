"""A server, the broker's real client, and requests for roles on it."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from agent.broker.sources import BrokerClient
from agent.credentials.postgres import SPEC
from agent.credentials.spec import Issued, Wanted
from agent.model.credential import Password, Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.secret import Secret
from agent.runtime import clock
from tests.servers.certificates import Authority
from tests.servers.postgres import ADMIN_PASSWORD, Postgres, postgres_server

GRANTS = ("SELECT ON ALL TABLES IN SCHEMA public", "INSERT, UPDATE ON refunds")
OURS = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'loopwarden\\_%\\_%' AND rolname <> "
ROLES = OURS + "'loopwarden_admin' ORDER BY 1"


def client(instance: str = "", password: str = ADMIN_PASSWORD) -> BrokerClient:
    """Return a broker's client that has the admin's password as systemd's credential."""
    return BrokerClient({"admin": Secret(password.encode() + b"\n")}, {}, instance)


@dataclass(frozen=True)
class Stage:
    """One server."""

    server: Postgres
    client: BrokerClient

    def settings(self, **changes: str | list[str] | None) -> dict[str, str]:
        """Return settings that work, with changes; None removes one."""
        all_of_them: dict[str, str | list[str] | None] = {
            "admin": "loopwarden_admin",
            "systemd_credential": "admin",
            "address": f"{self.server.address}:{self.server.port}",
            "server_name": self.server.name,
            "ca": str(self.server.ca),
            "database": "orders",
            "grants": list(GRANTS),
            **changes,
        }
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in all_of_them.items()
            if value is not None
        }

    def wanted(self, **changes: str | list[str] | None) -> Wanted:
        """Return a new lease's request."""
        return Wanted(
            LeaseId(clock.fresh_ulid()),
            RunId(clock.fresh_ulid()),
            LoopName("nightly"),
            TargetName("orders-db"),
            self.settings(**changes),
            Shape.PASSWORD,
            "",
            "",
        )

    async def issue(self, wanted: Wanted) -> Issued:
        """Make a role now."""
        return await SPEC.make().issue(wanted, self.client, clock.unix_ms())

    async def revoke(self, wanted: Wanted, handle: str = "") -> None:
        """Drop it."""
        await SPEC.make().revoke(wanted, handle, self.client)

    def roles(self) -> list[str]:
        """Ask the server which roles of runs there are."""
        return [row[0] for row in self.server.ask(ROLES)]


@contextmanager
def stage(**settings: str) -> Iterator[Stage]:
    """Run a server that logs every statement."""
    with postgres_server(Authority(), settings={"log_statement": "all", **settings}) as server:
        yield Stage(server, client())


def login(issued: Issued) -> tuple[str, str]:
    """Return the role and its password."""
    assert isinstance(issued.credential, Password)
    return issued.credential.user, issued.credential.password.reveal().decode()


def elsewhere(wanted: Wanted) -> Wanted:
    """Return the same request with another lease."""
    return replace(wanted, lease_id=LeaseId(clock.fresh_ulid()))


def silent_port() -> socket.socket:
    """Return a listener that accepts and never says a word."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    return sock
