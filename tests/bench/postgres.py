"""`python -m tests.bench.postgres`: PostgreSQL direct, behind pgbouncer, and behind us, in one run.

The server is on a host of its own (a network namespace). pgbouncer and we speak TLS to the client
and verified TLS to the server. Load and server have core 1, the contender core 0; all are up all
the time and take turns. `loopwarden` rows are the whole daemon, each statement classified, judged
and recorded; the CPU time of kernel, broker, proxy and reporter is counted together.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.model.grant import Durability
from tests.bench.measure import cpu_ns, family, fdatasync_us
from tests.bench.postgres_parts import (
    DATABASE,
    LOAD_CORE,
    SCALE,
    Contender,
    bouncer,
    direct,
    instance,
    scratch,
)
from tests.system.postgres_site import postgres_site

CASES = ((1, "simple"), (1, "prepared"), (16, "simple"), (16, "prepared"))
CONTENDERS = ("direct", "pgbouncer", "process", "disk")
ROW_BYTES = 100
COPY_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """One round of one contender."""

    rate: float  # transactions, or megabytes, a second
    p50_us: float
    p99_us: float
    cpu_us: float  # of the contender, a transaction or a megabyte


def pgbench(contender: Contender, folder: Path, clients: int, mode: str, seconds: int) -> Cost:
    """Run `pgbench -S` and read its log of every transaction."""
    logs = scratch(folder, "logs")
    load = contender.command(
        "pgbench", "--select-only", "--no-vacuum", f"--scale={SCALE}", f"--client={clients}",
        "--jobs=1", f"--time={seconds}", f"--protocol={mode}", "--log",
        f"--log-prefix={logs / 'load'}", DATABASE,
    )  # fmt: skip
    pids = family(contender.roots)
    before = cpu_ns(pids)
    done = subprocess.run(load, check=False, capture_output=True, text=True, cwd="/")
    spent_us = (cpu_ns(pids) - before) / 1000
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode or rate is None or "failed transactions: 0" not in done.stdout:
        raise RuntimeError(f"{contender.name}: {done.stdout[-500:]}{done.stderr[-2000:]}")
    times: list[int] = []
    for path in logs.iterdir():
        times += [int(line.split()[2]) for line in path.read_text(encoding="ascii").splitlines()]
        path.unlink()
    times.sort()
    count = len(times)
    return Cost(float(rate[1]), times[count // 2], times[count * 99 // 100], spent_us / count)


def copy_out(contender: Contender, size: int) -> Cost:
    """COPY so many bytes to psql, which throws them away; the connection's begin is not timed."""
    rows = size // ROW_BYTES
    query = f"SELECT repeat('x', {ROW_BYTES - 1}) FROM generate_series(1, {rows})"
    load = contender.command(
        "psql", "--no-psqlrc", "--quiet", "-c", r"\timing on",
        "-c", rf"\copy ({query}) TO '/dev/null'",
    )  # fmt: skip
    pids = family(contender.roots)
    before = cpu_ns(pids)
    done = subprocess.run(load, check=False, capture_output=True, text=True, cwd="/")
    spent_us = (cpu_ns(pids) - before) / 1000
    took = re.search(r"Time: ([\d.]+) ms", done.stdout)
    if done.returncode or took is None:
        raise RuntimeError(f"{contender.name}: {done.stdout[-500:]}{done.stderr[-2000:]}")
    megabytes = rows * ROW_BYTES / 1e6
    return Cost(megabytes / float(took[1]) * 1000, 0, 0, spent_us / megabytes)


def median(costs: list[Cost]) -> Cost:
    """Return the median of each number."""
    return Cost(
        statistics.median(cost.rate for cost in costs),
        statistics.median(cost.p50_us for cost in costs),
        statistics.median(cost.p99_us for cost in costs),
        statistics.median(cost.cpu_us for cost in costs),
    )


def show(case: str, costs: dict[str, Cost]) -> None:
    """Print a case's rows, with ratios to direct and pgbouncer and what is added to direct."""
    plain, pooled = costs.get("direct"), costs.get("pgbouncer")
    for name, cost in costs.items():
        cells = [case, name, f"{cost.rate:.0f}"]
        cells += [f"{cost.p50_us:.0f}", f"{cost.p99_us:.0f}"] if cost.p50_us else ["", ""]
        cells.append(f"{cost.cpu_us:.0f}" if cost.cpu_us else "")
        for other in (plain, pooled):
            cells.append("" if other is None or other is cost else f"{cost.rate / other.rate:.2f}")
        added = plain is not None and plain is not cost and cost.p50_us
        cells.append(f"{cost.p50_us - plain.p50_us:+.0f}" if plain and added else "")
        print(f"| {' | '.join(cells)} |", flush=True)


def run(
    contenders: list[Contender],
    folder: Path,
    cases: list[str],
    seconds: int,
    rounds: int,
    size: int,
) -> None:
    """Measure all cases, the contenders taking turns; print each one's medians."""
    print("| case | contender | tx/s or MB/s | p50 us | p99 us | CPU us a tx or MB | / direct"
          " | / pgbouncer | p50 added us |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for contender in contenders:
        pgbench(contender, folder, 2, "simple", 1)  # warm
    for case in cases:
        costs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                if case == "copy":
                    cost = copy_out(contender, size)
                else:
                    clients, _, mode = case.partition(" ")
                    cost = pgbench(contender, folder, int(clients), mode, seconds)
                costs[contender.name].append(cost)
        show(case, {name: median(found) for name, found in costs.items()})


def main() -> None:
    """Run everything that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="of all contenders, interleaved")
    parser.add_argument("--copy-bytes", type=int, default=COPY_BYTES)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    every = [*(f"{clients} {mode}" for clients, mode in CASES), "copy"]
    parser.add_argument("--cases", default=",".join(every))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {int(LOAD_CORE)})  # the server's too
    wanted = arguments.only.split(",")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lw-bench-")))
        folder.chmod(0o755)
        p50, p99 = fdatasync_us(folder)
        print(f"fdatasync of 256 bytes here: p50 {p50:.0f} us, p99 {p99:.0f} us")
        site = stack.enter_context(postgres_site({"log_disconnections": "off"}, fsync=True))
        site.server.pgbench_tables(SCALE)
        contenders = [direct(site)] if "direct" in wanted else []
        if "pgbouncer" in wanted:
            contenders.append(stack.enter_context(bouncer(site)))
        contenders += [
            stack.enter_context(instance(site, durability))
            for durability in (Durability.PROCESS, Durability.DISK)
            if durability in wanted
        ]
        run(contenders, folder, arguments.cases.split(","), arguments.seconds, arguments.rounds,
            arguments.copy_bytes)  # fmt: skip


if __name__ == "__main__":
    main()
