"""The reporter's process: what it answers, what it has recorded when it is killed."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop

from agent.ipc.endpoint import PeerGone
from agent.ipc.messages import Record
from agent.ipc.records import pack_event
from agent.model.audit import Alarm, Alarmed, AuditEvent, Outcome
from agent.pb import audit_pb2 as pb
from agent.reporter.main import life_of
from agent.spool.format import scan
from agent.spool.recovery import payloads, recover
from tests.servers.reporter import Reporter, running_reporter
from tests.unit.reporter.events import (
    denied,
    finished,
    intended,
    run_started,
    session_closed,
    session_opened,
    ulid,
)

Scenario = Callable[[Reporter], Awaitable[None]]


def with_reporter(scenario: Scenario, settings: str = "") -> None:
    async def run() -> None:
        with TemporaryDirectory(prefix="lwt-reporter-", dir="/var/tmp") as folder:
            async with running_reporter(Path(folder), settings) as reporter:
                await scenario(reporter)

    uvloop.run(run())


def records(spool: Path) -> list[pb.Record]:
    """Everything in the spool, as the next start would find it."""
    with TemporaryDirectory(prefix="lwt-spool-", dir="/var/tmp") as folder:
        copy = Path(folder, "spool")  # recovery rewrites files, and the reporter may be alive
        shutil.copytree(spool, copy)
        found = recover(copy)
        assert found.problems == ()
        return [pb.Record.FromString(one) for part in found.segments for one in payloads(part)]


def kinds(spool: Path, role: str) -> list[str | None]:
    return [record.WhichOneof("event") for record in records(spool) if record.role == role]


@pytest.mark.parametrize("level", ["disk", "process"])
def test_what_was_answered_survives_sigkill(level: str) -> None:
    """Every answered frame is in the spool after SIGKILL, once, in its order, from its sender."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1))
        for number in range(1, 301):
            worker.record(intended(number), finished(number), level=level)
        await worker.until_durable(200)
        answered = worker.durable
        await reporter.kill()
        stored = [record for record in records(reporter.spool) if record.role == "proxy@0"]
        ids = [
            record.operation_intended.operation.operation_id
            for record in stored
            if record.WhichOneof("event") == "operation_intended"
        ]
        assert ids[:answered] == [ulid(number) for number in range(1, answered + 1)]
        assert [record.seq for record in records(reporter.spool)] == list(
            range(1, len(records(reporter.spool)) + 1)
        )

    with_reporter(scenario)


def test_no_answer_is_given_that_was_not_asked_for() -> None:
    """A frame with durable 0 is recorded and not answered; the next answer covers it."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1))
        worker.record(intended(1), answer=False)
        number = worker.record(finished(1))
        await worker.until_durable(number)
        assert kinds(reporter.spool, "proxy@0") == ["operation_intended", "operation_finished"]

    with_reporter(scenario)


def test_a_weaker_level_does_not_answer_for_a_stronger_one() -> None:
    """Frames of both levels in turns are all answered, each by its own kind of answer."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1))
        for number in range(1, 101):
            worker.record(intended(number), level="disk" if number % 2 else "process")
        await worker.until_durable(99)
        assert len(kinds(reporter.spool, "proxy@0")) == 100

    with_reporter(scenario)


def test_a_dead_workers_operations_and_sessions_get_an_end() -> None:
    """When a proxy is gone, its open operations end as unknown and its sessions are closed."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1), session_opened(2))
        worker.record(intended(11), intended(12), finished(12), session_closed(2))
        await worker.until_durable(1)
        worker.endpoint.close()
        other = await reporter.worker("proxy@1", session_opened(3, worker="proxy@1"))
        await other.until_durable(other.record(session_closed(3)))
        ends = [one for one in records(reporter.spool) if one.role == "reporter"]
        unknown = [one.operation_finished for one in ends if one.HasField("operation_finished")]
        closed = [one.session_closed for one in ends if one.HasField("session_closed")]
        assert [(one.operation_id, one.outcome) for one in unknown] == [(ulid(11), "unknown")]
        assert [one.session_id for one in closed] == [ulid(1)]

    with_reporter(scenario)


def test_an_intent_of_an_earlier_life_gets_an_end_over_rolls() -> None:
    """The intent's segment is far behind, and the reporter dies twice: one unknown outcome."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1))
        await worker.until_durable(worker.record(intended(1)))
        for number in range(2, 1_500):
            worker.record(intended(number), finished(number))
        await worker.until_durable(worker.number)
        assert len(list(reporter.spool.glob("*.seg"))) > 3
        await reporter.kill()
        await reporter.start()
        await reporter.kill()
        await reporter.start()
        ends = [
            one.operation_finished
            for one in records(reporter.spool)
            if one.operation_finished.outcome == Outcome.UNKNOWN
        ]
        assert [one.operation_id for one in ends] == [ulid(1)]

    with_reporter(scenario, "[spool]\nbytes_max = 50000000\nsegment_bytes_max = 65536\n")


