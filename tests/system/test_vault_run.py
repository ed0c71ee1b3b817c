"""Runs that log in at a vault by themselves: it knows whose run it is, and who its user was for."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form

from tests.servers.issuer import SUBJECT, Issuer, running_issuer
from tests.servers.postgres import programs
from tests.system.postgres_site import NAME, Stage
from tests.system.provider_site import folder, readable, wait_for
from tests.system.test_vault import leases
from tests.system.vault_site import VaultSite, vault_site, vault_stage
from tests.system.written import files

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(900)]
WITHIN_S = 120.0  # of what hangs otherwise
PSQL = f"{programs()}/psql -XAtq"
POLICY = """
targets:
  orders:
    protocol: postgres
    address: {{name}}
    ca: {{ca}}
    dial: "{{dial}}"
    durability: {{durability}}
    database: orders
    credential:
      provider: vault
      address: {url}
      ca: {ca}
      auth: approle
      role_id: {role_id}
      file: {secret_id}
      run_mount: ci
      run_role: deploy
      path: database/creds/orders
issuers:
  ci: {{{{url: "{issuer}", ca: "{issuer_ca}"}}}}
loops:
  report:
    who: [{{{{issuer: ci, claims: {{{{repository: acme/orders}}}}}}}}]
    rules:
      - {{{{target: orders, allow: {{{{effects: [read], unbounded: true}}}}}}}}
"""


@pytest.fixture(scope="module", name="issuer")
def _issuer() -> Iterator[Issuer]:
    with folder("issuer") as place, running_issuer(place, "ES256") as made:
        yield made


@pytest.fixture(scope="module", name="made")
def _made(issuer: Issuer) -> Iterator[VaultSite]:
    """The servers; the vault takes the issuer's tokens of one repository."""
    with vault_site() as site:
        key = issuer.keys["one"][1].public_key()
        pem = key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        site.bao.write("sys/auth/ci", {"type": "jwt"})
        site.bao.write("auth/ci/config", {"jwt_validation_pubkeys": [pem.decode()]})
        role: dict[str, object] = {
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["loopwarden"],
            "bound_claims": {"repository": "acme/orders"}, "token_policies": ["read"],
            "token_ttl": "60s", "token_max_ttl": "1h",
        }  # fmt: skip
        site.bao.write("auth/ci/role/deploy", role)
        text = POLICY.format(
            url=site.bao.url, ca=site.site.folder / "bao-ca.pem", role_id=site.vault.role_id,
            secret_id=site.site.folder / "secret-id", issuer=issuer.url, issuer_ca=issuer.ca,
        )  # fmt: skip
        yield replace(site, template=text)


@pytest.fixture(scope="module", name="whole")
def _whole(made: VaultSite) -> Iterator[Stage]:
    with vault_stage(made) as stage:
        yield stage


def _tokens(made: VaultSite) -> list[dict[str, Any]]:
    """Return what the vault knows of runs that logged in."""
    found = []
    for accessor in made.bao.listed("auth/token/accessors"):
        body = {"accessor": accessor}
        status, answer = made.bao.call("POST", "auth/token/lookup-accessor", body)
        if status == 200 and answer["data"]["path"] == "auth/ci/login":
            found.append(answer["data"])
    return found


def _line(whole: Stage, shell: str, token_file: Path | None) -> list[str]:
    line = whole.host.run_command("report", ["/bin/sh", "-c", shell])
    if token_file is not None:
        at = line.index("run") + 1
        line[at:at] = ["--oidc-token-file", str(token_file)]
    return line


def test_the_vault_knows_whose_run_it_is(made: VaultSite, whole: Stage, issuer: Issuer) -> None:
    """Its token has the run's subject while the run lives; then it and its user are gone."""
    token = issuer.mint()
    file = readable(made.site.folder / "run-token", token)
    query = "select current_user"
    shell = f'{PSQL} -c "{query}" postgresql://{NAME}/orders; read -r _; env'
    with ExitStack() as opened:
        process = opened.enter_context(
            subprocess.Popen(
                _line(whole, shell, file), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, env=whole.host.loop_environment(), cwd="/",
            )
        )  # fmt: skip
        opened.callback(process.kill)
        wait_for(lambda: _tokens(made) and made.users(), "nobody logged in", WITHIN_S)
        [known] = _tokens(made)
        assert known["display_name"] == f"ci-{SUBJECT}"
        assert known["orphan"] is True
        assert made.vault.children() == []  # none through the token role
        [user] = made.users()
        shown, _ = process.communicate("\n", timeout=WITHIN_S)  # until it is told, it lives
        assert process.returncode == 0, shown
    assert shown.startswith(user)
    assert token not in shown
    wait_for(lambda: not leases(whole), "the lease is left", WITHIN_S)
    assert made.users() == []
    assert _tokens(made) == []
    newest = max(leases(whole, "--all"), key=lambda lease: lease["lease_id"])
    assert (newest["state"], newest["revocable"]) == ("revoked", True)
    kept = [data for _, data in files(whole.host.log, whole.host.state_dir)]
    texts = [*kept, made.bao.log().encode()]
    assert not [text for text in texts if token.rpartition(".")[2].encode() in text]


@pytest.mark.parametrize("expired", [True, False])
def test_a_run_without_a_good_token_gets_no_user(
    made: VaultSite, whole: Stage, issuer: Issuer, expired: bool
) -> None:
    """Its token's end came first, or root started it without: refused in PostgreSQL's words."""
    end_s = int(time.time()) + 3
    file = readable(made.site.folder / "run-token", issuer.mint(exp=end_s)) if expired else None
    shell = f"sleep {5 if expired else 0}; {PSQL} -c 'select 1' postgresql://{NAME}/orders"
    done = subprocess.run(
        _line(whole, shell, file), capture_output=True, text=True, timeout=WITHIN_S, check=False,
        env=whole.host.loop_environment(), cwd="/",
    )  # fmt: skip
    assert done.returncode != 0
    said = "OIDC token expired" if expired else "started without an OIDC token"
    assert said in done.stderr
    assert made.users() == []
    assert _tokens(made) == []
