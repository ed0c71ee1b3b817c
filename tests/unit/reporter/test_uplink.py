"""From the spool to a real collector: at least once, in order, and never another history."""

import asyncio
import dataclasses
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from sqlalchemy import select

from agent.collector import checkpoints
from agent.collector.authority import load_authority, open_authority, server_pair
from agent.collector.schema import hosts
from agent.collector.service import Service
from agent.collector.store import FILE_NAME, Head, open_store, store_url
from agent.collector.tokens import utc_now
from agent.ipc.messages import ReporterState
from agent.model.audit import Alarm
from agent.pb import audit_pb2
from agent.spool.recovery import Recovered, payloads, recover
from tests.servers.collector import Collector, running_collector
from tests.servers.reporter import USER, Reporter, running_reporter
from tests.unit.reporter.events import finished, intended, session_opened

WITHIN_S = 90.0
SETTINGS = """[spool]
bytes_max = 40000000
segment_bytes_max = 65536
[collector]
address = "{address}"
identity_dir = "{identity}"
"""


@asynccontextmanager
async def pair_of_both() -> AsyncIterator[tuple[Reporter, Collector]]:
    with (
        TemporaryDirectory(prefix="lwt-uplink-", dir="/var/tmp") as folder,
        running_collector(Path(folder, "collector")) as collector,
    ):
        settings = SETTINGS.format(address=collector.address, identity=collector.enroll("web1"))
        async with running_reporter(Path(folder), settings) as reporter:
            yield reporter, collector


async def until(reporter: Reporter, holds: Callable[[ReporterState], bool]) -> ReporterState:
    """Ask for the status until it is so."""
    async with asyncio.timeout(WITHIN_S):
        while not holds(state := await reporter.status()):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return state


def emptied(state: ReporterState) -> bool:
    return state.connected and state.acknowledged_seq == state.last_seq


def host(collector: Collector) -> dict[str, Any]:
    (row,) = collector.ask("hosts")
    return row


async def send(reporter: Reporter, first: int, count: int) -> None:
    numbers = range(first, first + count)
    broker = reporter.wire("broker")
    for number in numbers:
        broker.record(session_opened(number), level="process")
    await broker.until_durable(broker.number)
    worker = reporter.wire("proxy@0")
    for number in numbers:
        worker.record(intended(number, number), finished(number, number))
    await worker.until_durable(worker.number)


def test_everything_durable_arrives_and_segments_go() -> None:
    """All records are held and verify, and the spool shrinks to what is not acknowledged."""

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            await send(reporter, 1, 500)
            state = await until(reporter, emptied)
            assert host(collector)["seq"] == state.last_seq
            assert all(row["intact"] for row in collector.ask("verify"))
            assert len(collector.ask("sessions", "list", "--limit", "1000")) == 500
            assert state.spool_bytes < 2 * 65_536 + 10_000

    uvloop.run(scenario())


def test_a_collector_that_was_away_gets_everything_once() -> None:
    """SIGKILL of the collector, records meanwhile, its return: no gap, nothing twice."""

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            await send(reporter, 1, 50)
            await until(reporter, emptied)
            collector.kill()
            await until(reporter, lambda state: not state.connected)
            await send(reporter, 1_000, 300)
            collector.start()
            state = await until(reporter, emptied)
            assert host(collector)["seq"] == state.last_seq
            assert all(row["intact"] for row in collector.ask("verify"))
            assert len(collector.ask("sessions", "list", "--limit", "1000")) == 350

    uvloop.run(scenario())


def test_a_reporter_that_was_killed_goes_on_where_it_was() -> None:
    """SIGKILL of the reporter in mid-upload, again and again: the chain goes on, and verifies."""

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            for life in range(4):
                await send(reporter, life * 1_000 + 1, 200)
                await reporter.kill()
                await reporter.start()
            state = await until(reporter, emptied)
            assert host(collector)["seq"] == state.last_seq
            assert all(row["intact"] for row in collector.ask("verify"))
            assert len(collector.ask("sessions", "list", "--limit", "1000")) == 800

    uvloop.run(scenario())


def test_an_older_spool_is_refused_and_says_so() -> None:
    """A spool that was put back to an earlier state: no upload, a clear status, a kept refusal."""

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            await send(reporter, 1, 20)
            await until(reporter, emptied)
            await reporter.drain()
            old = reporter.folder / "old"
            shutil.copytree(reporter.spool, old)
            await reporter.start()
            await send(reporter, 100, 200)
            state = await until(reporter, emptied)
            await reporter.kill()
            shutil.rmtree(reporter.spool)
            shutil.copytree(old, reporter.spool)
            for path in reporter.spool.iterdir():
                shutil.chown(path, int(USER), int(USER))
            await reporter.start()
            state = await until(reporter, lambda state: "rollback" in state.detail)
            assert not state.connected
            row = host(collector)
            assert (row["refusals"], row["seq"] > state.last_seq) == (1, True)

    uvloop.run(scenario())


