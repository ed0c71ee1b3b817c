"""Tokens at the door: the whole broker, with a real issuer over TLS."""

import asyncio
from pathlib import Path

import pytest

from agent.broker import control as c
from agent.broker.identity import fetch, issuers
from agent.broker.identity.gate import ALARMS_A_MINUTE
from agent.model.audit import Alarm, Alarmed, RunStarted
from agent.model.reason import Reason
from tests.servers.issuer import SUBJECT, Issuer, running_issuer
from tests.unit.broker.harness import Host, expect, host, run_async

POLICY = """
targets: {}
issuers:
  ci: {url: "URL", ca: "CA"}
loops:
  deploy:
    who: [{issuer: ci, claims: {repository: acme/orders}}]
    rules: []
"""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an issuer may be slow without being down."""
    monkeypatch.setattr(fetch, "REQUEST_S", 60.0)
    monkeypatch.setattr(issuers, "FETCH_S", 60.0)


def _policy(issuer: Issuer, **more: str) -> str:
    options = "".join(f", {name}: {value}" for name, value in more.items())
    return POLICY.replace("URL", issuer.url).replace('"CA"', f'"{issuer.ca}"{options}')


async def _start(made: Host, token: str) -> c.Reply:
    return await made.caller().ask(c.StartRun("deploy", (), "", token))


def _checks(made: Host) -> list[str]:
    return [event.detail.split(": ")[1] for event in made.reporter.of(Alarmed)]


def test_roots_token_must_be_good_too(tmp_path: Path) -> None:
    """Root may start every loop, but what it shows is checked, and is what the record says."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer)) as made:
            await expect(_start(made, issuer.mint(repository="other")), c.Refused)
            await expect(_start(made, issuer.mint()), c.RunOpened)
            await expect(_start(made, ""), c.RunOpened)
            with_token, without = made.reporter.of(RunStarted)
            assert with_token.run.initiator.token is not None
            assert with_token.run.initiator.token.subject == SUBJECT
            assert without.run.initiator.token is None
            assert _checks(made) == ["claims"]

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_a_used_token_is_refused_after_a_restart(tmp_path: Path) -> None:
    """By its jti; and one without jti by what is signed."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer)) as made:
            tokens = [issuer.mint(), issuer.mint(jti=None)]
            for token in tokens:
                await expect(_start(made, token), c.RunOpened)
                await expect(_start(made, token), c.Refused)
            await made.kill_broker()
            await made.start_broker()
            made.wire_reporter()
            for token in tokens:
                await expect(_start(made, token), c.Refused)
            assert _checks(made) == ["replayed"] * 4

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_one_token_at_once_is_one_run(tmp_path: Path) -> None:
    """Twenty callers with one token: one of them gets in."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer)) as made:
            token = issuer.mint()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_start(made, token)) for _ in range(20)]
            opened = [task for task in tasks if isinstance(task.result(), c.RunOpened)]
            assert len(opened) == len(made.kernel.runs) == 1

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_a_reusable_token_starts_many_runs(tmp_path: Path) -> None:
    """Where the policy says so: a pod's token lasts an hour, and its jobs do not."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer, reusable="true")) as made:
            token = issuer.mint()
            for _ in range(3):
                await expect(_start(made, token), c.RunOpened)

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_a_policy_that_changes_meanwhile_decides(tmp_path: Path) -> None:
    """The issuer is slow; the entry is gone when its answer is there: no run."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer)) as made:
            issuer.mode = "slow"
            asked = asyncio.ensure_future(_start(made, issuer.mint()))
            assert await asyncio.to_thread(issuer.heard.wait, 60)
            made.write(_policy(issuer).replace("acme/orders", "acme/other"))
            await expect(made.caller().ask(c.ReloadPolicy()), c.Accepted)
            issuer.released.set()
            await expect(asked, c.Refused)
            assert _checks(made) == ["policy"]
            assert not made.kernel.runs

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_an_outage_tells_the_operator_and_nobody_else(tmp_path: Path) -> None:
    """The same words as for a forged token; the alarm has the cause."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer)) as made:
            issuer.mode = "down"
            refused = await expect(_start(made, issuer.mint()), c.Refused)
            assert refused.reason is Reason.POLICY_DENIED
            assert refused.detail == "this token does not let you start loop deploy"
            [alarm] = made.reporter.of(Alarmed)
            assert alarm.alarm is Alarm.TOKEN_REFUSED
            assert "keys-unavailable" in alarm.detail
            assert "answers 503" in alarm.detail
            name = refused.next_step.removesuffix(".").rpartition(" ")[2]
            assert f"token {name} refused" in alarm.detail

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_alarms_are_bounded_and_counted(tmp_path: Path) -> None:
    """Whoever shows bad tokens without end makes ALARMS_A_MINUTE records a minute, no more."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer)) as made:
            for _ in range(ALARMS_A_MINUTE + 5):
                await expect(_start(made, "x.y.z"), c.Refused)
            assert len(made.reporter.of(Alarmed)) == ALARMS_A_MINUTE
            view = await expect(made.caller().ask(c.GetStatus()), c.StatusView)
            assert view.counters["token-refused.form"] == ALARMS_A_MINUTE + 5
            assert view.counters["token-refused.not-alarmed"] == 5

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_the_token_is_in_nothing_that_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither good nor bad ones: logs, records, files, what requests print as."""
    caplog.set_level("DEBUG")

    async def main(issuer: Issuer) -> list[str]:
        async with host(tmp_path, _policy(issuer)) as made:
            tokens = [issuer.mint(), issuer.mint(exp=1), issuer.mint(header={"kid": "nobody's"})]
            for token in tokens:
                await _start(made, token)
                assert token not in repr(c.StartRun("deploy", (), "", token))
            [live] = made.broker.parts.loops.live.values()
            assert live.token is not None
            assert live.token.token is not None
            assert live.token.token.reveal().decode() == tokens[0]
            assert tokens[0] not in repr(live)
            return [*tokens, repr(made.reporter.events)]

    with running_issuer(tmp_path) as issuer:
        *tokens, recorded = asyncio.run(main(issuer))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept = caplog.text + recorded + "".join(path.read_bytes().decode("latin-1") for path in files)
    assert (tmp_path / "state").exists()
    for token in tokens:
        for part in token.split("."):
            assert part not in kept


def test_a_token_of_any_text_is_refused_in_words(tmp_path: Path) -> None:
    """What crosses the control socket may be anything that fits a frame."""

    async def main(issuer: Issuer) -> None:
        async with host(tmp_path, _policy(issuer)) as made:
            for token in ("\u00e9", "a" * 60_000, "\0", ".", "\n" * 100):
                await expect(_start(made, token), c.Refused)
            assert _checks(made) == ["form", "size", "form", "form", "form"]

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))
