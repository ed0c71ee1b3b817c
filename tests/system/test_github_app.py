"""Provider github_app through the whole product: a loop lists what its token is for."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.servers.github import GitHub, github_server
from tests.servers.https import Where, private_key_pem
from tests.servers.netns import far_host
from tests.servers.protected import ask
from tests.system.conftest import Stage
from tests.system.provider_site import Job, Servers, folder, nobody_was_told, wait_for, worker

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(900)]
NAME = "api.github.test.internal"
LIST = f"https://{NAME}/installation/repositories"
POLICY = """
targets:
  github:
    protocol: http
    address: https://api.github.test.internal
    ca: {ca}
    dial: "{dial}"
    durability: DURABILITY
    credential:
      provider: github_app
      shape: bearer
      app_id: 12345
      installation_id: 77
      file: {key}
      api_url: {url}
      ca: {ca}
      repositories: [orders]
      permissions: ["contents:read"]
loops:
  job:
    who: [{{user: nobody}}]
    rules:
      - {{target: github, allow: {{method: GET, path: /installation/**}}}}
"""


@dataclass(frozen=True)
class World:
    """Everything that runs."""

    whole: Stage
    github: GitHub
    key_pem: str

    def status_of(self, token: str) -> int:
        """Ask GitHub with a token that somebody kept."""
        assert self.github.https is not None
        headers = {"Authorization": f"Bearer {token}"}
        return ask(self.github.https, "GET", "/installation/repositories", headers)[0]

    def deletions(self) -> list[str]:
        """Return the tokens that were asked to end themselves."""
        assert self.github.https is not None
        return [
            asked.headers["authorization"].removeprefix("Bearer ")
            for asked in self.github.https.asked
            if (asked.method, asked.path) == ("DELETE", "/installation/token")
        ]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """GitHub's API on a far host, and a worker host."""
    key = rsa.generate_private_key(65_537, 2_048)
    with ExitStack() as opened:
        enter = opened.enter_context
        far, place = enter(far_host()), enter(folder("github"))
        where = Where(far.address4, 443, far.inside, (NAME,))
        github = enter(github_server(place, key.public_key(), where))
        assert github.https is not None
        text = POLICY.format(
            ca=github.https.ca, dial=f"{far.address4}:443", url=github.https.url, key=place / "key"
        )
        servers, pem = Servers(far, place, text), private_key_pem(key)
        servers.secret("key", pem)
        yield World(enter(worker(servers)), github, pem)


def test_an_installation_token_lives_with_its_run(world: World) -> None:
    """Narrowed, one for many calls; after the run GitHub answers 401 to it, and was asked to."""
    job = Job(world.whole, "job")
    try:
        assert not world.github.tokens
        for _ in range(3):
            status, body = job.call(LIST)
            assert status == "200", body
            assert json.loads(body)["total_count"] == 1
        [token] = world.github.tokens
        assert world.github.last["repositories"] == ["orders"]
        assert world.github.last["permissions"] == {"metadata": "read", "contents": "read"}
        assert world.status_of(token) == 200
        [lease] = job.leases()
        assert (lease["state"], lease["revocable"]) == ("active", True)
        assert world.deletions() == []
    finally:
        seen = job.end()
    [lease] = job.over()
    assert lease["state"] == "revoked"
    assert world.deletions() == [token]
    assert world.status_of(token) == 401
    assert "LOOPWARDEN_RUN=" in seen
    body_of_key = world.key_pem.splitlines()[3]
    for secret in (token, body_of_key):
        assert secret not in seen
    nobody_was_told(world.whole, token, body_of_key)


def test_the_loop_can_neither_end_nor_widen_it(world: World) -> None:
    """Other paths of the API are denied here, with a token that could do more there."""
    job = Job(world.whole, "job")
    try:
        assert job.call(LIST)[0] == "200"
        status, body = job.call(f"https://{NAME}/repos/octo/orders/contents/README.md")
        assert status == "403"
        assert "policy" in body
    finally:
        job.end()
    job.over()


def test_github_is_away_at_the_end_of_a_run(world: World) -> None:
    """It is shown as not revoked yet, tried again, and revoked when GitHub is back."""
    assert world.github.https is not None
    job = Job(world.whole, "job")
    try:
        before = set(world.github.tokens)
        assert job.call(LIST)[0] == "200"
        [token] = set(world.github.tokens) - before
        world.github.https.faults = {"/installation/token": ["503"] * 1000}  # until it is seen
    finally:
        job.end()
    wait_for(
        lambda: [each["state"] for each in job.leases()] == ["revoke-retry"], "it is not tried"
    )
    assert world.status_of(token) == 200
    world.github.https.faults = {}
    wait_for(lambda: not job.leases(), "it is not revoked", 120)
    assert world.status_of(token) == 401
