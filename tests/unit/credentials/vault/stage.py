"""A vault that is set up, the broker's real client, and requests for credentials of it."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from agent.broker.sources import BrokerClient
from agent.credentials.spec import HttpReply, HttpRequest, Issued, Renewed, Wanted
from agent.credentials.vault import SPEC
from agent.model.credential import Basic, Password, Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.secret import Secret
from agent.runtime import clock
from tests.servers.certificates import Authority
from tests.servers.openbao import OpenBao, lasting_openbao, openbao
from tests.servers.openbao_setup import TOKEN_ROLE, USERS, Vault, set_up, store
from tests.servers.postgres import Postgres, postgres_server, programs

Refuse = Callable[[HttpRequest], None]


class CountingClient(BrokerClient):
    """The broker's own, which remembers what was asked, and fails before or after on demand."""

    def __init__(self, systemd: Mapping[str, Secret], alarms: list[str]) -> None:
        super().__init__(systemd, {}, "tests", alarms.append)
        self.asked: list[str] = []
        self.before: Refuse = lambda _: None
        self.after: Refuse = lambda _: None

    async def http(self, request: HttpRequest) -> HttpReply:
        """See Client.http."""
        self.asked.append(f"{request.method} {request.url.partition('/v1/')[2]}")
        self.before(request)
        reply = await super().http(request)
        self.after(request)
        return reply

    def count(self, part: str) -> int:
        """Return how many requests had this in them."""
        return sum(part in asked for asked in self.asked)


@dataclass
class Stage:
    """One server, and one client of ours."""

    vault: Vault
    server: Postgres
    client: CountingClient
    alarms: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    @property
    def bao(self) -> OpenBao:
        """The server."""
        return self.vault.bao

    def settings(self, **changes: str | list[str] | None) -> dict[str, str]:
        """Return settings that work, with changes; None removes one."""
        all_of_them: dict[str, str | list[str] | None] = {
            "address": self.bao.url,
            "ca": self.bao.ca or None,
            "auth": "approle",
            "role_id": self.vault.role_id,
            "systemd_credential": "secret",
            "token_role": TOKEN_ROLE,
            "policies": ["read"],
            "path": "database/creds/orders",
            **changes,
        }
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in all_of_them.items()
            if value is not None
        }

    def wanted(self, shape: Shape = Shape.PASSWORD, **changes: str | list[str] | None) -> Wanted:
        """Return a new lease's request."""
        return Wanted(
            LeaseId(clock.fresh_ulid()),
            RunId(clock.fresh_ulid()),
            LoopName("nightly"),
            TargetName("orders-db"),
            self.settings(**changes),
            shape,
            "",
            "",
            keep=self.kept.append,
        )

    def certificate(self, role: str = "client") -> Wanted:
        """Return a request for a certificate."""
        name = {"path": f"pki/issue/{role}", "common_name": "orders.app"}
        return self.wanted(Shape.CLIENT_CERTIFICATE, **name)

    async def issue(self, wanted: Wanted) -> Issued:
        """Make a credential now."""
        return await SPEC.make().issue(wanted, self.client, clock.unix_ms())

    async def renew(self, wanted: Wanted, handle: str) -> Renewed:
        """Renew it now."""
        answer = await SPEC.make().renew(wanted, handle, self.client, clock.unix_ms())
        assert isinstance(answer, Renewed)
        return answer

    async def revoke(self, wanted: Wanted, handle: str) -> None:
        """Revoke it."""
        await SPEC.make().revoke(wanted, handle, self.client)

    async def gone(self, wanted: Wanted, handle: str) -> bool:
        """Ask whether it is gone."""
        found: bool = await SPEC.make().confirm(wanted, handle, self.client)  # type: ignore[attr-defined]
        return found

    def users(self) -> list[str]:
        """Ask the database which users the vault made."""
        return [row[0] for row in self.server.ask(USERS)]

    def with_secret(self, secret: str) -> "Stage":
        """Return the same with another secret to log in with, and nobody logged in."""
        alarms: list[str] = []
        client = CountingClient({"secret": Secret(secret.encode() + b"\n")}, alarms)
        return replace(self, client=client, alarms=alarms, kept=[])


@contextmanager
def stage(*, lasting: bool = False) -> Iterator[Stage]:
    """Run a vault with a database behind it."""
    authority = Authority()
    running = lasting_openbao(authority) if lasting else openbao()
    with running as bao, postgres_server(authority) as server:
        vault = set_up(bao, server)
        store(bao)
        yield Stage(vault, server, CountingClient({}, [])).with_secret(vault.secret_id())


def login(issued: Issued) -> tuple[str, str]:
    """Return the user and its password."""
    assert isinstance(issued.credential, Password | Basic)
    return issued.credential.user, issued.credential.password.reveal().decode()


def psql(made: Stage, issued: Issued, sql: str) -> str:
    """Run a statement as the user; return its output, or the error."""
    user, password = login(issued)
    done = subprocess.run(
        [str(programs() / "psql"), "-XAtc", sql],
        env=made.server.environment(user, password),
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout or done.stderr).strip()
