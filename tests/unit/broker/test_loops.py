"""Runs: recorded before admitted, ended once, never forgotten."""

import asyncio
import os
from pathlib import Path

import pytest

from agent.broker import control as c
from agent.broker import loops
from agent.broker.peer import Peer
from agent.ipc import messages as m
from agent.model.audit import LeaseChanged, RunEnded, RunStarted
from agent.model.ids import RunId
from agent.model.lease import LeaseState
from agent.model.loop import Initiator, RunState
from agent.model.reason import Reason
from agent.runtime import clock
from tests.unit.broker.harness import POLICY, Caller, Host, expect, host, run_async


async def _started(made: Host, caller: Caller, loop: str = "nightly") -> RunId:
    """Start and admit a run, as the CLI does."""
    opened = await expect(caller.ask(c.StartRun(loop, ("curl", "x"), "")), c.RunOpened)
    pidfd = os.pidfd_open(os.getpid())
    await expect(caller.ask(c.AdmitRun(opened.run_id), pidfd), c.Accepted)
    os.close(pidfd)
    return opened.run_id


def test_a_run_is_recorded_before_its_process_is_admitted(tmp_path: Path) -> None:
    """RunStarted is durable before StartRun is answered, so before Admit can be asked."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            opened = await expect(caller.ask(c.StartRun("nightly", ("a", "b"), "")), c.RunOpened)
            [started] = made.reporter.of(RunStarted)
            assert started.run.run_id == opened.run_id
            assert started.run.argv == ("a", "b")
            assert started.run.initiator.uid == os.getuid()
            assert started.run.initiator.pid == os.getpid()
            assert not made.kernel.admitted
            pidfd = os.pidfd_open(os.getpid())
            await expect(caller.ask(c.AdmitRun(opened.run_id), pidfd), c.Accepted)
            os.close(pidfd)
            assert made.kernel.admitted == [opened.run_id]

    run_async(main())


def test_a_run_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    """Without a reporter, or with a closed spool, no run is made; the refusal says why."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.notify(m.SpoolState(False, "the disk is full"))
            await made.worker.until_notice(m.PolicyNames)
            refused = await expect(caller.ask(c.StartRun("nightly", (), "")), c.Refused)
            assert refused.reason is Reason.RECORD_FAILED
            assert "the disk is full" in refused.detail
            made.reporter.endpoint.close()
            view = await expect(caller.ask(c.GetStatus()), c.StatusView)
            assert not view.accepting
            refused = await expect(caller.ask(c.StartRun("nightly", (), "")), c.Refused)
            assert "reporter" in refused.detail
            assert not made.kernel.runs

    run_async(main())


def test_a_reporter_that_dies_while_a_run_starts_leaves_no_run(tmp_path: Path) -> None:
    """RunStarted unconfirmed: the run is removed from the kernel and refused."""

    async def main() -> None:
        async with host(tmp_path) as made:
            made.reporter.confirms = False
            caller = made.caller()
            asked = asyncio.ensure_future(caller.ask(c.StartRun("nightly", (), "")))
            await made.reporter.until(lambda: bool(made.reporter.of(RunStarted)))
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.close()
            refused = await expect(asked, c.Refused)
            assert refused.reason is Reason.RECORD_FAILED
            await made.kernel.until(lambda: not made.kernel.runs)
            assert not made.kernel.admitted

    run_async(main())


