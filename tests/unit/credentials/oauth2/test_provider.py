"""The oauth2 provider against a real HTTPS server: the suite for each grant, and its own rules."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent.credentials.oauth2 import SPEC
from agent.credentials.oauth2.settings import LONGEST_S
from agent.credentials.spec import CredentialError
from agent.model.ids import LeaseId
from tests.conformance.provider_suite import Case, check_all
from tests.servers.oauth import CANARY, oauth_server
from tests.unit.broker.harness import run_async
from tests.unit.credentials.oauth2.stage import LEASE, NOW_MS, Stage, token_of, wanted

OTHER = LeaseId("01JD0000000000000000000008")


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    key = ec.generate_private_key(ec.SECP256R1())
    with oauth_server(tmp_path, key.public_key()) as server:
        yield Stage(tmp_path, server, key)


@pytest.mark.parametrize(
    ("grant", "auth"),
    [
        ("client_credentials", "basic"),
        ("client_credentials", "post"),
        ("client_credentials", "private_key_jwt"),
        ("refresh_token", "basic"),
        ("token_exchange", "basic"),
        ("jwt_bearer", "none"),
        ("jwt_bearer", "private_key_jwt"),
    ],
)
def test_the_suite(stage: Stage, grant: str, auth: str) -> None:
    """Every grant and every way of saying who we are passes what every provider must."""
    good = stage.settings(grant, auth)
    bad: list[dict[str, str]] = [
        {},
        good | {"unknown": "x"},
        good | {"token_url": f"{stage.server.url}/none"},
        good | {"token_url": "https://127.0.0.1:1/token"},
        {key: value for key, value in good.items() if key != "ca"},
        good | {"file": "/nonexistent"},
        good | {"file": stage.write("wrong", CANARY)},
    ]
    if auth == "none":  # there is no secret, and no PEM is an error elsewhere
        del bad[-1]
    run_async(check_all(Case(SPEC, stage.client, good, tuple(bad), CANARY.encode(), stage.alive)))
    assert not stage.server.reused


def test_what_is_asked_for(stage: Stage) -> None:
    """Scope, audience and resource go as they are written."""
    settings = stage.settings() | {
        "scope": '["read", "write"]',
        "audience": '["https://a", "b"]',
        "resource": '["https://c/d"]',
    }
    token = token_of(stage.issue(settings))
    assert stage.server.tokens[token][1] == {
        "scope": "read write",
        "audience": "https://a b",
        "resource": "https://c/d",
    }
    assert stage.server.https is not None
    assert token not in repr(stage.issue(settings))


@pytest.mark.parametrize(
    ("said", "life_s"),
    [(60, 60), ("60", 60), (60.0, 60), (None, LONGEST_S), (10**12, (1 << 48) // 1000)],
)
def test_its_end_is_the_servers(stage: Stage, said: object, life_s: int) -> None:
    """Numbers as servers write them; one that says nothing is believed for a day."""
    stage.server.expires_in = said
    issued = stage.issue(stage.settings())
    assert abs(issued.expires_ms - min(NOW_MS + 1000 * life_s, 1 << 48)) < 2
    assert issued.handle == f"until {issued.expires_ms}"


@pytest.mark.parametrize("said", [0, -1, True, "soon", 1.5, [], {}])
def test_an_impossible_end_is_refused_and_taken_back(stage: Stage, said: object) -> None:
    """The token exists, so the error does not say that nothing was made; revoke ends it."""
    stage.server.expires_in = said
    with pytest.raises(CredentialError) as caught:
        stage.issue(stage.settings())
    assert not caught.value.nothing_made
    run_async(SPEC.make().revoke(wanted(stage.settings()), "until 1", stage.client))
    assert not any(map(stage.server.alive, stage.server.tokens))


def test_a_token_of_another_type_is_refused(stage: Stage) -> None:
    """RFC 6749 section 7.1; what was given is taken back."""
    stage.server.token_type = "mac"
    with pytest.raises(CredentialError, match="no bearer"):
        stage.issue(stage.settings())
    run_async(SPEC.make().revoke(wanted(stage.settings()), "until 1", stage.client))
    assert not any(map(stage.server.alive, stage.server.tokens))


def test_after_a_crash_it_is_told_to_expire(stage: Stage) -> None:
    """The token was in memory: revoke says until when it lives, and nothing else."""
    issued = stage.issue(stage.settings())
    stage.client = stage.fresh()
    with pytest.raises(CredentialError, match="lost") as caught:
        run_async(SPEC.make().revoke(wanted(stage.settings()), issued.handle, stage.client))
    assert caught.value.ends_ms == NOW_MS + 3_600_000
    assert stage.alive(issued)


def test_a_lost_answer_may_live_for_the_longest_time(stage: Stage) -> None:
    """The handle is written down before the token is asked for; nothing is made without it."""
    handles: list[str] = []
    settings = stage.settings() | {"longest": "7200"}
    asked = wanted(settings)
    object.__setattr__(asked, "keep", handles.append)
    assert stage.server.https is not None
    stage.server.https.faults = {"/token": ["lost"]}
    with pytest.raises(CredentialError) as caught:
        run_async(SPEC.make().issue(asked, stage.client, NOW_MS))
    assert not caught.value.nothing_made
    assert any(map(stage.server.alive, stage.server.tokens))
    [handle] = handles
    with pytest.raises(CredentialError) as caught:
        run_async(SPEC.make().revoke(asked, handle, stage.client))
    began_ms = caught.value.ends_ms - 7_200_000
    assert began_ms == 1_731_945_562_112  # of the lease's id

    def refuse(_: str) -> None:
        raise CredentialError("the lease journal cannot be written")

    object.__setattr__(asked, "keep", refuse)
    before = len(stage.server.tokens)
    with pytest.raises(CredentialError):
        run_async(SPEC.make().issue(asked, stage.client, NOW_MS))
    assert len(stage.server.tokens) == before


def test_without_a_revocation_endpoint_it_is_labelled(stage: Stage) -> None:
    """Not revocable, its true end, whatever the target's ttl is; nothing is held."""
    settings = stage.settings()
    del settings["revoke_url"], settings["introspect_url"]
    issued = stage.issue(settings, ttl_s=60)
    assert not issued.revocable
    assert issued.expires_ms == NOW_MS + 3_600_000
    with pytest.raises(CredentialError) as caught:
        run_async(SPEC.make().revoke(wanted(settings), issued.handle, stage.client))
    assert caught.value.ends_ms == issued.expires_ms
    stage.server.revokes = False
    issued = stage.issue(stage.settings(), OTHER)
    with pytest.raises(CredentialError, match="this type") as caught:
        run_async(SPEC.make().revoke(wanted(stage.settings(), OTHER), issued.handle, stage.client))
    assert caught.value.ends_ms == NOW_MS + 3_600_000


