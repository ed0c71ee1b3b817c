"""`loopwarden leases` and `revoke`, for people and programs, over the control socket."""

import json

from agent.broker import control as c
from agent.ipc import messages as m
from agent.model.ids import RunId
from agent.model.lease import LeaseState
from agent.model.reason import Reason
from tests.unit.broker.harness import Host, expect, run_async
from tests.unit.cli.launcher import cli, daemon

POLICY = """
targets:
  api:
    protocol: http
    address: https://api.example.com
    credential: {{provider: static, file: {secret}, shape: bearer}}
loops:
  job:
    who: [{{user: nobody}}]
    rules: [{{target: api, allow: {{method: GET, path: /**}}}}]
"""


async def _leased(made: Host) -> tuple[RunId, m.LeaseTaken, m.TakeLease]:
    """Return a run with a session that took its lease."""
    opened = await expect(made.caller().ask(c.StartRun("job", (), "")), c.RunOpened)
    session = made.session(opened.run_id, made.synthetic["api.example.com"][0])
    await made.worker.ask(m.Authorize(session))
    taken = await made.worker.ask(m.TakeLease(session))
    assert isinstance(taken, m.LeaseTaken)
    return opened.run_id, taken, m.TakeLease(session)


def test_leases_live_and_past() -> None:
    """Whose, which state, what is next; what is over only with --all; of one run with --run."""

    async def main() -> None:
        async with daemon(POLICY) as made:
            assert (await cli(made, "leases")).out == "no leases\n"
            run_id, taken, _ = await _leased(made)
            text = (await cli(made, "leases")).out
            for words in (taken.lease_id, "api (static)  active", run_id, "of loop job, 1 session",
                          "cannot be revoked", "forget when the run ends"):  # fmt: skip
                assert words in text
            assert "canary" not in text
            assert (await cli(made, "leases", "--run", "other")).out == "no leases\n"
            [view] = json.loads((await cli(made, "leases", "--json")).out)
            assert (view["state"], view["sessions"], view["attempts"]) == ("active", 1, 0)
            made.broker.parts.loops.finish(run_id, Reason.RUN_ENDED)
            await made.broker.parts.leases.settled()
            assert (await cli(made, "leases")).out == "no leases\n"
            text = (await cli(made, "leases", "--all", "--run", run_id)).out
            assert "forgotten" in text
            assert "may live on at its backend" in text

    run_async(main())


def test_a_lease_is_revoked_by_its_id() -> None:
    """Its sessions are cut by name, and the run gets no other; with --rotate it does."""

    async def main() -> None:
        async with daemon(POLICY) as made:
            run_id, taken, again = await _leased(made)
            assert made.worker.endpoint is not None
            done = await cli(made, "revoke", taken.lease_id, "--rotate")
            assert done.code == 0
            assert f"lease {taken.lease_id} is taken away\n" in done.out
            assert "forgotten" in done.out
            cut = await made.worker.until_notice(m.CutLease)
            assert cut == m.CutLease(run_id, taken.lease_id, Reason.LEASE_REVOKED, False)
            other = await made.worker.ask(again)
            assert isinstance(other, m.LeaseTaken)
            assert other.lease_id != taken.lease_id
            done = await cli(made, "revoke", other.lease_id, "--json")
            answer = json.loads(done.out)
            assert answer["confirmed"] is True
            assert answer["leases"][0]["withdrawn"] is True
            refused = await made.worker.ask(again)
            assert isinstance(refused, m.Failed)
            assert refused.reason is Reason.LEASE_REFUSED
            assert other.lease_id in refused.detail

    run_async(main())


def test_a_run_is_revoked_with_its_leases() -> None:
    """The states are printed; a revoked run gets no new lease."""

    async def main() -> None:
        async with daemon(POLICY) as made:
            run_id, taken, again = await _leased(made)
            done = await cli(made, "revoke", run_id)
            assert done.code == 0
            assert f"run {run_id} of loop job is revoked" in done.out
            assert taken.lease_id in done.out
            assert isinstance(await made.worker.ask(again), m.Failed)
            done = await cli(made, "revoke", "01JD0000000000000000000000")
            assert done.code == 125
            assert "no live run" in done.err

    run_async(main())


def test_what_is_not_confirmed_is_not_called_so() -> None:
    """A quarantined lease: exit 1 at once, with the state, the cause and what is next."""

    async def main() -> None:
        async with daemon(POLICY) as made:
            _, taken, _ = await _leased(made)
            leases = made.broker.parts.leases
            row = leases.find(taken.lease_id)
            assert row is not None
            for state in (LeaseState.DRAINING, LeaseState.REVOKING, LeaseState.QUARANTINED):
                row = leases._ledger.move_away(
                    row,
                    state,
                    attempts=1,
                    error="the role owns\x1b[31m a table",
                    next_ms=1_900_000_000_000,
                )
            kept, task = leases._keepers[taken.lease_id]
            task.cancel()
            kept.row = row
            done = await cli(made, "revoke", taken.lease_id)
            assert done.code == 1
            for words in ("quarantined", "a person is needed", "a table", "(1 failed)",
                          "revoke again at 2030-03-17", "NOT confirmed yet"):  # fmt: skip
                assert words in done.out
            assert "\x1b" not in done.out
            status = json.loads((await cli(made, "status", "--json")).out)
            assert status["counters"]["leases.quarantined"] == 1

    run_async(main())