def test_who_may_start_is_the_policys_word(tmp_path: Path) -> None:
    """Root may start a loop without `who`; an unknown loop is refused with the known ones."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            await expect(caller.ask(c.StartRun("other", (), "")), c.RunOpened)
            refused = await expect(caller.ask(c.StartRun("nigthly", (), "")), c.Refused)
            assert "nightly" in refused.detail

    run_async(main())


def test_the_end_of_a_run_takes_everything_away(tmp_path: Path) -> None:
    """RunEmptied: workers cut, lease revoked, end recorded once, the run removed."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _started(made, made.caller())
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            await made.worker.ask(m.Authorize(session))
            taken = await made.worker.ask(m.TakeLease(session))
            assert isinstance(taken, m.LeaseTaken)
            made.kernel_end.notify(m.RunEmptied(run_id, 1))
            made.kernel_end.notify(m.RunEmptied(run_id, 1))
            cut = await made.worker.until_notice(m.CutRun)
            assert cut == m.CutRun(run_id, Reason.RUN_ENDED)
            await made.kernel.until(lambda: not made.kernel.runs)
            await made.reporter.until(lambda: bool(made.reporter.of(RunEnded)))
            await made.broker.parts.leases.settled()
            await made.reporter.until(
                lambda: (
                    [each.state for each in made.reporter.of(LeaseChanged)]
                    == [
                        LeaseState.INTENT,
                        LeaseState.ISSUED,
                        LeaseState.ACTIVE,
                        LeaseState.DRAINING,
                        LeaseState.FORGOTTEN,
                    ]
                )
            )
            assert made.reporter.of(RunEnded) == [RunEnded(run_id, Reason.RUN_ENDED)]
            assert isinstance(await made.worker.ask(m.TakeLease(session)), m.Failed)
            assert not made.broker.parts.leases.rows(run_id)

    run_async(main())


def test_a_caller_that_leaves_before_admission_leaves_no_run(tmp_path: Path) -> None:
    """A CLI killed between StartRun and Admit: the run is ended and removed."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)
            caller.close()
            await made.kernel.until(lambda: not made.kernel.runs)
            await made.reporter.until(lambda: bool(made.reporter.of(RunEnded)))

    run_async(main())


def test_a_restarted_broker_forgets_no_run(tmp_path: Path) -> None:
    """Runs are read back from the kernel; a new session of an old run is authorized."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _started(made, made.caller())
            await made.kill_broker()
            await made.start_broker()
            made.wire_reporter()
            made.wire_worker()
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            answer = await made.worker.ask(m.Authorize(session))
            assert isinstance(answer, m.Authorized)
            assert answer.grant is not None
            assert answer.grant.run_id == run_id

    run_async(main())


