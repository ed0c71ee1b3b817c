"""Kills that the collector asks for: what a person at the host could do, told in two words."""

from pathlib import Path

from agent.broker import control as c
from agent.ipc import messages as m
from agent.model.ids import RunId
from agent.model.reason import Reason
from tests.unit.broker.harness import Host, expect, host, run_async


async def _words(made: Host, name: str) -> list[tuple[str, str]]:
    """Ask as the reporter does; return what it is told."""
    told: list[m.KillTold] = []
    endpoint = made.reporter.endpoint
    assert endpoint is not None
    before = made.reporter.receive

    def receive(received: m.Message) -> None:
        message = received.message  # type: ignore[attr-defined]
        if isinstance(message, m.KillTold):
            told.append(message)
            made.reporter.changed.set()
        else:
            before(received)  # type: ignore[arg-type]

    endpoint._receive = receive  # type: ignore[assignment]
    endpoint.notify(m.KillAsked("k", name))
    await made.reporter.until(lambda: bool(told) and told[-1].state != "cut")
    assert {word.kill_id for word in told} == {"k"}
    return [(word.state, word.detail) for word in told]


async def _leased(made: Host) -> tuple[RunId, m.LeaseTaken, m.TakeLease]:
    opened = await expect(made.caller().ask(c.StartRun("nightly", (), "")), c.RunOpened)
    session = made.session(opened.run_id, made.synthetic["api.example.com"][0])
    await made.worker.ask(m.Authorize(session))
    taken = await made.worker.ask(m.TakeLease(session))
    assert isinstance(taken, m.LeaseTaken)
    return opened.run_id, taken, m.TakeLease(session)


def test_a_run_is_killed_from_afar(tmp_path: Path) -> None:
    """Cut, its processes ended, its leases' states told; asked again, it is unknown or the same."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id, taken, again = await _leased(made)
            words = await _words(made, run_id)
            assert [state for state, _ in words] == ["cut", "confirmed"]
            assert run_id in words[0][1]
            said = (
                f"lease {taken.lease_id} (api): forgotten (nobody can revoke it, so it may live on)"
            )
            assert words[1][1] == said
            assert made.kernel.killed == [run_id]
            assert (await made.worker.until_notice(m.CutRun)).reason is Reason.RUN_REVOKED
            assert isinstance(await made.worker.ask(again), m.Failed)

    run_async(main())


def test_a_lease_is_killed_from_afar(tmp_path: Path) -> None:
    """As by `loopwarden revoke LEASE`: the run goes on without this target."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id, taken, again = await _leased(made)
            words = await _words(made, taken.lease_id)
            assert [state for state, _ in words] == ["cut", "confirmed"]
            assert isinstance(await made.worker.ask(again), m.Failed)
            assert not made.kernel.killed
            assert run_id in made.kernel.runs

    run_async(main())


def test_a_lease_that_is_over_is_told_as_such(tmp_path: Path) -> None:
    """Not as taken away: its run may have another by now, which nobody named, and may go on."""

    async def main() -> None:
        async with host(tmp_path) as made:
            _, taken, again = await _leased(made)
            made.broker.parts.leases.revoke(taken.lease_id, rotate=True)
            await made.broker.parts.leases.settled()
            other = await made.worker.ask(again)
            assert isinstance(other, m.LeaseTaken)
            assert other.lease_id != taken.lease_id
            words = await _words(made, taken.lease_id)
            assert [state for state, _ in words] == ["cut", "confirmed"]
            for _, detail in words:
                assert "is over already (forgotten), and nothing was taken away" in detail
            await _words(made, other.lease_id)
            assert isinstance(await made.worker.ask(again), m.Failed)
            words = await _words(made, other.lease_id)
            assert "its run gets no other" not in words[0][1]

    run_async(main())


def test_what_is_not_here_is_unknown_and_what_fails_is_told(tmp_path: Path) -> None:
    """An id of nothing, of any length; a kernel that refuses."""

    async def main() -> None:
        async with host(tmp_path) as made:
            assert (await _words(made, "x" * 10_000))[0][0] == "unknown"
            run_id, _, _ = await _leased(made)
            made.kernel.refuse[m.RevokeRun] = "no"
            assert [state for state, _ in await _words(made, run_id)] == ["failed"]

    run_async(main())
