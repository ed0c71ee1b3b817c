"""Provider oauth2 through the whole product: an API that asks the server about each token."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers.certificates import Authority
from tests.servers.https import Where
from tests.servers.issuer import SUBJECT, Issuer, running_issuer
from tests.servers.netns import far_host
from tests.servers.oauth import CLIENT, CLIENT_SECRET, EXCHANGE, OAuth, oauth_server
from tests.servers.protected import Protected, ask, by_introspection, protected_api
from tests.system.conftest import Stage
from tests.system.provider_site import (
    GONE_WITHIN_S,
    Job,
    Servers,
    folder,
    nobody_was_told,
    readable,
    worker,
)

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(300)]
ROBOT, MINE = "robot.test.internal", "mine.test.internal"
POLICY = """
targets:
  robot:  # as the client that we are
    protocol: http
    address: https://robot.test.internal
    ca: {ca}
    dial: "{dial}"
    durability: DURABILITY
    credential:
      provider: oauth2
      shape: bearer
      token_url: {url}/token
      revoke_url: {url}/revoke
      introspect_url: {url}/introspect
      ca: {server_ca}
      client_id: {client}
      file: {secret}
      scope: [read]
  mine:  # as whoever started the run
    protocol: http
    address: https://mine.test.internal
    ca: {ca}
    dial: "{dial}"
    durability: DURABILITY
    credential:
      provider: oauth2
      shape: bearer
      token_url: {url}/token
      revoke_url: {url}/revoke
      introspect_url: {url}/introspect
      ca: {server_ca}
      client_id: {client}
      file: {secret}
      grant: token_exchange
      subject_token: run
      scope: [read]
issuers:
  ci: {{url: "{issuer}", ca: "{issuer_ca}"}}
