"""The kubernetes provider against an API server that checks what tokens are bound to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.broker.sources import BrokerClient
from agent.credentials.kubernetes import SPEC
from agent.credentials.spec import CredentialError, Issued, Wanted
from agent.model.credential import Shape, secrets_of
from tests.conformance.provider_suite import NOW_MS, Case, check_all, wanted
from tests.servers.kubernetes import (
    ACCOUNT,
    CANARY,
    NAMESPACE,
    REVIEW,
    SECRETS,
    TOKEN,
    Cluster,
    cluster,
)
from tests.unit.broker.harness import run_async

NAME = "loopwarden-01jd0000000000000000000000"


class Stage:
    """A cluster, and a target of it."""

    def __init__(self, folder: Path, found: Cluster) -> None:
        self.folder, self.cluster = folder, found
        self.client = BrokerClient({}, {})
        assert found.https is not None
        self.https = found.https
        self.good = {
            "server": self.https.url,
            "ca": self.https.ca,
            "file": self.write("own", found.own + "\n"),
            "namespace": NAMESPACE,
            "service_account": ACCOUNT,
            "audiences": '["https://reports.example"]',
        }

    def write(self, name: str, text: str) -> str:
        """Write a secret file."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        return str(path)

    @property
    def case(self) -> Case:
        """For the suite."""
        bad: tuple[dict[str, str], ...] = (
            {},
            self.good | {"file": self.write("wrong", CANARY)},
            self.good | {"file": "/nonexistent"},
            self.good | {"namespace": "kube-system"},
            self.good | {"namespace": "../x"},
            self.good | {"service_account": "admin"},
            self.good | {"server": "https://127.0.0.1:1"},
            {key: value for key, value in self.good.items() if key != "ca"},
        )
        return Case(SPEC, self.client, self.good, bad, CANARY.encode(), self.alive)

    def asked(self, ttl_s: int = 0) -> Wanted:
        """Return a request."""
        return replace(wanted(self.case, Shape.BEARER, self.good), ttl_s=ttl_s)

    def issue(self, ttl_s: int = 0) -> Issued:
        """Issue one."""
        return run_async(SPEC.make().issue(self.asked(ttl_s), self.client, NOW_MS))

    def end(self) -> bool:
        """Revoke and confirm, by another instance that knows the lease's id alone."""
        provider, client = SPEC.make(), BrokerClient({}, {})

        async def end() -> bool:
            await provider.revoke(self.asked(), "", client)
            return await provider.confirm(self.asked(), "", client)  # type: ignore[attr-defined,no-any-return]

        return run_async(end())

    def alive(self, issued: Issued) -> bool:
        """Whether the cluster takes it."""
        [secret] = secrets_of(issued.credential)
        return self.cluster.alive(secret.reveal().decode())


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    with cluster(tmp_path) as found:
        yield Stage(tmp_path, found)


def test_the_suite(stage: Stage) -> None:
    """It passes what every provider must, and leaves no Secret."""
    run_async(check_all(stage.case))
    for leftover in stage.cluster.secrets:  # of refusals: nobody took it back here
        assert leftover.startswith("loopwarden-")


@pytest.mark.parametrize(("ttl_s", "asked_s"), [(0, 3_600), (599, 600), (601, 601), (7_200, 7_200)])
def test_how_long_it_lives(stage: Stage, ttl_s: int, asked_s: int) -> None:
    """Ten minutes at least, as Kubernetes wants it; the lease ends with the target's ttl."""
    issued = stage.issue(ttl_s)
    assert abs(issued.expires_ms - NOW_MS - 1000 * (ttl_s or asked_s)) < 30_000
    [bound] = stage.cluster.tokens.values()
    assert bound.audiences == ("https://reports.example",)
    [content] = [each.body for each in stage.https.asked if each.path == TOKEN]
    assert f'"expirationSeconds": {asked_s}'.encode() in content
    assert issued.provider_id == f"{NAMESPACE}/{NAME}"


