"""The vault provider at a real OpenBao: the conformance suite, each engine, each login."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from agent.credentials.spec import CredentialError, Issued, Wanted
from agent.credentials.vault import SPEC
from agent.credentials.vault.child import BIRTH_S
from agent.credentials.vault.login import log_in
from agent.credentials.vault.settings import read_settings
from agent.model.credential import Basic, Bearer, ClientCertificate, Password, Shape, SshCertificate
from agent.runtime import clock
from tests.conformance.provider_suite import Case, check_all
from tests.servers.openbao import openbao
from tests.servers.openbao_setup import PASSWORD_CANARY, STATIC_CANARY, canaries, set_up, store
from tests.servers.postgres import Postgres
from tests.unit.broker.passing import be_patient
from tests.unit.credentials.moments import lasts
from tests.unit.credentials.vault.stage import CountingClient, Stage, login, psql, stage

pytestmark = pytest.mark.servers
KV_SHAPES = (Shape.BEARER, Shape.HEADER, Shape.QUERY_PARAMETER)


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    """Servers for tests that leave them as they were."""
    with stage() as made:
        yield made


@pytest.fixture
def shared(running: Stage) -> Stage:
    """The servers, and a client of this test's own."""
    return running.with_secret(running.vault.secret_id())


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_left(running: Stage) -> Iterator[None]:
    """No test leaves a user, a lease or a run's token."""
    yield
    assert running.users() == []
    assert running.vault.leases() == []
    assert running.vault.children() == []


def alive(made: Stage, issued: Issued) -> bool:
    """Whether the database lets the user in; what is no user lives anyway."""
    if isinstance(issued.credential, Password | Basic):
        return psql(made, issued, "SELECT 1") == "1"
    return True


def refusal(made: Stage, wanted: Wanted) -> str:
    """Return why a credential can't be made; probe says no too."""
    with pytest.raises(CredentialError) as caught:
        asyncio.run(made.issue(wanted))
    assert caught.value.nothing_made
    with pytest.raises(CredentialError):
        asyncio.run(SPEC.make().probe(wanted, made.client))
    assert not any(canary in str(caught.value) for canary in canaries())
    return str(caught.value)


def test_the_suite(shared: Stage) -> None:
    """It passes what every provider must; being alive is logging in at the database."""
    bad: tuple[dict[str, str], ...] = (
        {},
        shared.settings(unknown="x"),
        shared.settings(path="database/creds/../config"),
        shared.settings(path="elsewhere/creds/orders"),
        shared.settings(token_role="nobodys"),
        shared.settings(policies=["own"]),
        shared.settings(role_id="nobody"),
        shared.settings(systemd_credential="none"),
        shared.settings(address="http://127.0.0.1:1"),
        shared.settings(address="http://vault.internal:8200"),
        shared.settings(mount="elsewhere"),
    )
    stored = shared.settings(path="secret/data/api")
    certificate = shared.settings(path="pki/issue/client", common_name="orders.app")
    case = Case(
        SPEC,
        shared.client,
        shared.settings(),
        bad,
        PASSWORD_CANARY.encode(),
        lambda issued: alive(shared, issued),
        {
            **dict.fromkeys(KV_SHAPES, stored),
            Shape.CLIENT_CERTIFICATE: certificate,
            Shape.SSH_CERTIFICATE: shared.settings(path="ssh/sign/client"),
        },
        {
            **dict.fromkeys(KV_SHAPES, STATIC_CANARY.encode()),
            **dict.fromkeys((Shape.CLIENT_CERTIFICATE, Shape.SSH_CERTIFICATE), b"PRIVATE KEY-----"),
        },
    )
    asyncio.run(check_all(case))
    assert shared.alarms == []


def test_a_run_has_a_token_of_its_own(shared: Stage) -> None:
    """An orphan with the one policy, named after run and lease, and short until it is kept."""
    asked_ms = clock.unix_ms()
    wanted = replace(shared.wanted(), ttl_s=900, max_ttl_s=1800)
    lives: list[int] = []

    def keep(handle: str) -> None:
        [child] = shared.vault.children()
        assert json.loads(handle)["accessor"] == child["accessor"]
        lives.append(child["ttl"])

    now_ms = clock.unix_ms()
    issued = asyncio.run(shared.issue(replace(wanted, keep=keep)))
    assert lives[0] <= BIRTH_S
    assert lives[1] > BIRTH_S
    [child] = shared.vault.children()
    assert child["orphan"] is True
    assert child["policies"] == ["read"]
    assert child["explicit_max_ttl"] == 1800
    assert child["meta"] == {
        "loop": "nightly", "run": wanted.run_id, "lease": wanted.lease_id,
        "target": "orders-db", "host": shared.client.host,
    }  # fmt: skip
    assert issued.provider_id.startswith("database/creds/orders/")
    assert lasts(issued.expires_ms, 900, now_ms)
    assert lasts(issued.max_ms, 1_800, asked_ms)
    assert issued.renewable
    assert issued.revocable
    user, password = login(issued)
    assert shared.users() == [user]
    assert not any(secret in issued.handle for secret in (password, *canaries()))
    asyncio.run(shared.revoke(wanted, issued.handle))


