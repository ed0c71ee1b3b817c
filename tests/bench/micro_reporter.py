"""CPU of the real reporter per intent and outcome (`python -m tests.bench.micro_reporter`).

Two shapes: 32 peers that each wait for one answer (the worst for batching), and one proxy that
sends 32 pairs a frame (what a busy worker does).
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from agent.ipc.messages import Record
from agent.ipc.records import pack_event
from tests.servers.reporter import Reporter, Worker, running_reporter
from tests.unit.reporter.events import finished, intended, session_opened

PAIRS = 40_000
AT_ONCE = 32
SETTINGS = "[spool]\nbytes_max = 1000000000\n"
TICKS_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return user and system time of a process, its threads included (proc(5), fields 14, 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


async def send(
    worker: Worker, session: int, first: int, frames: int, pairs: int, level: str
) -> None:
    """Send frames one after the other, each when the one before is durable."""
    for frame in range(frames):
        numbers = range(first + frame * pairs, first + (frame + 1) * pairs)
        packed = tuple(
            pack_event(event)
            for number in numbers
            for event in (intended(number, session), finished(number, session))
        )
        worker.number += 1
        worker.endpoint.notify(Record(packed, worker.number, level))
        await worker.until_durable(worker.number)


async def measure(reporter: Reporter, peers: int, pairs: int, level: str) -> tuple[float, float]:
    """Return microseconds of the reporter's CPU a pair, and pairs a second."""
    assert reporter.process is not None
    workers = []
    for number in range(peers):
        name = f"proxy@{number}"
        workers.append(await reporter.worker(name, session_opened(number + 1, worker=name)))
    frames = PAIRS // peers // pairs
    before_s, began_s = cpu_s(reporter.process.pid), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, worker in enumerate(workers):
            tasks.create_task(
                send(worker, number + 1, 1 + number * frames * pairs, frames, pairs, level)
            )
    used_s, took_s = cpu_s(reporter.process.pid) - before_s, time.monotonic() - began_s
    for worker in workers:
        worker.endpoint.close()
    done = frames * pairs * peers
    return used_s * 1e6 / done, done / took_s


async def main() -> None:
    """Print both shapes at both durabilities."""
    for peers, pairs in ((AT_ONCE, 1), (1, AT_ONCE)):
        for level in ("process", "disk"):
            with tempfile.TemporaryDirectory(prefix="lwb-reporter-", dir="/var/tmp") as folder:
                async with running_reporter(Path(folder), SETTINGS) as reporter:
                    cost_us, rate = await measure(reporter, peers, pairs, level)
            sys.stdout.write(
                f"{peers:>2} peers x {pairs:>2} pairs a frame, {level:<7}: "
                f"{cost_us:5.1f} us CPU a pair, {rate:8.0f} pairs/s\n"
            )


if __name__ == "__main__":
    uvloop.run(main())