def test_introspection_has_the_last_word(stage: Stage) -> None:
    """A revocation that did nothing is not confirmed; without introspection 200 is the word."""
    issued = stage.issue(stage.settings())
    asked, provider = wanted(stage.settings()), SPEC.make()
    assert stage.server.https is not None
    stage.server.https.faults = {"/revoke": ["html"], "/introspect": ["nonsense"]}
    run_async(provider.revoke(asked, issued.handle, stage.client))  # a 200, of somebody
    with pytest.raises(CredentialError):
        run_async(provider.confirm(asked, issued.handle, stage.client))  # type: ignore[attr-defined]
    assert not run_async(provider.confirm(asked, issued.handle, stage.client))  # type: ignore[attr-defined]
    run_async(provider.revoke(asked, issued.handle, stage.client))
    assert run_async(provider.confirm(asked, issued.handle, stage.client))  # type: ignore[attr-defined]
    assert stage.client.held(f"token of {LEASE}") is None


def test_without_introspection(stage: Stage) -> None:
    """The server's 200 is the word; revoking again before it is confirmed does nothing."""
    settings = stage.settings()
    del settings["introspect_url"]
    issued = stage.issue(settings)
    provider, asked = SPEC.make(), wanted(settings)
    assert not run_async(provider.confirm(asked, issued.handle, stage.client))  # type: ignore[attr-defined]
    for _ in range(2):
        run_async(provider.revoke(asked, issued.handle, stage.client))
    assert run_async(provider.confirm(asked, issued.handle, stage.client))  # type: ignore[attr-defined]
    assert not stage.alive(issued)
    assert stage.client.held(f"token of {LEASE}") is None
