"""A full disk and a failing disk: the reporter refuses, and nothing it answered for is lost.

Full is a small tmpfs, filled by somebody else; failing is libfiu, which makes fdatasync(2) of the
living process return EIO.
"""

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvloop

from agent.model.audit import Alarm
from agent.pb import audit_pb2 as pb
from agent.reporter.main import DEAD_EXIT_CODE
from tests.servers.reporter import USER, Reporter, Worker, running_reporter
from tests.unit.reporter.events import finished, intended, session_opened, ulid
from tests.unit.reporter.test_main import records

TMPFS_BYTES = 12 << 20
SETTINGS = "[spool]\nbytes_max = 1000000000\nsegment_bytes_max = 262144\n"


@contextmanager
def small_disk(point: Path) -> Iterator[Path]:
    point.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES},mode=755", "none", point], check=True
    )
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lwt-faults-", dir="/var/tmp") as made:
        yield Path(made)


@asynccontextmanager
async def on_small_disk(settings: str = SETTINGS) -> AsyncIterator[tuple[Reporter, Path]]:
    with scratch() as folder, small_disk(folder / "state") as disk:
        async with running_reporter(folder, settings) as reporter:
            yield reporter, disk


def intents(stored: list[pb.Record]) -> set[str]:
    """Ids of the operations that are on record as intended."""
    return {
        record.operation_intended.operation.operation_id
        for record in stored
        if record.WhichOneof("event") == "operation_intended"
    }


def alarms(stored: list[pb.Record]) -> list[str]:
    return [record.alarmed.alarm for record in stored if record.HasField("alarmed")]


def fill(disk: Path) -> Path:
    """Take all the space that is left."""
    path = disk / "filler"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(65_536))
    except OSError:
        return path
    finally:
        os.close(fd)


async def send_until_refused(worker: Worker) -> int:
    """Send calls with large outcomes as fast as they are answered; return how many were sent."""
    number = 0
    while not worker.states:
        for _ in range(20):
            number += 1
            worker.record(finished(number - 1), intended(number))
        await answered_or_refused(worker, worker.number)
    return number


async def answered_or_refused(worker: Worker, number: int) -> None:
    while worker.durable < number and not worker.states:
        worker.changed.clear()
        await worker.changed.wait()


def test_a_full_disk_refuses_records_it_and_loses_nothing() -> None:
    """ENOSPC: all are told, the refusal is recorded from the reserve, no answer was wrong."""

    async def scenario() -> None:
        async with on_small_disk() as (reporter, disk):
            worker = await reporter.worker("proxy@0", session_opened(1))
            await worker.until_durable(worker.record(intended(1)))
            filler = fill(disk)
            await send_until_refused(worker)
            answered = worker.durable
            state = worker.states[-1]
            assert not state.accepting
            assert "space" in state.detail
            await reporter.kill()
            filler.unlink()
            stored = records(reporter.spool)
            assert alarms(stored) == [Alarm.SPOOL_FULL]
            assert {ulid(number) for number in range(1, answered)} <= intents(stored)

    uvloop.run(scenario())


def test_outcomes_are_still_recorded_when_the_disk_is_full() -> None:
    """What was begun gets its end on record; what is begun now waits, and is not answered."""

    async def scenario() -> None:
        async with on_small_disk() as (reporter, disk):
            worker = await reporter.worker("proxy@0", session_opened(1))
            await worker.until_durable(worker.record(intended(1)))
            filler = fill(disk)
            await send_until_refused(worker)
            other = await reporter.worker("proxy@1", session_opened(2, worker="proxy@1"))
            await other.until_state(accepting=False)
            await other.until_durable(other.record(finished(1, session=2)))
            refused = other.record(intended(1_000_000, session=2))
            await reporter.status()
            assert other.durable < refused
            filler.unlink()
            await other.until_state(accepting=True)
            await other.until_durable(refused)
            await worker.until_durable(worker.number)
            stored = records(reporter.spool)
            assert ulid(1_000_000) in intents(stored)

    uvloop.run(scenario())


def test_the_bound_refuses_as_a_full_disk_does() -> None:
    """bytes_max less the headroom: refused with the bound's name, recorded, status says so."""

    async def scenario() -> None:
        settings = "[spool]\nbytes_max = 10000000\nsegment_bytes_max = 262144\n"
        async with on_small_disk(settings) as (reporter, _):
            worker = await reporter.worker("proxy@0", session_opened(1))
            await send_until_refused(worker)
            assert "bound is reached" in worker.states[-1].detail
            assert "1 MiB of records wait for the collector" in worker.states[-1].detail
            state = await reporter.status()
            assert not state.accepting
            assert state.spool_bytes <= state.spool_bytes_max
            await reporter.kill()
            stored = records(reporter.spool)
            assert alarms(stored) == [Alarm.SPOOL_FULL]
            assert {ulid(number) for number in range(1, worker.durable)} <= intents(stored)

    uvloop.run(scenario())


def test_a_failed_flush_ends_the_reporter_without_an_answer() -> None:
    """EIO of fdatasync: refused, no further answer, exit; what was answered before is there."""

    async def scenario() -> None:
        with scratch() as folder:
            control = folder / "fiu"
            async with running_reporter(folder, SETTINGS, failable(folder, control)) as reporter:
                worker = await reporter.worker("proxy@0", session_opened(1))
                for number in range(1, 51):
                    worker.record(intended(number))
                await worker.until_durable(50)
                assert reporter.process is not None
                fail_flushes(control, reporter.process.pid)
                worker.record(intended(51))
                await worker.until_state(accepting=False)
                assert await reporter.wait() == DEAD_EXIT_CODE
                assert worker.durable == 50
                assert {ulid(number) for number in range(1, 51)} <= intents(records(reporter.spool))

    uvloop.run(scenario())


def failable(folder: Path, control: Path) -> tuple[str, ...]:
    """Return what to start the reporter with: libfiu, and its user from the start.

    libfiu's control thread does not survive the signals by which setresuid(2) reaches threads.
    """
    os.chown(folder, int(USER), int(USER))
    user = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    return ("setpriv", *user, "fiu-run", "-x", "-f", str(control))


def fail_flushes(control: Path, pid: int) -> None:
    subprocess.run(
        [
            *("fiu-ctrl", "-f", str(control)),
            *("-c", "enable name=posix/io/sync/fdatasync,failinfo=5", str(pid)),
        ],
        check=True,
        capture_output=True,
    )


def test_the_next_life_goes_on_behind_a_failed_flush() -> None:
    """After EIO the next start reads back, writes anew, and numbers go on without a gap."""

    async def scenario() -> None:
        with scratch() as folder:
            control = folder / "fiu"
            async with running_reporter(folder, SETTINGS, failable(folder, control)) as reporter:
                worker = await reporter.worker("proxy@0", session_opened(1))
                await worker.until_durable(worker.record(intended(1)))
                assert reporter.process is not None
                fail_flushes(control, reporter.process.pid)
                worker.record(intended(2))
                await reporter.wait()
                reporter.prefix = ()
                await reporter.start()
                worker = await reporter.worker("proxy@0", session_opened(1))
                await worker.until_durable(worker.record(intended(3)))
                stored = records(reporter.spool)
                assert {ulid(1), ulid(3)} <= intents(stored)
                assert [one.seq for one in stored] == list(range(1, len(stored) + 1))

    uvloop.run(scenario())
