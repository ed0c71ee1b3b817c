"""Identity tokens through the whole product: who gets in, what is recorded, what a loop sees."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.issuer import SUBJECT, Issuer, ec_key, public_jwk, running_issuer
from tests.system.conftest import COLLECTED_WITHIN_S, Stage
from tests.system.written import files

POLICY = """
issuers:
  ci: {url: "URL", ca: "CA"}
  closed: {url: "https://closed.example", jwks_file: "FILE", algorithms: ES256}
loops:
  release:
    who:
      - issuer: ci
        claims: {repository: acme/orders, sub: ["repo:acme/orders:ref:refs/heads/*"]}
    max_concurrent: 1
    rules: []
  offline:
    who: [{issuer: closed, claims: {sub: "system:serviceaccount:ci:deploy"}}]
    rules: []
"""
SHOWN = "cat /proc/self/environ /proc/$PPID/environ 2>&1"


@pytest.fixture(scope="module")
def issuer(whole: Stage) -> Iterator[Issuer]:
    """An issuer that a loop of the host trusts."""
    with tempfile.TemporaryDirectory(prefix="lwt-issuer-") as folder:
        Path(folder).chmod(0o755)
        with running_issuer(Path(folder), "ES256") as made:
            text = POLICY.replace("URL", made.url).replace("CA", str(made.ca))
            text = text.replace("FILE", str(made.ca.with_name("closed.json")))
            _publish(made)
            (whole.host.policy_dir / "oidc.yaml").write_text(text)
            reloaded = whole.host.cli("policy", "reload")
            assert reloaded.returncode == 0, reloaded.stderr
            yield made


def _publish(issuer: Issuer) -> None:
    """Write the keys of an issuer that nobody can ask to the file of the policy."""
    keys = [public_jwk(key, name, algorithm) for name, (algorithm, key) in issuer.keys.items()]
    path = issuer.ca.with_name("closed.json")
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps({"keys": keys}))
    fresh.chmod(0o644)
    fresh.replace(path)


def _run(
    whole: Stage, file: Path, token: str, loop: str = "release"
) -> subprocess.CompletedProcess[str]:
    """Start a run as an unprivileged user who has this token in a file."""
    file.write_text(token + "\n")
    file.chmod(0o644)
    host = whole.host
    words = ["run", "--loop", loop, "--oidc-token-file", str(file)]
    line = host.run_command(loop, [])  # where the command line is
    cli = line[line.index("sh") + 1 : line.index("run")]
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    return subprocess.run(
        host.inside("user", [*drop, *cli, *words, "--", "/bin/sh", "-c", SHOWN]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=host.loop_environment() | {"LOOPWARDEN_OIDC_TOKEN": token},
        cwd="/",
    )


def _collected(whole: Stage, *words: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + COLLECTED_WITHIN_S
    while not (rows := whole.collector.ask(*words)):
        assert time.monotonic() < deadline, words
        time.sleep(0.1)
    return rows


def _alarms(whole: Stage, loop: str, at_least: int) -> list[str]:
    """Return what the collector has of alarms of a loop, once there are so many."""
    deadline = time.monotonic() + COLLECTED_WITHIN_S
    while True:
        rows = whole.collector.ask("alarms")
        found = [row["detail"] for row in rows if f"loop {loop}" in row["detail"]]
        if len(found) >= at_least or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_a_token_starts_a_run_and_is_who_it_was(whole: Stage, issuer: Issuer) -> None:
    """Matching claims alone; the collector names subject and issuer; the loop has no token."""
    folder = issuer.ca.parent
    token = issuer.mint()
    done = _run(whole, folder / "token", token)
    assert "LOOPWARDEN_RUN=" in done.stdout, done.stderr
    assert "OIDC" not in done.stdout
    assert token not in done.stdout + done.stderr

    deadline = time.monotonic() + COLLECTED_WITHIN_S
    while whole.host.json("loops"):
        assert time.monotonic() < deadline, "the run is not over"
        time.sleep(0.1)  # a run that is not over yet would be refused for max_concurrent
    bad = [token, issuer.mint(repository="acme/other"), issuer.mint(sub="repo:evil")]
    for one in bad:
        refused = _run(whole, folder / "token", one)
        assert refused.returncode == 125
        assert "this token does not let you start loop release" in refused.stderr
        assert not refused.stdout

    [run] = _collected(whole, "runs", "--by", "repo:acme/orders:*")
    by = run["initiator"]
    assert by["token"]["issuer"] == issuer.url
    assert by["token"]["subject"] == SUBJECT
    assert by["token"]["claims"] == {"repository": "acme/orders", "sub": SUBJECT}
    assert by["user"] == "nobody"
    assert by["parents"]
    assert by["parents"][0]["exe"]
    told = [detail.split(": ")[1] for detail in _alarms(whole, "release", 3)]
    assert sorted(told) == ["claims", "claims", "replayed"]

    for path, data in files(whole.host.log, whole.host.state_dir):
        assert not any(one.split(".")[1].encode() in data for one in (*bad, token)), path


def test_an_issuer_that_cannot_be_asked_has_its_keys_in_a_file(
    whole: Stage, issuer: Issuer
) -> None:
    """Rotated by moving a file into place, without a reload; a damaged one lets nobody in."""
    folder = issuer.ca.parent
    before = len(issuer.asked)

    def start(key_id: str = "one") -> subprocess.CompletedProcess[str]:
        whose = {"iss": "https://closed.example", "sub": "system:serviceaccount:ci:deploy"}
        return _run(whole, folder / "token", issuer.mint(key_id, None, **whose), "offline")

    done = start()
    assert "LOOPWARDEN_RUN=" in done.stdout, done.stderr
    issuer.keys = {"two": ("ES256", ec_key(2)), **issuer.keys}
    assert start("two").returncode == 125
    _publish(issuer)
    assert "LOOPWARDEN_RUN=" in start("two").stdout
    path = issuer.ca.with_name("closed.json")
    path.write_text(path.read_text()[:-9])
    refused = start()
    assert refused.returncode == 125
    assert "this token does not let you start loop offline" in refused.stderr
    warned = whole.host.cli("policy", "check", str(whole.host.policy_dir / "oidc.yaml"))
    assert f"{path}:1:1: warning: no set of keys" in warned.stdout + warned.stderr
    _publish(issuer)
    assert "LOOPWARDEN_RUN=" in start().stdout
    assert len(issuer.asked) == before

    told = _alarms(whole, "offline", 2)
    assert sorted(detail.split(": ")[1] for detail in told) == ["key-unknown", "keys-unavailable"]
    assert any(f"jwks_file {path}: no set of keys" in detail for detail in told)