def test_a_rewritten_past_is_refused_and_says_so() -> None:
    """Another history of the same numbers, longer than what is held: refused as a rewrite."""

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            await send(reporter, 1, 20)
            state = await until(reporter, emptied)
            await reporter.kill()
            shutil.rmtree(reporter.spool)
            settings, reporter.settings = reporter.settings, ""
            await reporter.start()
            await send(reporter, 1, 2 * state.last_seq)
            await reporter.drain()
            reporter.settings = settings
            await reporter.start()
            await until(reporter, lambda state: "rewrite" in state.detail)
            assert host(collector)["seq"] == state.last_seq
            assert all(row["intact"] for row in collector.ask("verify"))

    uvloop.run(scenario())


def recovered(reporter: Reporter) -> Recovered:
    """What a copy of the spool holds: reading writes, and we are another user."""
    copy = reporter.folder / f"copy-{uuid.uuid4()}"
    shutil.copytree(reporter.spool, copy)
    return recover(copy)


def alarms(reporter: Reporter) -> list[str]:
    """Details of the refused uploads in the spool."""
    found = []
    for segment in recovered(reporter).segments:
        for payload in payloads(segment):
            record = audit_pb2.Record.FromString(payload)
            if record.alarmed.alarm == Alarm.UPLOAD_REFUSED:
                found.append(record.alarmed.detail)
    return found


def test_a_collector_that_was_set_back_is_refused_and_nothing_is_deleted() -> None:
    """Its store is replaced by an older copy: no upload, an alarm, and all records stay.

    By the copy alone `verify` finds nothing, with the host's head it names the first lost record.
    When the head is moved away, as advised, the upload goes on, and the loss is a marked gap.
    """

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            await send(reporter, 1, 20)
            await until(reporter, emptied)
            collector.stop()
            old = collector.folder / "old.sqlite3"
            shutil.copy(collector.state_dir / FILE_NAME, old)
            collector.start()
            await send(reporter, 100, 300)
            held = (await until(reporter, emptied)).acknowledged_seq
            was = host(collector)["seq"]
            collector.stop()
            await until(reporter, lambda state: not state.connected)
            shutil.copy(old, collector.state_dir / FILE_NAME)
            back = host(collector)["seq"]
            await send(reporter, 1_000, 20)
            before = (await reporter.status()).spool_bytes
            collector.start()
            state = await until(reporter, lambda state: "went back" in state.detail)
            assert "move it away" in state.detail
            assert (state.connected, state.spool_bytes >= before) == (False, True)
            assert (was >= held, host(collector)["seq"]) == (True, back)
            await reporter.drain()
            assert any("went back" in one for one in alarms(reporter))
            assert recovered(reporter).next_seq > held + 60
            check_offline(collector, reporter, back)
            (reporter.spool / "checkpoint").rename(reporter.folder / "checkpoint.before")
            await reporter.start()
            await until(reporter, emptied)
            assert (host(collector)["gaps"], host(collector)["seq"] > held) == (1, True)

    uvloop.run(scenario())


def check_offline(collector: Collector, reporter: Reporter, back: int) -> None:
    words = ("verify", "--json", "--state-dir", str(collector.state_dir))
    assert collector.command(*words).returncode == 0
    done = collector.command(*words, "--checkpoint", str(reporter.spool / "checkpoint"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["bad_seq"] == back + 1


def test_a_collector_with_another_key_is_refused() -> None:
    """The certificates are right, the signatures are another key's: not greeted, nothing taken."""

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            await send(reporter, 1, 20)
            held = (await until(reporter, emptied)).acknowledged_seq
            collector.stop()
            await until(reporter, lambda state: not state.connected)
            await send(reporter, 100, 20)
            real = load_authority(collector.state_dir)
            other = open_authority(collector.folder / "other", utc_now())
            engine = open_store(store_url(collector.state_dir))
            with engine.begin() as connection:  # the thief signs anew what it took
                ((host_id, seq, digest),) = connection.execute(
                    select(hosts.c.host_id, hosts.c.seq, hosts.c.hash)
                ).all()
                checkpoints.keep(connection, other, host_id, Head(seq, digest), 1)
            service = Service(
                engine,
                dataclasses.replace(real, ca_key=other.ca_key),
                server_pair(collector.state_dir),
            )
            await service.start(collector.address, "127.0.0.1:0")
            state = await until(reporter, lambda state: "not signed for this host" in state.detail)
            assert (state.connected, state.acknowledged_seq) == (False, held)
            await service.stop()
            engine.dispose()
            await reporter.drain()
            assert any("not signed for this host" in one for one in alarms(reporter))

    uvloop.run(scenario())


def test_damage_is_marked_at_the_collector_and_the_rest_arrives() -> None:
    """A segment that rots while the collector is away: a gap and an alarm there, not silence."""

    async def scenario() -> None:
        async with pair_of_both() as (reporter, collector):
            await until(reporter, emptied)
            collector.stop()
            await send(reporter, 1, 600)
            await reporter.kill()
            bad = sorted(reporter.spool.glob("*.seg"))[1]
            data = bytearray(bad.read_bytes())
            data[len(data) // 2] ^= 1
            bad.write_bytes(data)
            await reporter.start()
            collector.start()
            await until(reporter, emptied)
            row = host(collector)
            assert (row["gaps"], row["refusals"]) == (1, 0)
            alarms = [one["alarm"] for one in collector.ask("alarms")]
            assert alarms == ["spool-quarantined"]
            (report,) = collector.ask("verify")
            assert (report["intact"], report["gaps"]) == (True, 1)

    uvloop.run(scenario())