def test_one_login_for_all(shared: Stage) -> None:
    """Fifty at once log in once, with one token each, and none stays."""

    async def run() -> None:
        requests = [shared.wanted() for _ in range(50)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(shared.issue(wanted)) for wanted in requests]
        assert len(shared.users()) == len(shared.vault.children()) == 50
        async with asyncio.TaskGroup() as group:
            for wanted, task in zip(requests, tasks, strict=True):
                group.create_task(shared.revoke(wanted, task.result().handle))

    asyncio.run(run())
    assert shared.client.count("/login") == 1
    assert shared.client.count("token/create/") == 50


def test_renewal_is_what_the_server_says(shared: Stage) -> None:
    """It counts from now, never past the server's longest or the target's."""
    shared.vault.tune("60s", "100s", "short")
    now_ms = clock.unix_ms()
    wanted = replace(shared.wanted(path="database/creds/short"), ttl_s=90)

    async def run() -> None:
        issued = await shared.issue(wanted)
        assert lasts(issued.expires_ms, 60, now_ms)
        renewed = await shared.renew(wanted, issued.handle)
        assert lasts(renewed.expires_ms, 90, now_ms)
        longer = await shared.renew(replace(wanted, ttl_s=500), issued.handle)
        assert lasts(longer.expires_ms, 100, now_ms)
        bounded = await shared.renew(replace(wanted, max_ttl_s=30), issued.handle)
        assert bounded.expires_ms <= bounded.max_ms + 1_000
        assert lasts(bounded.expires_ms, 30, now_ms)
        await shared.revoke(wanted, issued.handle)
        with pytest.raises(CredentialError) as caught:
            await shared.renew(wanted, issued.handle)
        assert caught.value.gone

    asyncio.run(run())


def test_a_certificate(shared: Stage) -> None:
    """A chain and its key; revoked by its serial number; over by the server's clock."""
    wanted = replace(shared.certificate(), ttl_s=600)
    now_ms = clock.unix_ms()
    issued = asyncio.run(shared.issue(wanted))
    assert isinstance(issued.credential, ClientCertificate)
    assert issued.credential.user == "orders.app"
    chain = x509.load_pem_x509_certificates(issued.credential.chain_pem.encode())
    assert len(chain) == 2
    ends_ms = chain[0].not_valid_after_utc.timestamp() * 1000
    assert lasts(ends_ms, 600, now_ms)
    assert lasts(issued.expires_ms, 600, now_ms)
    assert not issued.renewable
    assert not asyncio.run(shared.gone(wanted, issued.handle))
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))
    serial = json.loads(issued.handle)["serial"]
    assert shared.bao.read(f"pki/cert/{serial}")["data"]["revocation_time"] > 0
    over = json.loads(issued.handle) | {"ends_s": 1}
    assert asyncio.run(shared.gone(wanted, json.dumps(over)))


def test_a_certificate_that_nobody_can_revoke(shared: Stage) -> None:
    """A role that stores none: a person is told at once, with what to change; leased ones work."""
    wanted = shared.certificate("unstored")
    issued = asyncio.run(shared.issue(wanted))
    with pytest.raises(CredentialError, match="no_store=true") as caught:
        asyncio.run(shared.revoke(wanted, issued.handle))
    assert caught.value.permanent
    assert not asyncio.run(shared.gone(wanted, issued.handle))
    leased = shared.certificate("leased")
    issued = asyncio.run(shared.issue(leased))
    assert issued.provider_id.startswith("pki/issue/leased/")
    asyncio.run(shared.revoke(leased, issued.handle))
    assert asyncio.run(shared.gone(leased, issued.handle))


