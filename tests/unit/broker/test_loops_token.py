"""The token that let a run start: it reaches the provider that issues, and is kept nowhere."""

from pathlib import Path

import pytest

from agent.broker import control as c
from agent.broker import lease_calls
from agent.broker.identity import fetch, issuers
from agent.credentials.spec import Client, CredentialError, Issued, ProviderSpec, RunToken, Wanted
from agent.ipc import messages as m
from agent.model.audit import RunStarted
from agent.model.credential import Bearer, Shape
from agent.model.ids import RunId
from agent.model.reason import Reason
from agent.model.secret import Secret
from tests.servers.issuer import SUBJECT, Issuer, running_issuer
from tests.unit.broker.harness import Host, expect, host, run_async

POLICY = """
targets:
  api:
    protocol: http
    address: https://api.example.com
    credential: {provider: static, file: "SECRET", shape: bearer}
issuers:
  ci: {url: "URL", ca: "CA", clock_skew: 30s}
loops:
  deploy:
    who: [{issuer: ci, claims: {repository: acme/orders}}]
    rules: [{target: api, allow: {method: GET, path: /v1/**}}]
"""


class Noting:
    """A provider that keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Wanted]] = []

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Make one."""
        self.asked.append(("issue", wanted))
        return Issued(Bearer(Secret(b"x")), "h", 0, renewable=False, revocable=True)

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Refuse."""
        raise CredentialError("never")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """End it."""
        self.asked.append(("revoke", wanted))

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Nothing to say."""


@pytest.fixture(name="noting")
def _noting(monkeypatch: pytest.MonkeyPatch) -> Noting:
    noting = Noting()
    spec = ProviderSpec("static", frozenset(Shape), (), lambda: noting)
    monkeypatch.setattr(lease_calls, "providers", lambda: {"static": spec})
    return noting


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an issuer may be slow without being down."""
    monkeypatch.setattr(fetch, "REQUEST_S", 60.0)
    monkeypatch.setattr(issuers, "FETCH_S", 60.0)


def _policy(issuer: Issuer, folder: Path) -> str:
    text = POLICY.replace("URL", issuer.url).replace("CA", str(issuer.ca))
    return text.replace("SECRET", str(folder / "secret"))


async def _start(made: Host, token: str) -> RunId:
    asked = made.caller().ask(c.StartRun("deploy", (), "", token))
    return (await expect(asked, c.RunOpened)).run_id


async def _lease(made: Host, run_id: RunId) -> None:
    session = made.session(run_id, made.synthetic["api.example.com"][0])
    await made.worker.ask(m.Authorize(session))
    assert isinstance(await made.worker.ask(m.TakeLease(session)), m.LeaseTaken)


def _kept(folder: Path) -> bytes:
    """Return what is in files."""
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert kept
    return kept


def test_it_reaches_the_provider_and_nothing_else(tmp_path: Path, noting: Noting) -> None:
    """With its own exp, without the skew; neither revocation, journal nor records have it."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer, tmp_path)) as made:
            end_s = int(issuer.claims()["iat"]) + 200  # type: ignore[call-overload]
            token = issuer.mint(exp=end_s)
            run_id = await _start(made, token)
            await _lease(made, run_id)
            [(_, wanted)] = noting.asked
            assert wanted.subject == SUBJECT
            assert wanted.run_token is not None
            assert wanted.run_token.token is not None
            assert wanted.run_token.token.reveal().decode() == token
            assert wanted.run_token.ends_ms == 1000 * end_s
            await made.broker.parts.loops.revoke(run_id, Reason.RUN_REVOKED)
            await made.broker.parts.leases.settled()
            assert [(call, each.run_token) for call, each in noting.asked[1:]] == [("revoke", None)]
            signature = token.rpartition(".")[2]
            assert signature.encode() not in _kept(tmp_path)
            assert signature not in repr(made.reporter.events)
            assert made.reporter.of(RunStarted)

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_a_restart_loses_it_and_knows_whose_it_was(tmp_path: Path, noting: Noting) -> None:
    """The run goes on; what is issued for it then has the subject, and no token."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer, tmp_path)) as made:
            run_id = await _start(made, issuer.mint())
            await made.kill_broker()
            await made.start_broker()
            made.wire_reporter()
            made.wire_worker()
            await _lease(made, run_id)
            [(_, wanted)] = noting.asked
            assert wanted.run_token == RunToken(SUBJECT, None, 0)

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_a_run_without_one_has_none(tmp_path: Path, noting: Noting) -> None:
    """Root may start it without; nobody's identity is made up."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer, tmp_path)) as made:
            await _lease(made, await _start(made, ""))
            [(_, wanted)] = noting.asked
            assert (wanted.subject, wanted.run_token) == ("", None)

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))