def test_a_crash_loses_nothing(stage: Stage) -> None:
    """At each step: the Secret's answer lost, the token's answer lost, and after both."""
    for path in (SECRETS, TOKEN):
        stage.https.faults = {path: ["lost"]}
        with pytest.raises(CredentialError) as caught:
            stage.issue()
        assert not caught.value.nothing_made
        assert NAME in stage.cluster.secrets
        assert stage.end()
        assert not stage.cluster.secrets
    issued = stage.issue()
    assert stage.end()
    assert not any(map(stage.cluster.alive, stage.cluster.tokens))
    assert not stage.alive(issued)


def test_the_handle_is_written_down_first(stage: Stage) -> None:
    """Nothing is made when it can't be."""

    def refuse(_: str) -> None:
        raise CredentialError("the lease journal cannot be written")

    asked = replace(stage.asked(), keep=refuse)
    with pytest.raises(CredentialError):
        run_async(SPEC.make().issue(asked, stage.client, NOW_MS))
    assert not stage.cluster.secrets


def test_an_earlier_attempt_is_replaced(stage: Stage) -> None:
    """The token of an attempt before dies with its Secret."""
    first = stage.issue()
    second = stage.issue()
    assert not stage.alive(first)
    assert stage.alive(second)


def test_a_token_that_is_bound_to_nothing_is_refused(stage: Stage) -> None:
    """It could not be revoked."""
    stage.cluster.binds = False
    with pytest.raises(CredentialError, match="bound to nothing"):
        stage.issue()


def test_our_own_token_is_read_anew(stage: Stage) -> None:
    """A projected token changes while a lease lives."""
    issued = stage.issue()
    stage.cluster.own = "own-token-2"
    with pytest.raises(CredentialError, match="our own token"):
        stage.end()
    stage.write("own", "own-token-2")
    assert stage.end()
    assert not stage.alive(issued)


@pytest.mark.parametrize(
    "what", [("create", "secrets"), ("delete", "secrets"), ("create", "token")]
)
def test_missing_rights_are_named(stage: Stage, what: tuple[str, str]) -> None:
    """By the probe, before a run needs them."""
    stage.cluster.denied = {what}
    with pytest.raises(CredentialError, match=f"may not {what[0]} .*{what[1]}"):
        run_async(SPEC.make().probe(stage.asked(), stage.client))


@pytest.mark.parametrize("fault", ["html", "nonsense", "500", "503", "302", "cut"])
@pytest.mark.parametrize("path", [SECRETS, TOKEN, REVIEW, f"{SECRETS}/{NAME}"])
def test_faults(stage: Stage, fault: str, path: str) -> None:
    """Each is an error, or a 200 that is not believed; what was made is ended."""
    if path == f"{SECRETS}/{NAME}":
        issued = stage.issue()
        stage.https.faults = {path: [fault]}
        if fault in {"html", "nonsense"}:  # a 200: the dry run says what is so
            assert not stage.end()
        else:
            with pytest.raises(CredentialError):
                stage.end()
        assert stage.end()
        assert not stage.alive(issued)
        return
    stage.https.faults = {path: [fault]}

    async def call() -> None:
        if path == REVIEW:
            await SPEC.make().probe(stage.asked(), stage.client)
        else:
            await SPEC.make().issue(stage.asked(), stage.client, NOW_MS)

    with pytest.raises(CredentialError) as caught:
        run_async(call())
    assert CANARY not in str(caught.value)
    assert "words of the server" not in str(caught.value)
    assert stage.end()


def test_a_404_of_somebody_else_says_nothing(stage: Stage) -> None:
    """Only the API server's own Status does: a proxy before it does not end a lease."""
    issued = stage.issue()
    stage.https.faults = {f"{SECRETS}/{NAME}": ["404"]}
    with pytest.raises(CredentialError, match="without JSON"):
        stage.end()
    assert stage.alive(issued)
    assert stage.end()