def test_an_ssh_certificate(shared: Stage, tmp_path: Path) -> None:
    """For one user and the target's ttl, by OpenSSH's own reading; nobody can revoke it."""
    wanted = replace(shared.wanted(Shape.SSH_CERTIFICATE, path="ssh/sign/client"), ttl_s=900)
    wanted = replace(wanted, user="deploy")
    now_ms = clock.unix_ms()
    issued = asyncio.run(shared.issue(wanted))
    assert isinstance(issued.credential, SshCertificate)
    assert issued.credential.user == "deploy"
    assert lasts(issued.expires_ms, 900, now_ms)
    assert (issued.renewable, issued.revocable) == (False, False)
    assert shared.vault.children() == []
    file = tmp_path / "key-cert.pub"
    file.write_text(issued.credential.certificate)
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(file)], capture_output=True, text=True, check=True
    ).stdout
    assert "user certificate" in shown
    assert "Principals: \n                deploy\n" in shown
    asyncio.run(SPEC.make().probe(wanted, shared.client))
    with pytest.raises(CredentialError, match="root") as caught:
        asyncio.run(shared.issue(replace(wanted, user="root")))
    assert caught.value.nothing_made
    with pytest.raises(CredentialError, match="can't be revoked") as caught:
        asyncio.run(shared.revoke(wanted, issued.handle))
    assert caught.value.ends_ms == issued.expires_ms
    assert not asyncio.run(shared.gone(wanted, issued.handle))


def test_a_stored_secret(shared: Stage) -> None:
    """KV is as static as a file: our own ttl, never shown as revoked; its token is gone at once."""
    wanted = shared.wanted(Shape.BEARER, path="secret/data/api")
    issued = asyncio.run(shared.issue(wanted))
    assert (issued.revocable, issued.renewable, issued.expires_ms) == (False, False, 0)
    assert shared.vault.children() == []
    now_ms = clock.unix_ms()
    bounded = asyncio.run(shared.issue(replace(wanted, ttl_s=60)))
    assert lasts(bounded.expires_ms, 60, now_ms)
    with pytest.raises(CredentialError, match="not renewable"):
        asyncio.run(shared.renew(wanted, ""))
    assert "has no field 'key'; it has token" in error_of(shared, replace(
        wanted, settings=shared.settings(path="secret/data/api", field="key")))  # fmt: skip
    assert "is there such" in error_of(
        shared, replace(wanted, settings=shared.settings(path="secret/data/none"))
    )


def error_of(made: Stage, wanted: Wanted) -> str:
    """Return why it can't be issued."""
    with pytest.raises(CredentialError) as caught:
        asyncio.run(made.issue(wanted))
    return str(caught.value)


def test_a_refused_engine_leaves_no_token(shared: Stage) -> None:
    """A role that is not there: said so, with certainty that nothing was made."""
    text = refusal(shared, shared.wanted(path="pki/certs"))
    assert "do the token role's policies allow it?" in text
    wanted = shared.wanted(path="database/creds/none")
    with pytest.raises(CredentialError, match="unknown role: none") as caught:
        asyncio.run(shared.issue(wanted))
    assert caught.value.nothing_made


def test_a_token_role_without_orphans_is_refused(shared: Stage) -> None:
    """Its tokens would die with our login."""
    shared.bao.write("auth/token/roles/loopwarden", {"orphan": False})
    try:
        assert "set orphan=true" in refusal(shared, shared.wanted())
    finally:
        shared.bao.write("auth/token/roles/loopwarden", {"orphan": True})


def test_a_token_role_with_a_period_is_refused(shared: Stage) -> None:
    """Its tokens live as long as it says, not as we do; none is left."""
    role = "auth/token/roles/loopwarden"
    shared.bao.write(role, {"token_period": "24h"})
    try:
        assert "set token_period=0" in refusal(shared, shared.wanted())
    finally:
        shared.bao.write(role, {"token_period": "0"})
    assert shared.vault.children() == []


def test_what_our_login_lacks_is_named(shared: Stage) -> None:
    """Before the first run, by probe."""
    shared.bao.write(
        "sys/policies/acl/little",
        {"policy": 'path "auth/token/create/loopwarden" { capabilities = ["update"] }'},
    )
    shared.bao.write("auth/approle/role/weak", {"token_policies": ["little"]})
    role_id = shared.bao.read("auth/approle/role/weak/role-id")["data"]["role_id"]
    answer = shared.bao.write("auth/approle/role/weak/secret-id", {})
    weak = shared.with_secret(answer["data"]["secret_id"])
    with pytest.raises(CredentialError, match=r"may not update .*sys/leases/revoke"):
        asyncio.run(SPEC.make().probe(weak.wanted(role_id=role_id), weak.client))


