"""`python -m tests.bench.kills`: how soon the collector's `kill` has ended a run on its host.

Runs that sleep, killed one after the other as a person would: by the command, with the start of
its interpreter. `gone`: the run's first process is reaped. `said`: the command has the host's
last word. The command that finds no such run is timed beside it: it starts and asks the same.
"""

import argparse
import contextlib
import json
import os
import select
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.leases import row
from tests.bench.light_runs import LightRun, start_run
from tests.system.conftest import Stage, site, stage

KILLS = 40
HOST = "worker"  # as the stage enrols it
PATIENCE_S = 60.0
EXPECTED_MS = 2_000.0  # README: on its host within 2 s


def kill(made: Stage, name: str, *more: str) -> tuple[float, str]:
    """Return how many milliseconds the command took, and what became of it."""
    began = time.perf_counter()
    words = ("kill", name, "--state-dir", str(made.collector.state_dir), "--json", *more)
    done = made.collector.command(*words)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return 1e3 * (time.perf_counter() - began), json.loads(done.stdout)["state"]


def ending(made: Stage) -> tuple[float, float, float]:
    """Kill a run; return milliseconds to `gone` and `said`, and of the same without a run."""
    run = start_run(made.host, "job", ["sleep", "1000"])
    deadline = time.monotonic() + PATIENCE_S
    while run.run_id not in {each["run_id"] for each in made.collector.ask("runs")}:
        if time.monotonic() > deadline:
            raise TimeoutError("the collector does not know of the run")
        time.sleep(0.05)
    gone: list[float] = []
    began = time.perf_counter()
    watch = threading.Thread(target=lambda: gone.append(_gone_ms(run, began)))
    watch.start()
    said, state = kill(made, run.run_id)
    watch.join()
    if state != "confirmed":
        raise RuntimeError(f"the run is {state}")
    none, state = kill(made, "0" * 26, "--host", HOST)
    if state != "unknown":
        raise RuntimeError(f"no run is {state}")
    return gone[0], said, none


def _gone_ms(run: LightRun, began: float) -> float:
    pidfd = os.pidfd_open(run.process.pid)
    try:
        if not select.select([pidfd], [], [], PATIENCE_S)[0]:
            raise TimeoutError(f"run {run.run_id} lives on")
        return 1e3 * (time.perf_counter() - began)
    finally:
        os.close(pidfd)
        run.process.communicate()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lwt-kills-")))
            for _ in range(2)
        ]
        folders[1].chmod(0o755)
        made = stack.enter_context(stage(stack.enter_context(site(folders[0])), folders[1]))
        times = [ending(made) for _ in range(arguments.kills)]
    print("| part | times | p50 ms | p99 | most |\n|---|---|---|---|---|")
    parts = ("order → the run's process is gone", "order → the host's last word", "of no run")
    for name, values in zip(parts, zip(*times, strict=True), strict=True):
        print(row(name, list(values)))
    late = sum(gone > EXPECTED_MS for gone, _, _ in times)
    print(f"\n{late} of {len(times)} took more than 2 s; load average {os.getloadavg()}")


if __name__ == "__main__":
    main()
