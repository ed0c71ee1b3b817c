"""What the fault matrix runs on: each provider, with a backend that knows the truth."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agent.model.credential import Shape
from agent.model.grant import Durability, UpstreamTls
from agent.model.ids import TargetName
from agent.model.secret import Secret
from agent.policy.schema import CredentialSource, TargetPolicy
from agent.runtime.programs import Programs
from tests.servers.certificates import Authority
from tests.servers.fake_vault import ROLE_ID, SECRET_ID, fake_vault
from tests.servers.github import github_server
from tests.servers.https import private_key_pem
from tests.servers.kubernetes import ACCOUNT, NAMESPACE, cluster
from tests.servers.oauth import CLIENT, CLIENT_SECRET, oauth_server
from tests.servers.postgres import ADMIN_PASSWORD, postgres_server
from tests.servers.programs import folder as programs_folder
from tests.servers.programs import keeper
from tests.servers.sts import KEY_ID, ROLE, SECRET, sts_server
from tests.unit.broker.faults import FaultyClient, Plan
from tests.unit.credentials.exec.test_provider import END, MAKE
from tests.unit.credentials.postgres.stage import Stage as PostgresStage
from tests.unit.credentials.postgres.stage import client as postgres_client
from tests.unit.credentials.vault.stage import Stage as VaultStage
from tests.unit.credentials.vault.stage import stage as vault_stage


@dataclass(frozen=True)
class Subject:
    """A provider with settings that work.

    alive: what a run could use now, by name. steps: at least so many does a whole life take. end:
    for what must be shown to be ended, so that after a crash we can't: the test ends it by name.
    """

    provider: str
    settings: Mapping[str, str]
    shape: Shape
    systemd: Mapping[str, Secret]
    alive: Callable[[], list[str]]
    steps: int
    state: Path
    end: Callable[[str], object] | None = None
    programs: Programs | None = None

    def client(self, plan: Plan) -> FaultyClient:
        """Return a client as it is after a start: nothing in memory."""
        client = FaultyClient(
            self.systemd, {}, "tests", remembered=self.state, programs=self.programs
        )
        client.plan = plan
        return client

    def target(self) -> TargetPolicy:
        """Return a target whose credential it makes."""
        source = CredentialSource(
            self.provider, tuple(sorted(self.settings.items())), self.shape, "", ""
        )
        return TargetPolicy(
            TargetName("it"), "http", "it", 443, UpstreamTls.VERIFY_FULL, "", "it", 443,
            allow_cleartext=False, durability=Durability.DISK, credential=source,
        )  # fmt: skip


@contextlib.contextmanager
def _static(folder: Path) -> Iterator[Subject]:
    """It is there before and after: nothing is made."""
    secret = folder / "token"
    secret.touch(0o600)
    secret.write_text("c4n4ry\n")
    settings = {"file": str(secret)}
    yield Subject("static", settings, Shape.BEARER, {}, list, 1, folder)


@contextlib.contextmanager
def _fake_vault(folder: Path) -> Iterator[Subject]:
    """A scripted one; tokens that were never kept are over soon, and count as nothing."""
    with fake_vault() as fake:
        settings = {
            "address": fake.url, "auth": "approle", "role_id": ROLE_ID, "token_role": "loopwarden",
            "systemd_credential": "secret", "path": "database/creds/orders",
        }  # fmt: skip
        systemd = {"secret": Secret(SECRET_ID.encode())}
        yield Subject(
            "vault", settings, Shape.PASSWORD, systemd, lambda: sorted(fake.users), 8, folder
        )


@contextlib.contextmanager
def _certified(folder: Path) -> Iterator[Subject]:
    """The scripted vault's CA: what it issued lives until it is revoked by its number."""
    with fake_vault() as fake:
        settings = {
            "address": fake.url, "auth": "approle", "role_id": ROLE_ID, "token_role": "loopwarden",
            "systemd_credential": "secret", "path": "pki/issue/client", "common_name": "orders",
        }  # fmt: skip
        systemd = {"secret": Secret(SECRET_ID.encode())}

        def alive() -> list[str]:
            return [serial for serial, revoked in fake.certificates.items() if not revoked]

        def end(serial: str) -> None:
            fake.certificates[serial] = 1

        shape = Shape.CLIENT_CERTIFICATE
        yield Subject("vault", settings, shape, systemd, alive, 6, folder, end)