def test_login_by_jwt_and_by_an_agents_token(shared: Stage) -> None:
    """The JWT is read and sent anew for each login; the agent's token is used as it is."""
    jwt = shared.with_secret(shared.vault.jwt())
    by_jwt = jwt.wanted(auth="jwt", role="loopwarden", role_id=None)
    answer = shared.bao.write(
        "auth/approle/login",
        {"role_id": shared.vault.role_id, "secret_id": shared.vault.secret_id()},
    )
    agent = shared.with_secret(answer["auth"]["client_token"])
    by_agent = agent.wanted(auth="token", role_id=None)
    for made, wanted in ((jwt, by_jwt), (agent, by_agent)):
        issued = asyncio.run(made.issue(wanted))
        assert psql(made, issued, "SELECT 1") == "1"
        asyncio.run(made.revoke(wanted, issued.handle))
    assert jwt.client.count("auth/jwt/login") == 1
    assert agent.client.count("login") == 0
    late = shared.with_secret(shared.vault.jwt(exp=1_700_000_000, nbf=1, iat=1))
    with pytest.raises(CredentialError, match="refuses to log us in") as caught:
        asyncio.run(late.issue(by_jwt))
    assert late.client.count("token/create") == 0
    assert caught.value.nothing_made


def test_a_wrapped_secret_id_is_unwrapped_once(shared: Stage) -> None:
    """For many runs and logins; another who unwraps it too is a security event, and so told."""
    wrapped = shared.with_secret(shared.vault.secret_id("60s"))

    async def run() -> None:
        for _ in range(2):
            wanted = wrapped.wanted(wrapped="true")
            issued = await wrapped.issue(wanted)
            await wrapped.revoke(wanted, issued.handle)
            settings = read_settings(wanted.settings)
            old = await log_in(settings, wrapped.client)
            wrapped.client.forget(settings.login_key, old)

    asyncio.run(run())
    assert wrapped.client.count("wrapping/unwrap") == 1
    assert wrapped.client.count("approle/login") == 2
    assert wrapped.alarms == []
    thief = wrapped.with_secret("")
    thief.client._systemd = wrapped.client._systemd
    with pytest.raises(CredentialError, match="see the alarm"):
        asyncio.run(thief.issue(thief.wanted(wrapped="true")))
    assert len(thief.alarms) == 1
    assert "another unwrapped its SecretID" in thief.alarms[0]


def test_a_wrapping_token_of_something_else(shared: Stage) -> None:
    """Somebody who puts another in its place is told of, before anything of it is used."""
    status, answer = shared.bao.call("GET", "secret/data/api", wrap_ttl="60s")
    assert status == 200
    swapped = shared.with_secret(answer["wrap_info"]["token"])
    with pytest.raises(CredentialError, match="is not of a SecretID"):
        asyncio.run(swapped.issue(swapped.wanted(wrapped="true")))
    assert "put another in its place" in swapped.alarms[0]
    assert swapped.client.count("login") == 0


def test_a_namespace(shared: Stage) -> None:
    """All of it, the login too, is in the one that the target names."""
    shared.bao.write("sys/namespaces/team", {})
    inside = set_up(replace(shared.bao, namespace="team"))
    store(inside.bao)
    made = replace(shared.with_secret(inside.secret_id()), vault=inside)
    wanted = made.wanted(Shape.BEARER, namespace="team", path="secret/data/api")
    issued = asyncio.run(made.issue(wanted))
    assert isinstance(issued.credential, Bearer)
    outside = made.wanted(Shape.BEARER, path="secret/data/api")
    assert "refuses to log us in" in error_of(made, outside)


def test_over_tls() -> None:
    """With the server's own CA; with the system's roots it is not the server, and gets nothing."""
    with openbao(tls=True) as bao:
        vault = set_up(bao)
        store(bao)
        made = Stage(
            vault, Postgres("", "", 0, bao.folder, bao.folder, None), CountingClient({}, [])
        )
        made = made.with_secret(vault.secret_id())
        wanted = made.wanted(Shape.BEARER, path="secret/data/api")
        asyncio.run(made.issue(wanted))
        foreign = made.with_secret(vault.secret_id())
        rooted = foreign.wanted(Shape.BEARER, path="secret/data/api", ca=None)
        assert "is not 127.0.0.1" in error_of(foreign, rooted)


def test_no_secret_is_in_the_servers_log(shared: Stage) -> None:
    """Nor in ours; the server logs at level debug."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert PASSWORD_CANARY not in shared.bao.log()
    assert not any(canary in text for canary in canaries() for text in shared.kept)