def test_a_sender_of_nonsense_is_cut_off_and_recorded() -> None:
    """An event that can't be stored ends its sender alone, and is an alarm."""

    async def scenario(reporter: Reporter) -> None:
        bad = await reporter.worker("proxy@0", session_opened(1))
        good = await reporter.worker("proxy@1", session_opened(2, worker="proxy@1"))
        await bad.until_durable(bad.record(intended(1)))
        number = -1
        bad.record(session_closed(5, operations=number))
        await bad.until_gone()
        await good.until_durable(good.record(intended(2, session=2)))
        await good.until_durable(good.record(finished(2, session=2)))
        alarms = [one.alarmed for one in records(reporter.spool) if one.HasField("alarmed")]
        assert [one.alarm for one in alarms] == ["peer-violation"]
        assert "proxy@0" in alarms[0].detail

    with_reporter(scenario)


def test_status_says_what_the_spool_holds() -> None:
    """ReporterStatus answers with sizes, numbers, and that no collector is configured."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1))
        await worker.until_durable(worker.record(intended(1)))
        state = await reporter.status()
        assert state.accepting
        assert not state.connected
        assert state.last_seq >= 2
        stored = [scan(path.read_bytes()) for path in reporter.spool.glob("*.seg")]
        assert state.spool_bytes == sum(one.end for one in stored)
        assert await reporter.drain() == 0

    with_reporter(scenario, "[spool]\nheartbeat_s = 3600.0\n")


def test_heartbeats_are_written_when_nothing_happens() -> None:
    """At each interval, so that a truncated tail is seen."""

    async def scenario(reporter: Reporter) -> None:
        worker = reporter.wire("proxy@0")
        while kinds(reporter.spool, "reporter").count("heartbeat") < 3:
            await worker.until_durable(worker.record(session_closed(1)))
            await asyncio.sleep(0.05)

    with_reporter(scenario, "[spool]\nheartbeat_s = 0.1\n")


def test_a_life_is_named_by_pid_and_start_time() -> None:
    """Two looks at the same process give the same name."""
    assert life_of(os.getpid()) == life_of(os.getpid()) != life_of(1)


@pytest.mark.parametrize(
    "event", [run_started(1), session_opened(1), Alarmed(Alarm.ROLE_DIED, "forged", None)]
)
def test_a_worker_can_not_tell_what_is_the_brokers(event: AuditEvent) -> None:
    """Runs, sessions and alarms of a proxy end it, unrecorded; of the broker they are recorded."""

    async def scenario(reporter: Reporter) -> None:
        worker = reporter.wire("proxy@0")
        worker.record(event)
        await worker.until_gone()
        broker = reporter.wire("broker")
        await broker.until_durable(broker.record(event))
        roles = [one.role for one in records(reporter.spool) if "forged" in str(one)]
        for kind in ("run_started", "session_opened"):
            roles += [one.role for one in records(reporter.spool) if one.HasField(kind)]
        assert roles == ["broker"]

    with_reporter(scenario)


@pytest.mark.parametrize(
    "lie",
    [intended(7, session=9), denied(7, session=9), intended(7, session=1, run=5), denied(7, run=5)],
    ids=["intent, no session", "denial, no session", "intent, other run", "denial, other run"],
)
def test_an_operation_needs_a_session_that_the_broker_opened(lie: AuditEvent) -> None:
    """One that names none, or one of another run, ends its worker, unrecorded, with an alarm."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1))
        await worker.until_durable(worker.record(intended(1), finished(1)))
        worker.record(lie)
        await worker.until_gone()
        other = await reporter.worker("proxy@1", session_opened(2, worker="proxy@1"))
        await other.until_durable(other.record(intended(2, session=2)))
        stored = records(reporter.spool)
        assert [one.alarmed.alarm for one in stored if one.HasField("alarmed")] == [
            "peer-violation"
        ]
        assert ulid(7) not in str(stored)

    with_reporter(scenario)


def test_what_is_sent_again_to_a_successor_is_no_lie() -> None:
    """A session that was closed before the reporter died is still known to the next ones."""

    async def scenario(reporter: Reporter) -> None:
        worker = await reporter.worker("proxy@0", session_opened(1), session_opened(2))
        frame = (intended(1), finished(1), session_closed(1))
        await worker.until_durable(worker.record(*frame))
        for _ in range(2):
            await reporter.kill()
            await reporter.start()
            worker = reporter.wire("proxy@0")
            await worker.until_durable(worker.record(*frame))
            await worker.until_durable(worker.record(intended(2, session=2)))
        assert not any(one.HasField("alarmed") for one in records(reporter.spool))

    with_reporter(scenario)


def test_descriptors_of_a_hostile_worker_are_not_kept() -> None:
    """Frames with descriptors end the sender; the reporter's table does not fill."""

    async def scenario(reporter: Reporter) -> None:
        assert reporter.process is not None
        worker = await reporter.worker("proxy@0", session_opened(1))
        await worker.until_durable(worker.record(intended(1)))
        before = len(os.listdir(f"/proc/{reporter.process.pid}/fd"))
        with contextlib.suppress(PeerGone):
            for number in range(100):
                record = Record((pack_event(intended(number)),), 0, "disk")
                worker.endpoint.notify(record, [0] * 32)
        await worker.until_gone()
        assert len(os.listdir(f"/proc/{reporter.process.pid}/fd")) <= before

    with_reporter(scenario)