loops:
  job:
    who: [{{issuer: ci, claims: {{repository: acme/orders}}}}]
    rules:
      - {{target: robot, allow: {{method: GET, path: /v1/**}}}}
      - {{target: mine, allow: {{method: GET, path: /v1/**}}}}
"""


@dataclass(frozen=True)
class World:
    """Everything that runs."""

    whole: Stage
    servers: Servers
    oauth: OAuth
    api: Protected
    issuer: Issuer

    def token_file(self, token: str) -> Path:
        """Write a token where the caller of `loopwarden run` has it."""
        return readable(self.servers.folder / "run-token", token)

    def refused_directly(self, token: str) -> bool:
        """Whether the API refuses a token that somebody kept."""
        assert self.api.https is not None
        headers = {"Authorization": f"Bearer {token}"}
        return ask(self.api.https, "GET", "/v1/x", headers)[0] == 401


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """An authorisation server and an API on a far host, an issuer, and a worker host."""
    key = ec.generate_private_key(ec.SECP256R1())
    with ExitStack() as opened:
        enter = opened.enter_context
        far, issuer_folder = enter(far_host()), enter(folder("issuer"))
        server_folder, api_folder = enter(folder("oauth")), enter(folder("api"))
        there = Where(far.address4, 0, far.inside)
        oauth = enter(oauth_server(server_folder, key.public_key(), there))
        issuer = enter(running_issuer(issuer_folder, "ES256"))
        oauth.trust(issuer)
        assert oauth.https is not None
        check = by_introspection(oauth.https)
        public = Where(far.address4, 443, far.inside, (ROBOT, MINE))
        api = enter(protected_api(check, api_folder, public, Authority("api")))
        assert api.https is not None
        servers = Servers(
            far,
            server_folder,
            POLICY.format(
                ca=api.https.ca, dial=f"{far.address4}:443", url=oauth.url, client=CLIENT,
                server_ca=oauth.https.ca, secret=server_folder / "secret", issuer=issuer.url,
                issuer_ca=issuer.ca,
            ),
        )  # fmt: skip
        servers.secret("secret", CLIENT_SECRET)
        yield World(enter(worker(servers)), servers, oauth, api, issuer)


def test_a_clients_token_lives_with_its_run(world: World) -> None:
    """One token for many calls; at the end it is revoked, asked about, and refused by the API."""
    world.api.served.clear()
    before = set(world.oauth.tokens)
    job = Job(world.whole, "job", world.token_file(world.issuer.mint()))
    try:
        assert set(world.oauth.tokens) == before
        for number in range(3):
            status, body = job.call(f"https://{ROBOT}/v1/{number}")
            assert status == "200", body
            assert json.loads(body)["for"] == CLIENT
        [token] = set(world.oauth.tokens) - before
        assert world.oauth.tokens[token][1] == {"scope": "read"}
        assert world.api.served == [(token, 200)] * 3
        [lease] = job.leases()
        assert (lease["target"], lease["state"], lease["revocable"]) == ("robot", "active", True)
        world.oauth.asked.clear()
    finally:
        seen = job.end()
    [lease] = job.over()
    assert lease["state"] == "revoked"
    assert [path for path, _ in world.oauth.asked] == ["/revoke", "/introspect"]
    assert not world.oauth.alive(token)
    assert world.refused_directly(token)
    assert "LOOPWARDEN_RUN=" in seen
    assert token not in seen  # though the API sent it back
    assert CLIENT_SECRET not in seen
    nobody_was_told(world.whole, token, CLIENT_SECRET)


def test_a_runs_token_is_exchanged_for_one_of_its_own(world: World) -> None:
    """RFC 8693: the API sees who triggered the run; neither token is in the loop or a record."""
    world.api.served.clear()
    world.oauth.exchanged.clear()
    mine = world.issuer.mint()
    job = Job(world.whole, "job", world.token_file(mine))
    try:
        status, body = job.call(f"https://{MINE}/v1/mine")
        assert status == "200", body
        assert json.loads(body)["for"] == SUBJECT
        assert world.oauth.exchanged == [SUBJECT]
        assert world.oauth.asked[-2:] == [("/token", EXCHANGE), ("/introspect", "")]
        [(token, _)] = world.api.served
        assert token != mine
    finally:
        seen = job.end()
    [lease] = job.over()
    assert (lease["target"], lease["state"]) == ("mine", "revoked")
    assert not world.oauth.alive(token)
    assert world.refused_directly(token)
    for secret in (token, mine, mine.rpartition(".")[2]):
        assert secret not in seen
    nobody_was_told(world.whole, token, mine.rpartition(".")[2], CLIENT_SECRET)


def test_an_exchange_after_the_tokens_end_is_refused(world: World) -> None:
    """What is there goes on; a new one is refused by us, with what to do, and nothing is asked."""
    end_s = int(time.time()) + 4
    job = Job(world.whole, "job", world.token_file(world.issuer.mint(exp=end_s)))
    try:
        assert job.call(f"https://{ROBOT}/v1/early")[0] == "200"
        while time.time() < end_s + 0.1:  # the token's own clock: there is nothing to wait for
            time.sleep(0.1)
        before = len(world.oauth.exchanged)
        status, body = job.call(f"https://{MINE}/v1/late")
        assert status == "503", body
        assert "the run's OIDC token expired" in body
        assert "start the run again" in body
        assert len(world.oauth.exchanged) == before
        assert job.call(f"https://{ROBOT}/v1/late")[0] == "200"
    finally:
        job.end()
    assert sorted(each["target"] for each in job.over()) == ["mine", "robot"]


def test_after_a_restart_the_runs_token_is_gone(world: World) -> None:
    """The run goes on with what needs no token of its own; an exchange is refused clearly."""
    world.oauth.expires_in = 15  # what a killed broker held can't be revoked: it expires
    job = Job(world.whole, "job", world.token_file(world.issuer.mint()))
    try:
        assert job.call(f"https://{MINE}/v1/before")[0] == "200"
        world.whole.host.kill_role("broker")
        deadline = time.monotonic() + GONE_WITHIN_S
        while True:
            status, body = job.call(f"https://{MINE}/v1/after")
            if "OIDC token" in body or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert status == "503", body
        assert "kept in memory only and the broker was started anew" in body
        assert job.call(f"https://{ROBOT}/v1/after")[0] == "200"
    finally:
        world.oauth.expires_in = 3_600
        job.end()
    states = {each["state"] for each in job.over() if each["target"] == "mine"}
    assert "expired" in states
    assert not any(map(world.oauth.alive, world.oauth.tokens))


def test_a_run_without_a_token_gets_none(world: World) -> None:
    """Root may start the loop without one; what needs it is refused, and the server not asked."""
    job = Job(world.whole, "job")
    try:
        before = len(world.oauth.asked)
        status, body = job.call(f"https://{MINE}/v1/none")
        assert status == "503", body
        assert "started without an OIDC token" in body
        assert "--oidc-token-file" in body
        assert len(world.oauth.asked) == before
    finally:
        job.end()
    job.over()
