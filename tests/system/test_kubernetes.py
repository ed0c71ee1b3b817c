"""Provider kubernetes through the whole product: an API that asks the cluster about each token."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.servers.certificates import Authority
from tests.servers.https import Where
from tests.servers.kubernetes import ACCOUNT, NAMESPACE, Cluster, cluster
from tests.servers.netns import far_host
from tests.servers.protected import Protected, ask, by_token_review, protected_api
from tests.system.conftest import Stage
from tests.system.provider_site import Job, Servers, folder, nobody_was_told, wait_for, worker

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(900)]
NAME, AUDIENCE = "reports.test.internal", "https://reports.example"
REPORT = f"https://{NAME}/v1/report"
POLICY = """
targets:
  reports:
    protocol: http
    address: https://reports.test.internal
    ca: {ca}
    dial: "{dial}"
    durability: DURABILITY
    credential:
      provider: kubernetes
      shape: bearer
      server: {url}
      ca: {server_ca}
      file: {own}
      namespace: {namespace}
      service_account: {account}
      audiences: https://reports.example
loops:
  job:
    who: [{{user: nobody}}]
    rules:
      - {{target: reports, allow: {{method: GET, path: /v1/**}}}}
"""


@dataclass(frozen=True)
class World:
    """Everything that runs."""

    whole: Stage
    cluster: Cluster
    api: Protected

    def refused_directly(self, token: str) -> bool:
        """Whether the API refuses a token that somebody kept."""
        assert self.api.https is not None
        headers = {"Authorization": f"Bearer {token}"}
        return ask(self.api.https, "GET", "/v1/x", headers)[0] == 401


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A cluster and an API on a far host, and a worker host."""
    with ExitStack() as opened:
        enter = opened.enter_context
        far, place, api_place = enter(far_host()), enter(folder("cluster")), enter(folder("api"))
        found = enter(cluster(place, Where(far.address4, 0, far.inside)))
        assert found.https is not None
        public = Where(far.address4, 443, far.inside, (NAME,))
        check = by_token_review(found.https, AUDIENCE)
        api = enter(protected_api(check, api_place, public, Authority("api")))
        assert api.https is not None
        text = POLICY.format(
            ca=api.https.ca, dial=f"{far.address4}:443", url=found.https.url, own=place / "own",
            server_ca=found.https.ca, namespace=NAMESPACE, account=ACCOUNT,
        )  # fmt: skip
        servers = Servers(far, place, text)
        servers.secret("own", found.own)
        yield World(enter(worker(servers)), found, api)


def test_a_service_accounts_token_lives_with_its_run(world: World) -> None:
    """Bound to a Secret of its lease; when that is deleted, TokenReview refuses the token."""
    world.api.served.clear()
    job = Job(world.whole, "job")
    try:
        assert not world.cluster.secrets
        for _ in range(3):
            status, body = job.call(REPORT)
            assert status == "200", body
            assert json.loads(body)["for"] == f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
        [(token, bound)] = world.cluster.tokens.items()
        assert world.api.served == [(token, 200)] * 3
        assert bound.audiences == (AUDIENCE,)
        assert 1_800 < bound.end_s - time.time() <= 3_600
        [lease] = job.leases()
        assert (lease["state"], lease["revocable"]) == ("active", True)
        assert list(world.cluster.secrets) == [f"loopwarden-{lease['lease_id'].lower()}"]
    finally:
        seen = job.end()
    [lease] = job.over()
    assert lease["state"] == "revoked"
    assert not world.cluster.secrets
    assert not world.cluster.alive(token)
    assert world.refused_directly(token)
    assert "LOOPWARDEN_RUN=" in seen
    for secret in (token, world.cluster.own):
        assert secret not in seen
    nobody_was_told(world.whole, token, world.cluster.own)


def test_a_killed_broker_forgets_no_token(world: World) -> None:
    """The Secret's name follows from the lease: the next broker deletes it, and makes another."""
    job = Job(world.whole, "job")
    try:
        assert job.call(REPORT)[0] == "200"
        [first] = world.cluster.secrets
        token = next(text for text, bound in world.cluster.tokens.items() if bound.name == first)
        world.whole.host.kill_role("broker")
        wait_for(lambda: first not in world.cluster.secrets, "the Secret is left", 120)
        assert world.refused_directly(token)
        assert job.call(REPORT)[0] == "200"
        assert len(world.cluster.secrets) == 1
    finally:
        job.end()
    assert {each["state"] for each in job.over()} == {"revoked"}
    assert not world.cluster.secrets


def test_the_right_to_delete_is_gone_at_the_end_of_a_run(world: World) -> None:
    """What can't be deleted is never shown as revoked; a person is told, and it is gone later."""
    job = Job(world.whole, "job")
    try:
        assert job.call(REPORT)[0] == "200"
        [name] = world.cluster.secrets
        world.cluster.denied = {("delete", "secrets")}
    finally:
        job.end()
    ended = {"active", "draining", "revoking", "revoked"}
    wait_for(
        lambda: job.leases() and not {each["state"] for each in job.leases()} & ended,
        "it is not shown",
    )
    [lease] = job.leases()
    assert name in world.cluster.secrets
    assert lease["state"] in {"revoke-retry", "quarantined"}
    world.cluster.denied = set()
    world.whole.host.cli("revoke", lease["lease_id"])
    wait_for(lambda: not world.cluster.secrets, "the Secret is left", 120)
    assert job.over()[0]["state"] == "revoked"