@contextlib.contextmanager
def _refreshed(folder: Path) -> Iterator[Subject]:
    """Access tokens by a refresh token that the server replaces each time.

    One that a crash lost is put in its place by the operator: here before each life.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    with oauth_server(folder, key.public_key()) as server:
        assert server.https is not None
        file = folder / "refresh"
        file.touch(0o600)
        settings = {
            "token_url": f"{server.url}/token", "revoke_url": f"{server.url}/revoke",
            "introspect_url": f"{server.url}/introspect", "ca": server.https.ca,
            "grant": "refresh_token", "client_auth": "basic", "client_id": CLIENT,
            "systemd_credential": "secret", "refresh_token_file": str(file),
        }  # fmt: skip

        def alive() -> list[str]:
            file.write_text(server.refresh)
            return [token for token in server.tokens if server.alive(token)]

        alive()
        systemd = {"secret": Secret(CLIENT_SECRET.encode())}
        yield Subject(
            "oauth2", settings, Shape.BEARER, systemd, alive, 3, folder, server.tokens.pop
        )


@contextlib.contextmanager
def _vault(folder: Path) -> Iterator[Subject]:
    """A real OpenBao with a real PostgreSQL: alive are its users there, and tokens past birth."""
    with vault_stage() as made:
        secret = {"secret": Secret(made.vault.secret_id().encode())}
        settings = made.settings()
        yield Subject("vault", settings, Shape.PASSWORD, secret, lambda: _of_vault(made), 8, folder)


def _of_vault(made: VaultStage) -> list[str]:
    tokens = [str(child["accessor"]) for child in made.vault.children() if child["ttl"] > 60]
    return made.users() + tokens


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[Subject]:
    """A real server: alive are the roles that we made."""
    with postgres_server(Authority()) as server:
        made = PostgresStage(server, postgres_client())
        settings = made.settings(grants=["SELECT ON ALL TABLES IN SCHEMA public"])
        systemd = {"admin": Secret(ADMIN_PASSWORD.encode())}
        yield Subject("postgres", settings, Shape.PASSWORD, systemd, made.roles, 14, folder)


@contextlib.contextmanager
def _oauth2(folder: Path) -> Iterator[Subject]:
    """Alive are its tokens."""
    key = ec.generate_private_key(ec.SECP256R1())
    with oauth_server(folder, key.public_key()) as server:
        assert server.https is not None
        settings = {
            "token_url": f"{server.url}/token", "revoke_url": f"{server.url}/revoke",
            "introspect_url": f"{server.url}/introspect", "ca": server.https.ca,
            "grant": "client_credentials", "client_auth": "basic", "client_id": CLIENT,
            "systemd_credential": "secret",
        }  # fmt: skip

        def alive() -> list[str]:
            return [token for token in server.tokens if server.alive(token)]

        systemd = {"secret": Secret(CLIENT_SECRET.encode())}
        yield Subject(
            "oauth2", settings, Shape.BEARER, systemd, alive, 3, folder, server.tokens.pop
        )


@contextlib.contextmanager
def _github_app(folder: Path) -> Iterator[Subject]:
    """Alive are its tokens."""
    key = rsa.generate_private_key(65_537, 2_048)
    with github_server(folder, key.public_key()) as github:
        assert github.https is not None
        settings = {
            "app_id": "12345", "installation_id": "77", "systemd_credential": "key",
            "api_url": github.https.url, "ca": github.https.ca, "repositories": '["orders"]',
            "permissions": '["contents:read"]',
        }  # fmt: skip
        systemd = {"key": Secret(private_key_pem(key).encode())}

        def alive() -> list[str]:
            return [token for token in github.tokens if github.alive(token)]

        yield Subject(
            "github_app", settings, Shape.BEARER, systemd, alive, 3, folder, github.tokens.pop
        )


@contextlib.contextmanager
def _kubernetes(folder: Path) -> Iterator[Subject]:
    """Alive are its tokens, and Secrets that were made for one."""
    with cluster(folder) as found:
        assert found.https is not None
        settings = {
            "server": found.https.url, "ca": found.https.ca, "systemd_credential": "own",
            "namespace": NAMESPACE, "service_account": ACCOUNT,
        }  # fmt: skip
        systemd = {"own": Secret(found.own.encode())}

        def alive() -> list[str]:
            return [*found.secrets, *filter(found.alive, found.tokens)]

        yield Subject("kubernetes", settings, Shape.BEARER, systemd, alive, 4, folder)


@contextlib.contextmanager
def _exec(folder: Path) -> Iterator[Subject]:
    """Two programs: alive is each lease that has a file."""
    with programs_folder() as place, keeper() as programs:
        make = MAKE.format(scratch=place.scratch, canary="c4n4ry", pem="x")
        settings = {
            "command": json.dumps([place.program("make", make)]),
            "revoke_command": json.dumps([place.program("end", END.format(scratch=place.scratch))]),
        }

        def alive() -> list[str]:
            return [path.name for path in place.scratch.iterdir() if path.name != "ended"]

        yield Subject("exec", settings, Shape.BEARER, {}, alive, 2, folder, programs=programs)


@contextlib.contextmanager
def _aws_sts(folder: Path) -> Iterator[Subject]:
    """Alive are the keys that it gave: nobody can end them before their time."""
    with sts_server(folder) as sts:
        assert sts.https is not None
        settings = {
            "role_arn": ROLE, "region": "eu-west-1", "endpoint": sts.https.url,
            "ca": sts.https.ca, "access_key_id": KEY_ID, "systemd_credential": "key",
        }  # fmt: skip
        systemd = {"key": Secret(SECRET.encode())}

        def alive() -> list[str]:
            return [key for key in sts.known if key != KEY_ID]

        yield Subject("aws_sts", settings, Shape.AWS_KEYS, systemd, alive, 1, folder, sts.known.pop)


OTHER_WAYS = ("vault, certificate", "oauth2, refreshed")  # of providers that are here already
SUBJECTS: Mapping[str, Callable[[Path], contextlib.AbstractContextManager[Subject]]] = {
    "static": _static,
    "vault, scripted": _fake_vault,
    "vault": _vault,
    "postgres": _postgres,
    "oauth2": _oauth2,
    "github_app": _github_app,
    "aws_sts": _aws_sts,
    "kubernetes": _kubernetes,
    "exec": _exec,
    "vault, certificate": _certified,
    "oauth2, refreshed": _refreshed,
}


@contextlib.contextmanager
def subject(name: str) -> Iterator[Subject]:
    """Run a provider's backend."""
    with tempfile.TemporaryDirectory(prefix="lw-faults-") as folder:
        Path(folder).chmod(0o755)
        with SUBJECTS[name](Path(folder)) as made:
            yield made
