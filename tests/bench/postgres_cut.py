"""`python -m tests.bench.postgres_cut`: how soon a run's end, and a revoke, stop its statements.

Time begins when the run's processes are killed, or the revoke is asked for on the control socket.
`cut`: our end of the upstream connection, at the server's host. `stopped`: the server has the
session no more. `dropped`: nor the run's role. The server is asked about both, every millisecond.

The second table has the way to the cut, as the roles log it (`debug`), since the same beginning:
`emptied`, the last process is gone, by the kernel's clock; `read`, the root daemon knows; `worker`,
the worker knows; `closed`, it has closed; `broker`, the broker knows, which then has the role
dropped; `exit to cut`, from `emptied` on. `--busy N`: N processes burn the processor meanwhile.
"""

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from agent.broker.control import Accepted, Revoke
from agent.cli.client import Client
from agent.runtime import priority
from tests.bench.far_ends import FarEnds
from tests.servers.postgres import programs
from tests.system.host import Host, running
from tests.system.postgres_site import NAME, Site, postgres_site

STATEMENTS = {
    "sleep": "SELECT pg_sleep(60)",
    "copy": "COPY (SELECT repeat('x', 100) FROM generate_series(1, 100000000)) TO STDOUT",
}
HOSTS = {"role": NAME, "static": "app.test.internal"}
BUSY = (
    "SELECT pid, usename, client_port FROM pg_stat_activity WHERE state = 'active'"
    " AND client_port > 0 AND (query ~ '^SELECT pg_sleep' OR query ~ '^COPY')"
)
LEFT = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE pid = $1),"
    " (SELECT count(*) FROM pg_roles WHERE rolname = $2 AND rolname ~ '^loopwarden_')"
)
PATIENCE_S = 30.0
ENDS = ("cut", "stopped", "dropped")
WAY = ("emptied", "read", "told", "worker", "closed", "broker", "cut", "exit to cut")
BURN = "while True: sum(range(1000))"
EXPECTED_MS = {"cut": 50.0, "dropped": 1000.0}  # at p99


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one ending."""

    cut: float
    stopped: float
    dropped: float
    way: dict[str, float]  # from the log; a revoke has no `emptied` before its cut


Ends = tuple[float, float, float]


class Rig:
    """A worker host, its database, and the one who asks."""

    def __init__(self, site: Site, host: Host, asking: "asyncpg.Connection") -> None:
        self._host = host
        self._asking = asking
        self._ends = FarEnds(site.far.inside)
        self._socket = host.base / "run" / "control.sock"
        self._boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    async def once(self, how: str, target: str, statement: str) -> Times:
        """Start a run, end it, and return how long it took."""
        with self._started(target, statement):
            backend, user, port = await self._busy()
            run_id = self._run_id()
            self._ends.ended_ns(0)
            if how == "revoke":
                began_ns = self._revoke(run_id)  # at once: no thread that has to be run first
            else:
                kill = next(self._runs().glob(f"*{run_id}*/cgroup.kill"))
                began_ns = time.time_ns()
                kill.write_text("1")
            ends = await self._until_gone(began_ns, backend, user, port)
            return Times(*ends, self._way(run_id, began_ns, how, ends))

    def _way(self, run_id: str, began_ns: int, how: str, ends: Ends) -> dict[str, float]:
        """Return when each part of the way was reached, the first time."""
        way: dict[str, float] = {}
        for text in re.findall(f"ending {run_id}: (.*)", self._host.log.read_text()):
            for name, at_ns in re.findall(r"([a-z]+) (\d+)", text):
                way.setdefault(name, (int(at_ns) + self._boot_ns - began_ns) / 1e6)
        if how == "end":
            way["exit to cut"] = ends[0] - way["emptied"]
        return way

    async def _busy(self) -> tuple[int, str, int]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                rows = await self._asking.fetch(BUSY)
                if rows:
                    return tuple(rows[0])
                await asyncio.sleep(0.005)

    async def _until_gone(self, began_ns: int, backend: int, user: str, port: int) -> Ends:
        cut_ns = stopped_ns = 0
        async with asyncio.timeout(PATIENCE_S):
            while True:
                sessions, roles = (await self._asking.fetch(LEFT, backend, user))[0]
                now_ns = time.time_ns()
                if not sessions and not stopped_ns:
                    stopped_ns = now_ns
                cut_ns = cut_ns or self._ends.ended_ns(port)
                if not sessions and not roles and cut_ns:
                    break
                await asyncio.sleep(0.001)
        cut, stopped, dropped = ((at - began_ns) / 1e6 for at in (cut_ns, stopped_ns, now_ns))
        return cut, stopped, dropped

    def _revoke(self, run_id: str) -> int:
        with Client(self._socket) as client:
            began_ns = time.time_ns()
            replies = client.rows(Revoke(run_id))
            assert isinstance(next(replies), Accepted)
        return began_ns

    @contextmanager
    def _started(self, target: str, statement: str) -> Iterator[None]:
        command = [str(programs() / "psql"), "-XAtqc", STATEMENTS[statement]]
        with subprocess.Popen(
            self._host.run_command("everything", [*command, f"postgresql://{HOSTS[target]}/orders"]),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self._host.loop_environment(), cwd="/",
        ):  # fmt: skip
            try:
                yield
            finally:
                for path in self._runs().glob("*/cgroup.kill"):
                    with contextlib.suppress(FileNotFoundError):
                        path.write_text("1")

    def _runs(self) -> Path:
        return Path(self._host.cgroup, f"{self._host.instance}.slice")

    def _run_id(self) -> str:
        for path in self._runs().glob("*/cgroup.procs"):
            found = re.search(r"[0-9A-Z]{26}", path.parent.name)
            if found and path.read_text():
                return found[0]
        raise LookupError("no run")


def row(case: str, columns: list[list[float]]) -> str:
    """Return a line of a table: p50, p99 and most of each column."""
    cells = [case, str(len(columns[0]))]
    for column in columns:
        values = sorted(column)
        if not values:
            cells += [""] * 3
            continue
        at = [values[len(values) // 2], values[min(len(values) - 1, len(values) * 99 // 100)]]
        cells += [f"{value:.1f}" for value in (*at, values[-1])]
    return f"| {' | '.join(cells)} |"


def table(names: tuple[str, ...], found: dict[str, list[Times]]) -> None:
    """Print one."""
    heads = " | ".join(f"{name} {part}" for name in names for part in ("p50 ms", "p99", "most"))
    print(f"| case | times | {heads} |\n|{'---|' * (2 + 3 * len(names))}")
    for case, times in found.items():
        every = [{**one.way, **{end: getattr(one, end) for end in ENDS}} for one in times]
        columns = [[each[name] for each in every if name in each] for name in names]
        print(row(case, columns), flush=True)


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep processes busy meanwhile."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", BURN]))
            stack.callback(busy.kill)
        yield


async def measure(site: Site, host: Host, cases: list[str], count: int) -> None:
    """Print all cases."""
    asking = await asyncpg.connect(
        host=str(site.server.folder), port=site.server.port, user="postgres", database="orders"
    )
    rig = Rig(site, host, asking)
    found: dict[str, list[Times]] = {case: [] for case in cases}
    for _ in range(count):  # in turn: what else the machine does falls on all alike
        for case in cases:
            how, target, statement = case.split()
            found[case].append(await rig.once(how, target, statement))
    table(ENDS, found)
    table(WAY, found)
    print(f"load average: {os.getloadavg()[0]:.1f}")
    await asking.close()


def main() -> None:
    """Run what was asked for."""
    every = [f"{how} {target} {statement}" for target in HOSTS for how in ("end", "revoke")
             for statement in STATEMENTS]  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="of each case")
    parser.add_argument("--cases", default=",".join(every[:4]), help=f"of: {', '.join(every)}")
    parser.add_argument("--busy", type=int, default=0, help="processes that burn the processor")
    arguments = parser.parse_args()
    priority.prompt(-15)  # it holds the watch
    name = f"lwcut{os.getpid() % 10_000}"
    with (
        postgres_site() as site,
        running(name, site.policy(), log_level="debug") as host,
        burning(arguments.busy),
    ):
        asyncio.run(measure(site, host, arguments.cases.split(","), arguments.times))


if __name__ == "__main__":
    main()
