"""The github_app provider against answers as GitHub gives them, over real HTTPS."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from agent.broker.sources import BrokerClient
from agent.credentials.github_app import SPEC
from agent.credentials.spec import CredentialError, Issued, Wanted
from agent.model.credential import Basic, Shape, secrets_of
from agent.policy.declared import LIST_MAX
from tests.conformance.provider_suite import NOW_MS, Case, check_all, wanted
from tests.servers.github import CANARY, GitHub, github_server
from tests.servers.https import private_key_pem
from tests.unit.broker.harness import run_async

HOUR_MS = 3_600_000


class Stage:
    """An installation, and a target of it."""

    def __init__(self, folder: Path, github: GitHub) -> None:
        self.folder, self.github = folder, github
        self.client = BrokerClient({}, {})
        assert github.https is not None
        self.https = github.https
        self.good = {
            "app_id": "12345",
            "installation_id": "77",
            "file": str(folder / "key.pem"),
            "api_url": self.https.url,
            "ca": self.https.ca,
            "repositories": '["orders", "reports"]',
            "permissions": '["contents:read"]',
        }

    @property
    def case(self) -> Case:
        """For the suite."""
        wrong = self.folder / "wrong.pem"
        wrong.touch(0o600)
        private_key_pem(rsa.generate_private_key(65_537, 2_048), wrong)
        text = self.folder / "text"
        text.touch(0o600)
        text.write_text(CANARY)
        bad: tuple[dict[str, str], ...] = (
            {},
            self.good | {"file": str(wrong)},
            self.good | {"file": str(text)},
            self.good | {"file": "/nonexistent"},
            self.good | {"app_id": "54321"},
            self.good | {"installation_id": "78"},
            self.good | {"permissions": '["contents:admin"]'},
            self.good | {"permissions": '["actions:read"]'},
            self.good | {"api_url": "https://127.0.0.1:1"},
            {key: value for key, value in self.good.items() if key != "ca"},
        )
        return Case(SPEC, self.client, self.good, bad, CANARY.encode(), self.alive)

    def asked(self, **changes: str) -> Wanted:
        """Return a request."""
        return wanted(self.case, Shape.BEARER, self.good | changes)

    def issue(self, **changes: str) -> Issued:
        """Issue one."""
        return run_async(SPEC.make().issue(self.asked(**changes), self.client, NOW_MS))

    def alive(self, issued: Issued) -> bool:
        """Whether GitHub takes it."""
        [secret] = secrets_of(issued.credential)
        return self.github.alive(secret.reveal().decode())


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    key = rsa.generate_private_key(65_537, 2_048)
    private_key_pem(key, tmp_path / "key.pem")
    with github_server(tmp_path, key.public_key()) as github:
        yield Stage(tmp_path, github)


def test_the_suite(stage: Stage) -> None:
    """It passes what every provider must."""
    run_async(check_all(stage.case))


def test_it_is_narrowed(stage: Stage) -> None:
    """To what the target lists; as basic, with the user that git wants."""
    issued = stage.issue()
    assert stage.github.last == {
        "permissions": {"metadata": "read", "contents": "read"},
        "repositories": ["orders", "reports"],
    }
    assert abs(issued.expires_ms - NOW_MS - HOUR_MS) < 30_000
    asked = replace(stage.asked(), shape=Shape.BASIC)
    basic = run_async(SPEC.make().issue(asked, stage.client, NOW_MS)).credential
    assert isinstance(basic, Basic)
    assert basic.user == "x-access-token"


def test_as_many_repositories_as_can_be_listed(stage: Stage) -> None:
    """The answer has 6 KB for each of LIST_MAX, and is read."""
    stage.github.repositories = [f"r{number}" for number in range(LIST_MAX)]
    stage.issue(repositories=json.dumps(stage.github.repositories))


def test_a_server_that_narrows_nothing_is_refused(stage: Stage) -> None:
    """The token is revoked, not used."""
    stage.github.narrows = False
    for changes in ({}, {"repositories": "[]"}):
        with pytest.raises(CredentialError, match="more") as caught:
            stage.issue(**changes)
        assert not caught.value.nothing_made
        run_async(SPEC.make().revoke(stage.asked(), "until 1", stage.client))
    assert not stage.github.tokens


def test_after_a_crash_it_is_told_to_expire(stage: Stage) -> None:
    """Within the hour; so is one whose answer was lost."""
    issued = stage.issue()
    stage.client = BrokerClient({}, {})
    with pytest.raises(CredentialError, match="lost") as caught:
        run_async(SPEC.make().revoke(stage.asked(), issued.handle, stage.client))
    assert caught.value.ends_ms == issued.expires_ms
    handles: list[str] = []
    asked = replace(stage.asked(), keep=handles.append)
    stage.https.faults = {"/app/installations/77/access_tokens": ["lost"]}
    with pytest.raises(CredentialError) as caught:
        run_async(SPEC.make().issue(asked, stage.client, NOW_MS))
    assert not caught.value.nothing_made
    [handle] = handles
    with pytest.raises(CredentialError) as caught:
        run_async(SPEC.make().revoke(asked, handle, stage.client))
    assert caught.value.ends_ms == 1_731_945_562_112 + HOUR_MS + 60_000


@pytest.mark.parametrize("fault", ["html", "nonsense", "500", "503", "302", "cut", "lost"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_faults(stage: Stage, fault: str, method: str) -> None:
    """What is wrong with an answer is said; what is not ended is asked again, and ends."""
    paths = {
        "POST": "/app/installations/77/access_tokens",
        "DELETE": "/installation/token",
        "GET": "/installation/repositories",
    }
    provider, asked = SPEC.make(), stage.asked()
    if method == "POST":
        stage.https.faults = {paths[method]: [fault]}
        with pytest.raises(CredentialError) as caught:
            stage.issue()
        assert caught.value.nothing_made == (fault == "302")
        return
    issued = stage.issue()
    stage.https.faults = {paths[method]: [fault]}

    async def end() -> bool:
        await provider.revoke(asked, issued.handle, stage.client)
        return await provider.confirm(asked, issued.handle, stage.client)  # type: ignore[attr-defined,no-any-return]

    if method == "GET" and fault in {"html", "nonsense"}:  # a 200 says that it is alive
        assert not run_async(end())
    else:
        with pytest.raises(CredentialError):
            run_async(end())
    assert run_async(end())
    assert not stage.alive(issued)


def test_clocks_and_limits(stage: Stage) -> None:
    """A clock that is off is named; a suspended installation and a rate limit are told apart."""
    stage.github.skew_s = -120
    with pytest.raises(CredentialError, match="clock") as caught:
        stage.issue()
    assert caught.value.nothing_made
    stage.github.skew_s = -50  # GitHub is behind by less than iat's minute
    stage.issue()
    stage.github.suspended = True
    with pytest.raises(CredentialError, match="suspended"):
        stage.issue()
    with pytest.raises(CredentialError, match="suspended"):
        run_async(SPEC.make().probe(stage.asked(), stage.client))
