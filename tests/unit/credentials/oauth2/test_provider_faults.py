"""Servers that refuse, are away, are slow or talk nonsense; refresh tokens that change."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent.credentials.oauth2 import SPEC
from agent.credentials.spec import HTTP_S, REMEMBERED_MAX, CredentialError
from agent.model.ids import LeaseId
from tests.servers.https import Asked
from tests.servers.oauth import CANARY, oauth_server
from tests.unit.broker.harness import run_async
from tests.unit.broker.passing import Deadlines
from tests.unit.credentials.oauth2.stage import NOW_MS, Stage, wanted


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    key = ec.generate_private_key(ec.SECP256R1())
    with oauth_server(tmp_path, key.public_key()) as server:
        yield Stage(tmp_path, server, key)


@pytest.mark.parametrize(
    ("fault", "transient", "nothing_made", "said"),
    [
        ("html", False, False, "without JSON"),
        ("nonsense", False, False, "without JSON"),
        ("500", True, False, "answers 500"),
        ("503", True, False, "temporarily_unavailable"),
        ("302", False, True, "no redirection"),
        ("cut", True, False, "HTTP"),
        ("lost", True, False, "HTTP"),
    ],
)
def test_faults_of_the_token_endpoint(
    stage: Stage, fault: str, transient: bool, nothing_made: bool, said: str
) -> None:
    """What is certain is said, and nothing more; a server's Retry-After is kept."""
    assert stage.server.https is not None
    stage.server.https.faults = {"/token": [fault]}
    with pytest.raises(CredentialError, match=said) as caught:
        stage.issue(stage.settings())
    assert (caught.value.transient, caught.value.nothing_made) == (transient, nothing_made)
    assert caught.value.retry_after_s == (7 if fault == "503" else 0)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("fault", ["500", "503", "302", "cut"])
@pytest.mark.parametrize("path", ["/revoke", "/introspect"])
def test_faults_at_the_end(stage: Stage, fault: str, path: str) -> None:
    """What is not revoked is not let go of; the next attempt ends it."""
    issued = stage.issue(stage.settings())
    asked, provider = wanted(stage.settings()), SPEC.make()
    assert stage.server.https is not None
    stage.server.https.faults = {path: [fault]}

    async def end() -> bool:
        await provider.revoke(asked, issued.handle, stage.client)
        return await provider.confirm(asked, issued.handle, stage.client)  # type: ignore[attr-defined,no-any-return]

    with pytest.raises(CredentialError) as caught:
        run_async(end())
    assert not caught.value.ends_ms
    assert run_async(end())
    assert not stage.alive(issued)


def test_a_silent_server_is_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HTTP client's own bound ends the wait; something may have been made."""
    deadlines = Deadlines()

    class Noticed(list[Asked]):
        def append(self, asked: Asked) -> None:
            super().append(asked)
            deadlines.pass_soon()

    assert stage.server.https is not None
    stage.server.https.faults = {"/token": ["silent"]}
    stage.server.https.asked = Noticed()
    monkeypatch.setattr(asyncio, "timeout", deadlines.timeout)
    with pytest.raises(CredentialError, match=f"within {HTTP_S:.3g} s") as caught:
        stage.issue(stage.settings())
    assert not caught.value.nothing_made
    assert deadlines.asked_s == [HTTP_S]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scope": '["forbidden"]'}, "invalid_scope"),
        ({"client_id": "nobody"}, "invalid_client"),
    ],
)
def test_refusals_name_the_cause(stage: Stage, change: dict[str, str], said: str) -> None:
    """By the server's code where it is one of the RFC's; nothing was made."""
    with pytest.raises(CredentialError, match=said) as caught:
        stage.issue(stage.settings() | change)
    assert caught.value.nothing_made
    assert not caught.value.transient


def test_a_refused_subject_token(stage: Stage) -> None:
    """invalid_grant: trying again does not help."""
    stage.write("subject", "stale")
    with pytest.raises(CredentialError, match="invalid_grant") as caught:
        stage.issue(stage.settings("token_exchange"))
    assert caught.value.nothing_made


def test_a_signing_key_must_be_one(stage: Stage) -> None:
    """The error has nothing of the file."""
    settings = stage.settings("jwt_bearer", "none") | {"file": stage.write("bad", CANARY)}
    with pytest.raises(CredentialError, match="no PEM") as caught:
        stage.issue(settings)
    assert CANARY not in str(caught.value)
    settings = stage.settings("jwt_bearer", "none") | {"algorithm": "RS256"}
    with pytest.raises(CredentialError, match="RS256"):
        stage.issue(settings)


def test_rotated_refresh_tokens_outlive_a_restart(stage: Stage) -> None:
    """Ten leases over ten restarts: no refresh token is used twice."""
    settings = stage.settings("refresh_token")
    for _ in range(10):
        stage.issue(settings)
        stage.client = stage.fresh()
    assert not stage.server.reused
    [kept] = stage.state.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_refresh_tokens_are_used_one_at_a_time(stage: Stage) -> None:
    """Twenty leases at once, each with a token of its own, and no refresh token twice."""
    settings = stage.settings("refresh_token")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                asked = wanted(settings, LeaseId(f"01JD00000000000000000001{number:02}"))
                group.create_task(SPEC.make().issue(asked, stage.client, NOW_MS))

    run_async(main())
    assert len(stage.server.tokens) == 20
    assert not stage.server.reused


def test_a_new_file_of_the_operator_counts(stage: Stage) -> None:
    """After a rotated token was lost (a crash at the wrong moment) a new file repairs it."""
    settings = stage.settings("refresh_token")
    stage.issue(settings)
    stage.server.refresh = "elsewhere"
    with pytest.raises(CredentialError, match="invalid_grant"):
        stage.issue(settings)
    stage.write("refresh", "elsewhere\n")
    stage.issue(settings)
    stage.issue(settings)


def test_a_full_disk_loses_no_refresh_token(stage: Stage) -> None:
    """It fails, the token is revoked, and what the server gave is used next, from memory."""
    settings = stage.settings("refresh_token")
    stage.state.mkdir()
    for number in range(REMEMBERED_MAX):
        (stage.state / str(number)).touch()
    with pytest.raises(CredentialError):
        stage.issue(settings)
    run_async(SPEC.make().revoke(wanted(settings), "until 1", stage.client))
    assert not any(map(stage.server.alive, stage.server.tokens))
    (stage.state / "0").unlink()
    stage.issue(settings)
    assert not stage.server.reused


def test_an_unknown_lease_has_no_token(stage: Stage) -> None:
    """With the handle "" nothing was asked for."""
    asked = replace(wanted(stage.settings()), lease_id=LeaseId("01JD0000000000000000000099"))
    run_async(SPEC.make().revoke(asked, "", stage.client))
    assert stage.server.asked == []
