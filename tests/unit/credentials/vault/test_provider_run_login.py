"""Runs that log in at a real OpenBao by themselves, with the token that let them start."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agent.credentials.spec import CredentialError, HttpRequest, RunToken, Wanted
from agent.credentials.vault import SPEC
from agent.credentials.vault.run_login import FIRST_S_MAX
from agent.model.secret import Secret
from agent.runtime import clock
from tests.servers.openbao_setup import OWN
from tests.unit.broker.passing import be_patient
from tests.unit.credentials.moments import lasts
from tests.unit.credentials.vault.stage import Stage, login, psql, stage

pytestmark = pytest.mark.servers
SUBJECT = "repo:acme/orders:ref:refs/heads/main"
ROLE = {
    "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["loopwarden"],
    "bound_claims": {"repository": "acme/orders"}, "token_policies": ["read"],
    "token_no_default_policy": True, "token_ttl": "60s", "token_max_ttl": "2h",
}  # fmt: skip
BIND = "\n".join(line for line in OWN.splitlines() if "token/create" not in line)


@pytest.fixture(scope="module", name="running")
def _running() -> Iterator[Stage]:
    with stage() as made:
        made.bao.write("auth/jwt/role/runs", ROLE)
        made.bao.write("sys/policies/acl/bind", {"policy": BIND})
        made.bao.write("auth/approle/role/loopwarden", {"token_policies": ["bind"]})
        yield made


@pytest.fixture(name="shared")
def _shared(running: Stage) -> Iterator[Stage]:
    """Our own login may make no token at all; no test leaves one of a run."""
    made = running.with_secret(running.vault.secret_id())
    yield made
    assert running.users() == []
    assert running.vault.leases() == []
    assert _tokens(made) == []


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


def _tokens(made: Stage) -> list[dict[str, Any]]:
    """Return what the server knows of tokens that runs logged in for."""
    found = []
    for accessor in made.bao.listed("auth/token/accessors"):
        body = {"accessor": accessor}
        status, answer = made.bao.call("POST", "auth/token/lookup-accessor", body)
        if status == 200 and answer["data"]["path"] == "auth/jwt/login":
            found.append(answer["data"])
    return found


def _wanted(made: Stage, role: str = "runs", left_ms: int = 60_000, **claims: object) -> Wanted:
    said = {"aud": "loopwarden", "sub": SUBJECT, "repository": "acme/orders", **claims}
    token = Secret(made.vault.jwt(**said).encode())
    wanted = made.wanted(token_role=None, policies=None, run_role=role)
    return replace(wanted, run_token=RunToken(SUBJECT, token, clock.unix_ms() + left_ms))


def test_the_server_knows_whose_run_it_is(shared: Stage) -> None:
    """An orphan of the role's policies with the run's subject; renewed and ended by our login."""
    wanted = replace(_wanted(shared), ttl_s=900)
    issued = asyncio.run(shared.issue(wanted))
    [token] = _tokens(shared)
    assert token["orphan"] is True
    assert token["policies"] == ["read"]
    assert token["display_name"] == f"jwt-{SUBJECT}"
    assert 60 < token["ttl"] <= 900
    assert psql(shared, issued, "SELECT 1") == "1"
    assert shared.users() == [login(issued)[0]]
    later = replace(wanted, run_token=None)  # gone with the broker that had it, say
    now_ms = clock.unix_ms()
    renewed = asyncio.run(shared.renew(later, issued.handle))
    assert lasts(renewed.expires_ms, 900, now_ms)
    asyncio.run(shared.revoke(later, issued.handle))
    assert asyncio.run(shared.gone(later, issued.handle))
    assert shared.client.count("auth/jwt/login") == 1
    assert shared.client.count("token/create") == 0


@pytest.mark.parametrize(
    "claims",
    [{"repository": "acme/other"}, {"aud": "another"}, {"exp": 1_700_000_000, "iat": 1, "nbf": 1}],
)
def test_a_token_that_the_role_does_not_take(shared: Stage, claims: dict[str, object]) -> None:
    """Nothing was made, and the answer's words hold nothing of the token."""
    wanted = _wanted(shared, "runs", 60_000, **claims)
    with pytest.raises(
        CredentialError, match=r"refuses to log the run in at auth/jwt/login \(400"
    ) as caught:
        asyncio.run(shared.issue(wanted))
    assert caught.value.nothing_made
    assert wanted.run_token is not None
    assert wanted.run_token.token is not None
    assert wanted.run_token.token.reveal().decode() not in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (None, "started without an OIDC token"),
        (RunToken(SUBJECT), "broker was started anew"),
        (RunToken(SUBJECT, Secret(b"x"), 1), "expired"),
    ],
)
def test_without_a_token_nothing_is_asked(shared: Stage, shown: RunToken | None, said: str) -> None:
    """Refused here, in words for the operator."""
    with pytest.raises(CredentialError, match=said) as caught:
        asyncio.run(shared.issue(replace(_wanted(shared), run_token=shown)))
    assert caught.value.nothing_made
    assert shared.client.asked == []
    assert shared.kept == []


@pytest.mark.parametrize(("ttl_s", "good"), [(FIRST_S_MAX, True), (FIRST_S_MAX + 1, False)])
def test_a_first_life_is_bounded(shared: Stage, ttl_s: int, good: bool) -> None:
    """At the limit it is taken; one second more is refused, and what was made is ended."""
    shared.bao.write("auth/jwt/role/long", {**ROLE, "token_ttl": ttl_s})
    wanted = _wanted(shared, "long")
    if good:
        issued = asyncio.run(shared.issue(wanted))
        asyncio.run(shared.revoke(wanted, issued.handle))
        return
    with pytest.raises(CredentialError, match="at most 900 s: set token_type=service") as caught:
        asyncio.run(shared.issue(wanted))
    assert caught.value.nothing_made
    [handle] = shared.kept
    assert asyncio.run(shared.gone(wanted, handle))


def test_a_batch_token_is_refused(shared: Stage) -> None:
    """Nobody could end it: it has no accessor; the server ends it with its own life."""
    shared.bao.write("auth/jwt/role/batch", {**ROLE, "token_type": "batch"})
    with pytest.raises(CredentialError, match="without a token that it can end"):
        asyncio.run(shared.issue(_wanted(shared, "batch")))
    assert shared.kept == []


class Killed(BaseException):
    """The broker is gone."""


def test_killed_after_the_login(shared: Stage) -> None:
    """What was kept is enough to end it, without the run's token."""
    wanted = _wanted(shared)

    def kill(request: HttpRequest) -> None:
        if "renew-accessor" in request.url:
            raise Killed

    shared.client.before = kill
    with pytest.raises(Killed):
        asyncio.run(shared.issue(wanted))
    assert len(_tokens(shared)) == 1
    fresh = shared.with_secret(shared.vault.secret_id())
    [handle] = set(shared.kept)
    asyncio.run(fresh.revoke(replace(wanted, run_token=None), handle))
    assert asyncio.run(fresh.gone(wanted, handle))


def test_probe_has_no_run(shared: Stage) -> None:
    """It asks what our own login may do: ending and renewing, not making."""
    wanted = replace(_wanted(shared), run_token=None)
    asyncio.run(SPEC.make().probe(wanted, shared.client))
    assert shared.client.count("jwt/login") == 0
