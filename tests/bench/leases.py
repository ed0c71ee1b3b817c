"""`python -m tests.bench.leases`: how soon a run's end is the end of what it was lent.

500 runs, each with a session in PostgreSQL as a user that a real OpenBao made for it. Runs are
started 20 at a time, and ended one after the other when all 20 are at work. Time begins before the
order to end the run's processes is given (cgroup.kill). `told`: the broker has the kernel's word
and begins. `cut`: our FIN or RST at the server's host. `closed`: the broker knows that all is
stopped and closed, and asks OpenBao. `revoked`: OpenBao has ended the lease and the run's token,
and said so when it was asked; the root's own look is beside it. `told`, `closed` and `revoked` are
the broker's own times, of whole milliseconds.

--many: 1,000 runs started in 45 s, which read once and end: logins, tokens, memory, latencies.
"""

import argparse
import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.far_ends import FarEnds
from tests.bench.light_runs import JournalTail, LightRun, start_run
from tests.bench.measure import cpu_ns
from tests.servers.openbao import OpenBao
from tests.servers.postgres import programs
from tests.system.host import Host, running
from tests.system.postgres_site import NAME
from tests.system.vault_site import VaultSite, vault_site

RUNS, BATCH = 500, 20
MANY, MANY_IN_S, MANY_AT_ONCE = 1_000, 45.0, 24
PATIENCE_S, POLL_S = 60.0, 0.001
ROLES = ("broker", "proxy@0", "kernel", "reporter")
CUT_MS, REVOKED_MS = 50.0, 1_000.0  # expected at p99
BARE = 100
SLEEP_S = 1_000  # and the number of the run, so that its session is known at the server
WORKING = (
    "SELECT substring(query from 'pg_sleep\\((\\d+)\\)'), client_port FROM pg_stat_activity"
    " WHERE state = 'active' AND client_port > 0 AND query ~ '^select pg_sleep'"
)


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one ending, from the order to end the run."""

    told: float
    cut: float
    closed: float
    revoked: float


class Rig:
    """A worker host, its servers, and who listens at them."""

    def __init__(self, made: VaultSite, host: Host) -> None:
        self.made = made
        self.host = host
        self.journal = JournalTail(host.state_dir / "broker" / "leases.journal")
        self.wrong = 0  # leases that OpenBao still had when we said that they were revoked
        self._ends = FarEnds(made.site.far.inside)

    def psql(self, statement: str) -> LightRun:
        """Start a run that does one thing in the database."""
        command = [str(programs() / "psql"), "-XAtqc", statement, f"postgresql://{NAME}/orders"]
        return start_run(self.host, "report", command)

    def batch(self, count: int) -> list[Times]:
        """Start runs, and end each when all are at work."""
        with ThreadPoolExecutor(MANY_AT_ONCE) as pool:
            sleeps = [f"select pg_sleep({SLEEP_S + number})" for number in range(count)]
            runs = list(pool.map(self.psql, sleeps))
        ports = self._ports(runs)
        try:
            return [self._end(run, ports[SLEEP_S + at]) for at, run in enumerate(runs)]
        finally:
            for run in runs:
                run.process.communicate(timeout=PATIENCE_S)

    def _ports(self, runs: list[LightRun]) -> dict[int, int]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            rows = self.made.site.server.ask(WORKING)
            if len(rows) == len(runs):
                return {int(row[0]): int(row[1]) for row in rows}
            failed = [found for run in runs if (found := run.failure())]
            if failed or time.monotonic() > deadline:
                log = self.host.log.read_text()[-4_000:]
                raise RuntimeError(f"{len(rows)} runs are at work; {failed}\n{log}")
            time.sleep(0.05)

    def _end(self, run: LightRun, port: int) -> Times:
        """End a run; return when its connection and its lease ended."""
        slices = Path(self.host.cgroup, f"{self.host.instance}.slice")
        kill = next(slices.glob(f"*{run.run_id}*/cgroup.kill"))
        self._ends.ended_ns(0)
        began_ns = time.time_ns()
        deadline = time.monotonic() + PATIENCE_S
        kill.write_text("1")
        cut_ns = revoked_ms = 0
        while not cut_ns or not revoked_ms:
            time.sleep(POLL_S)
            cut_ns = cut_ns or self._ends.ended_ns(port)
            self.journal.read()
            revoked_ms = self.journal.state(run.run_id, "revoked")
            if time.monotonic() > deadline:
                raise TimeoutError(f"run {run.run_id}: {self.journal.rows.get(run.run_id)}")
        lease = self.journal.leases[run.run_id].rpartition("/")[2]
        self.wrong += lease in self.made.vault.leases()
        began_ms = began_ns / 1e6
        told, closed = (self.journal.state(run.run_id, name) for name in ("draining", "revoking"))
        cut_ms = cut_ns / 1e6
        return Times(*(at - began_ms for at in (told, cut_ms, closed, revoked_ms)))


def measure(rig: Rig, count: int) -> None:
    """Print the table of endings."""
    times: list[Times] = []
    for first in range(0, count, BATCH):
        times += rig.batch(min(BATCH, count - first))
    parts = {
        "order to end → broker knows (kernel)": [one.told for one in times],
        "**→ our sockets are cut**": [one.cut for one in times],
        "→ broker knows that all is closed": [one.closed for one in times],
        "closed → revoked and confirmed (backend)": [one.revoked - one.closed for one in times],
        "**→ confirmed revoked at OpenBao**": [one.revoked for one in times],
        "the backend's calls, bare": bare(rig.made, BARE),
    }
    print("| part | times | p50 ms | p99 | most |\n|---|---|---|---|---|")
    for name, values in parts.items():
        print(row(name, values))
    print(f"\nstill at OpenBao when we said revoked: {rig.wrong}; load average {os.getloadavg()}")


def bare(made: VaultSite, count: int) -> list[float]:
    """Return milliseconds of the same four calls, by a client that does nothing else."""
    bao, found = made.bao, []
    child = {"policies": ["read"]}
    for _ in range(count):
        token = bao.write("auth/token/create/loopwarden", child)["auth"]
        lease = bao.read("database/creds/orders", token["client_token"])["lease_id"]
        began = time.perf_counter()
        _revoke(bao, lease, token["accessor"])
        found.append(1e3 * (time.perf_counter() - began))
    return found


def _revoke(bao: OpenBao, lease: str, accessor: str) -> None:
    bao.write("sys/leases/revoke", {"lease_id": lease, "sync": True})
    bao.write("auth/token/revoke-accessor", {"accessor": accessor})
    for path, body in (
        ("sys/leases/lookup", {"lease_id": lease}),
        ("auth/token/lookup-accessor", {"accessor": accessor}),
    ):
        status, _ = bao.call("POST", path, body)
        if status < 400:
            raise AssertionError(f"{path} knows it still")


def row(name: str, values: list[float]) -> str:
    """Return a line of a table: p50, p99 and the most."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    numbers = (ordered[len(ordered) // 2], p99, ordered[-1])
    return f"| {name} | {len(ordered)} | {' | '.join(f'{value:.1f}' for value in numbers)} |"