def test_a_run_that_ended_while_the_broker_was_away_loses_its_lease(tmp_path: Path) -> None:
    """At start the journal is reconciled with the kernel's runs."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _started(made, made.caller())
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            await made.worker.ask(m.Authorize(session))
            assert isinstance(await made.worker.ask(m.TakeLease(session)), m.LeaseTaken)
            await made.kill_broker()
            made.kernel.runs.clear()
            await made.start_broker()
            made.wire_reporter()
            await made.broker.parts.leases.settled()
            assert len(made.broker.parts.leases) == 0
            states = [each.state for each in made.reporter.of(LeaseChanged)]
            await made.reporter.until(
                lambda: (
                    LeaseState.FORGOTTEN in [each.state for each in made.reporter.of(LeaseChanged)]
                )
            )
            assert states[0] is LeaseState.INTENT

    run_async(main())


def test_max_duration_ends_the_run(tmp_path: Path) -> None:
    """A run past its time is revoked with its processes, and the workers hear why."""
    policy = POLICY.replace("nightly:\n", "nightly:\n    max_duration: 1h\n", 1)

    async def main() -> None:
        async with host(tmp_path, policy) as made:
            run_id = await _started(made, made.caller())
            runs = made.broker.parts.loops
            live = runs.live[run_id]
            assert live.timer is not None
            live.timer.cancel()
            live.ends_boot_ms = clock.boot_ns() // 1_000_000 + 50  # the hour is nearly over
            runs._expire(run_id)
            cut = await made.worker.until_notice(m.CutRun)
            assert cut == m.CutRun(run_id, Reason.TIMED_OUT)
            await made.kernel.until(lambda: run_id in made.kernel.killed)
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            answer = await made.worker.ask(m.Authorize(session))
            assert isinstance(answer, m.Authorized)
            assert answer.reason is Reason.RUN_REVOKED
            made.kernel_end.notify(m.RunEmptied(run_id, 1))
            await made.reporter.until(lambda: bool(made.reporter.of(RunEnded)))
            assert made.reporter.of(RunEnded) == [RunEnded(run_id, Reason.TIMED_OUT)]

    run_async(main())


@pytest.mark.parametrize(("set_by_s", "left_s"), [(0, 60), (-86_400, 60), (30, 30), (3_600, 0)])
def test_a_clock_that_was_set_gives_no_run_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by_s: int, left_s: int
) -> None:
    """A run that is read back has its max_duration at most, however long ago it says it began."""
    policy = POLICY.replace("nightly:\n", "nightly:\n    max_duration: 60s\n", 1)
    real = clock.unix_ms

    async def main() -> None:
        async with host(tmp_path, policy) as made:
            began_ms = real()
            run_id = await _started(made, made.caller())
            runs = made.broker.parts.loops
            run = runs.live.pop(run_id).run
            monkeypatch.setattr(clock, "unix_ms", lambda: real() + 1000 * set_by_s)
            runs._add(run, RunState.LIVE)
            live = runs.live[run_id]
            left_ms = live.ends_boot_ms - clock.boot_ns() // 1_000_000
            passed_ms = real() - began_ms + 1_000
            assert 1000 * left_s - passed_ms <= left_ms <= 1000 * left_s
            if left_s:
                assert live.timer is not None
                live.timer.cancel()
            else:
                assert (await made.worker.until_notice(m.CutRun)).reason is Reason.TIMED_OUT

    run_async(main())


def test_a_sleeping_host_does_not_stretch_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers stand still in suspend; the boot clock does not, and is looked at again and again."""
    policy = POLICY.replace("nightly:\n", "nightly:\n    max_duration: 1h\n", 1)
    monkeypatch.setattr(loops, "TICK_S", 0.05)
    real = clock.boot_ns

    async def main() -> None:
        async with host(tmp_path, policy) as made:
            run_id = await _started(made, made.caller())
            monkeypatch.setattr(clock, "boot_ns", lambda: real() + 3_600 * 10**9)
            cut = await made.worker.until_notice(m.CutRun)
            assert cut == m.CutRun(run_id, Reason.TIMED_OUT)

    run_async(main())


def test_a_cgroup_that_is_refused_has_a_next_step_of_its_own(tmp_path: Path) -> None:
    """Nothing is wrong with the host when a path was mistyped: `doctor` would find nothing."""

    async def main() -> None:
        async with host(tmp_path) as made:
            made.kernel.refuse[m.RegisterCgroup] = "no such cgroup: /nope"
            made.kernel.refuse[m.CreateRun] = "no room"
            refused = await expect(made.caller().ask(c.RegisterLoop("nightly", "/nope")), c.Refused)
            assert refused.detail == "no such cgroup: /nope"
            assert refused.next_step.startswith("Name one as /proc/PID/cgroup does")
            refused = await expect(made.caller().ask(c.StartRun("nightly", (), "")), c.Refused)
            assert "loopwarden doctor" in refused.next_step

    run_async(main())


