"""The run's own token, shown to a server that trusts its issuer: RFC 8693, and RFC 7523."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent.credentials.oauth2 import SPEC
from agent.credentials.spec import CredentialError, Issued, RunToken
from agent.model.secret import Secret
from tests.servers.issuer import SUBJECT, Issuer, ec_key
from tests.servers.oauth import oauth_server
from tests.unit.broker.harness import run_async
from tests.unit.credentials.oauth2.stage import NOW_MS, Stage, wanted

ISSUER = Issuer("https://issuer.example", Path(), {"one": ("ES256", ec_key())})


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    key = ec.generate_private_key(ec.SECP256R1())
    with oauth_server(tmp_path, key.public_key()) as server:
        server.trust(ISSUER)
        yield Stage(tmp_path, server, key)


def _settings(stage: Stage, grant: str) -> dict[str, str]:
    found = stage.settings()  # the client says who it is by its secret
    shown = "subject_token" if grant == "token_exchange" else "assertion"
    return found | {"grant": grant, "client_auth": "basic", shown: "run"}


def _issue(stage: Stage, settings: dict[str, str], token: str, left_ms: int = 60_000) -> Issued:
    shown = RunToken(SUBJECT, Secret(token.encode()), NOW_MS + left_ms)
    asked = replace(wanted(settings), run_token=shown)
    return run_async(SPEC.make().issue(asked, stage.client, NOW_MS))


@pytest.mark.parametrize("grant", ["token_exchange", "jwt_bearer"])
def test_it_is_exchanged_and_what_comes_of_it_is_revoked(stage: Stage, grant: str) -> None:
    """The server checks it with its issuer's key; its subject is whom the new token is for."""
    settings = _settings(stage, grant)
    issued = _issue(stage, settings, ISSUER.mint())
    assert stage.alive(issued)
    assert issued.revocable
    assert stage.server.exchanged == [SUBJECT]
    provider, asked = SPEC.make(), wanted(settings)  # without it: revocation needs it not
    run_async(provider.revoke(asked, issued.handle, stage.client))
    assert run_async(provider.confirm(asked, issued.handle, stage.client))  # type: ignore[attr-defined]
    assert not stage.alive(issued)


def test_an_assertion_needs_no_client(stage: Stage) -> None:
    """RFC 7523 section 3.1: it says alone who asks; then there is no secret on the host at all."""
    settings = _settings(stage, "jwt_bearer") | {"client_auth": "none"}
    del settings["client_id"], settings["file"]
    assert stage.alive(_issue(stage, settings, ISSUER.mint()))


@pytest.mark.parametrize("grant", ["token_exchange", "jwt_bearer"])
@pytest.mark.parametrize(
    "changes",
    [{"aud": "another"}, {"exp": 1_000}, {"iss": "https://evil.example"}, {"sub": None}],
)
def test_a_server_that_refuses_it_is_heard(
    stage: Stage, grant: str, changes: dict[str, Any]
) -> None:
    """Another audience, an old one, an issuer that it does not trust: nothing is made."""
    token = ISSUER.mint(**changes)
    with pytest.raises(CredentialError, match="invalid_grant") as caught:
        _issue(stage, _settings(stage, grant), token)
    assert caught.value.nothing_made
    assert token not in str(caught.value)
    assert not stage.server.tokens


@pytest.mark.parametrize("grant", ["token_exchange", "jwt_bearer"])
def test_without_it_the_server_is_not_asked(stage: Stage, grant: str) -> None:
    """None, none any more, or an old one: refused here, in words for the operator."""
    settings = _settings(stage, grant)
    for shown, said in (
        (None, "--oidc-token-file"),
        (RunToken(SUBJECT), "broker was started anew"),
        (RunToken(SUBJECT, Secret(b"x"), NOW_MS), "expired"),
    ):
        kept: list[str] = []
        asked = replace(wanted(settings), run_token=shown, keep=kept.append)
        with pytest.raises(CredentialError, match=said) as caught:
            run_async(SPEC.make().issue(asked, stage.client, NOW_MS))
        assert caught.value.nothing_made
        assert not kept
    assert not stage.server.asked


@pytest.mark.parametrize("grant", ["token_exchange", "jwt_bearer"])
def test_the_endpoint_is_probed_without_it(stage: Stage, grant: str) -> None:
    """No run lives then: the endpoint and the client are proven, the token is not."""
    run_async(SPEC.make().probe(wanted(_settings(stage, grant)), stage.client))
    assert not stage.server.exchanged
    asked = wanted(_settings(stage, grant) | {"client_id": "stranger"})
    with pytest.raises(CredentialError, match="invalid_client"):
        run_async(SPEC.make().probe(asked, stage.client))