def many(rig: Rig, count: int) -> None:
    """Print what so many runs, started in MANY_IN_S, cost; each reads once and ends."""
    vault, began = rig.made.vault, time.monotonic()
    logins, before = vault.logins(), len(vault.leases()) + len(vault.children())
    memory = {name: resident(rig.host, name) for name in ROLES}
    spent = {name: cpu_ns([rig.host.role_pid(name)]) for name in ROLES}
    starts, failed = begin_many(rig, count)
    deadline = time.monotonic() + PATIENCE_S
    while rig.journal.of("revoked") < count - failed and time.monotonic() < deadline:
        time.sleep(0.2)
        rig.journal.read()
    took_s = time.monotonic() - began
    after = len(vault.leases()) + len(vault.children())
    print(f"\n{count} runs started in {max(starts):.1f} s, over in {took_s:.1f} s; {failed} failed")
    print(f"{vault.logins() - logins} logins, {len(rig.journal.leases)} leases, ", end="")
    print(f"{len(rig.journal.handles)} tokens of runs; there before {before}, after {after}\n")
    states = [each for each in rig.journal.rows.values() if "active" in each]
    print("| part | times | p50 ms | p99 | most |\n|---|---|---|---|---|")
    for part, first, last in (
        ("asked → lease in use", "intent", "active"),
        ("broker knows the end → confirmed revoked", "draining", "revoked"),
    ):
        print(row(part, [float(each[last] - each[first]) for each in states]))
    print("\n| role | MiB before | MiB at most | CPU ms/run |\n|---|---|---|---|")
    for name in ROLES:
        most = resident(rig.host, name, "VmHWM")
        cpu_ms = (cpu_ns([rig.host.role_pid(name)]) - spent[name]) / 1e6 / count
        print(f"| {name} | {memory[name]:.0f} | {most:.0f} | {cpu_ms:.1f} |")
    print(f"\nload average {os.getloadavg()}")


def begin_many(rig: Rig, count: int) -> tuple[list[float], int]:
    """Start runs evenly; return when each was started, and how many failed."""
    began, starts = time.monotonic(), [0.0]

    def one(number: int) -> int:
        time.sleep(max(0.0, number * MANY_IN_S / count - (time.monotonic() - began)))
        run = rig.psql("select count(*) from orders")
        starts.append(time.monotonic() - began)
        run.process.communicate(timeout=PATIENCE_S)
        return run.process.returncode

    with ThreadPoolExecutor(MANY_AT_ONCE) as pool:
        ends = [pool.submit(one, number) for number in range(count)]
        while not all(end.done() for end in ends):
            rig.journal.read()  # what is compacted away was read before
            time.sleep(0.1)
        return starts, sum(bool(end.result()) for end in ends)


def resident(host: Host, role: str, what: str = "VmRSS") -> float:
    """Return MiB of a role's memory."""
    for line in Path(f"/proc/{host.role_pid(role)}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(what)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="to be ended one by one")
    parser.add_argument("--many", type=int, default=MANY, help="to be started in 45 s; 0: none")
    arguments = parser.parse_args()
    for work, count in ((measure, arguments.runs), (many, arguments.many)):
        if count:
            with contextlib.ExitStack() as stack:
                made = stack.enter_context(vault_site())
                policy = made.site.policy(template=made.template)
                name = f"lwls{os.getpid() % 10_000}"
                work(Rig(made, stack.enter_context(running(name, policy))), count)


if __name__ == "__main__":
    main()