def test_runs_that_are_being_made_count_for_their_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a user asks for at once, no more than the limit is made."""
    monkeypatch.setattr(loops, "RUNS_A_USER_MAX", 2)
    policy = "targets: {{}}\nloops:\n  job: {{who: [{{uid: 4242}}], rules: []}}\n"
    initiator = Initiator(4242, "someone", 1, "", "", "/x")
    peer = Peer(4242, 4242, frozenset({4242}), initiator)

    async def main() -> None:
        async with host(tmp_path, policy) as made:
            runs = made.broker.parts.loops
            asked = [asyncio.ensure_future(runs.create(peer, "job", ())) for _ in range(5)]
            await asyncio.wait(asked)
            assert sum(one.exception() is None for one in asked) == 2
            assert len(made.kernel.runs) == 2
            assert not runs._creating_for
            for run_id in tuple(runs.live):
                ending = runs.finish(run_id, Reason.DONE)
                assert ending is not None
                await ending
            assert (await runs.create(peer, "job", ())).loop == "job"

    run_async(main())


def test_a_kernel_that_refuses_is_asked_until_the_run_is_gone(tmp_path: Path) -> None:
    """RemoveRun fails at first: it is tried again; the end is recorded once."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _started(made, made.caller())
            made.kernel.refuse[m.RemoveRun] = "busy"
            made.kernel_end.notify(m.RunEmptied(run_id, 1))
            await made.kernel.until(
                lambda: sum(isinstance(call, m.RemoveRun) for call in made.kernel.calls) >= 2
            )
            made.kernel.refuse.clear()
            await made.kernel.until(lambda: not made.kernel.runs)
            assert len(made.reporter.of(RunEnded)) == 1

    run_async(main())


@pytest.mark.parametrize("request_type", [m.CreateRun, m.Admit])
def test_what_the_kernel_refuses_is_refused_with_its_words(
    tmp_path: Path, request_type: type[m.Message]
) -> None:
    """The kernel's reason reaches the caller."""

    async def main() -> None:
        async with host(tmp_path) as made:
            made.kernel.refuse[request_type] = "no slot in the map"
            caller = made.caller()
            reply = await caller.ask(c.StartRun("nightly", (), ""))
            if isinstance(reply, c.RunOpened):
                pidfd = os.pidfd_open(os.getpid())
                reply = await caller.ask(c.AdmitRun(reply.run_id), pidfd)
                os.close(pidfd)
            assert isinstance(reply, c.Refused)
            assert reply.detail == "no slot in the map"

    run_async(main())


LIMITED = """
targets: {{}}
loops:
  twice: {{max_concurrent: 2, rules: []}}
  never: {{hours: [], rules: []}}
  always: {{hours: ["daily 00:00-24:00 Asia/Tokyo"], rules: []}}
"""


def test_a_loop_runs_so_often_at_once(tmp_path: Path) -> None:
    """At max_concurrent one more is refused, root's too, also when all are asked for at once."""

    async def main() -> None:
        async with host(tmp_path, LIMITED) as made:
            async with asyncio.TaskGroup() as group:
                asks = [made.caller().ask(c.StartRun("twice", (), "")) for _ in range(3)]
                tasks = [group.create_task(ask) for ask in asks]
            replies = [task.result() for task in tasks]
            [refused] = [reply for reply in replies if isinstance(reply, c.Refused)]
            assert refused.reason is Reason.OVERLOADED
            assert "2 runs of loop twice are live" in refused.detail
            assert len(made.kernel.runs) == 2
            await expect(made.caller().ask(c.StartRun("always", (), "")), c.RunOpened)
            ended = next(run for run in made.kernel.runs.values() if run.loop == "twice").run_id
            made.kernel_end.notify(m.RunEmptied(ended, 1))
            await made.kernel.until(lambda: ended not in made.kernel.runs)
            await expect(made.caller().ask(c.StartRun("twice", (), "")), c.RunOpened)

    run_async(main())


def test_a_loop_starts_in_its_hours_alone(tmp_path: Path) -> None:
    """Outside them even root is told the hours and the time there; no run is made."""

    async def main() -> None:
        async with host(tmp_path, LIMITED) as made:
            refused = await expect(made.caller().ask(c.StartRun("never", (), "")), c.Refused)
            assert refused.reason is Reason.POLICY_DENIED
            assert refused.detail == "loop never may start at no time"
            assert not made.kernel.runs
            await expect(made.caller().ask(c.StartRun("always", (), "")), c.RunOpened)

    run_async(main())
