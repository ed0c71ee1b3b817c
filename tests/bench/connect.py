"""`python -m tests.bench.connect`: what the kernel hooks add to socket() + connect().

The same process, loopback address and listener, interleaved over rounds: with nothing of ours
loaded (base), beside one idle nft NAT rule, which turns the kernel's connection tracking on as any
NAT of a host does (tracked), as a bystander beside an installed plane, and as a process of a run
(redirected). Medians of rounds, and the ratio to the same round's base.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent.kernel import clean
from agent.kernel.cgroups import CgroupTree
from agent.kernel.config import PlaneConfig
from agent.kernel.plane import Plane
from agent.model.ids import LoopName, RunId
from agent.model.loop import Initiator
from agent.runtime.clock import fresh_ulid, unix_ms

CONNECTS = 4000
PARTS = 4  # nobody takes the records here, and a run has so many: it is a run a thousand
CONFIG = PlaneConfig(
    instance="lwbench",
    attach_cgroup="/lwbench",
    slice_name="runs.slice",
    proxy_port=28_901,
    dns_port=28_902,
    mark_prefix=0x7B1,
)
SERVED_PORT = 28_903
# Reset on close: no TIME_WAIT, so that no round fills the ports of the next.
MEASURED = """
import socket, struct, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
reset = struct.pack("ii", 1, 0)
spent = 0
for _ in range(count):
    start = time.perf_counter_ns()
    sock = socket.socket()
    sock.connect(("127.0.0.1", port))
    spent += time.perf_counter_ns() - start
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    sock.close()
print(spent / count / 1000)
"""
DRAIN = """
import socket, struct, sys
reset = struct.pack("ii", 1, 0)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
print("ready", flush=True)
while True:
    sock, _ = server.accept()
    sock.close()
"""


@contextlib.contextmanager
def draining(port: int) -> Iterator[None]:
    """Accept and close at this port."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRAIN, str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def measured_us(
    cgroup: Path | None, plane: Plane | None, run_id: RunId | None, count: int = CONNECTS
) -> float:
    """Return microseconds a connect of one process, placed before it begins."""
    command = [sys.executable, "-c", MEASURED, str(SERVED_PORT), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if cgroup is not None:
        (cgroup / "cgroup.procs").write_text(str(process.pid))
    if plane is not None and run_id is not None:
        pidfd = os.pidfd_open(process.pid)
        plane.admit(run_id, pidfd)
        os.close(pidfd)
    out, _ = process.communicate("go\n")
    return float(out)


@contextlib.contextmanager
def tracking() -> Iterator[None]:
    """Keep one NAT rule that nothing matches: what a container engine has on a host."""
    table = "ip lwbench_tracked"
    chain = "type nat hook output priority -100;"
    rule = "ip daddr 127.255.255.254 tcp dport 1 redirect"
    subprocess.run(["nft", f"add table {table}"], check=True)
    try:
        subprocess.run(["nft", f"add chain {table} idle {{ {chain} }}"], check=True)
        subprocess.run(["nft", f"add rule {table} idle {rule}"], check=True)
        yield
    finally:
        subprocess.run(["nft", f"delete table {table}"], check=True)


def rounds(count: int) -> dict[str, list[float]]:
    """Measure all three, interleaved."""
    tree = CgroupTree.find()
    costs: dict[str, list[float]] = {name: [] for name in ("base", "tracked", "bystander", "loop")}
    for _ in range(count):
        costs["base"].append(measured_us(None, None, None))
        with tracking():
            costs["tracked"].append(measured_us(None, None, None))
        plane = Plane.open(CONFIG)
        try:
            tree.create("/lwbench/bystander")
            bystander = tree.directory("/lwbench/bystander")
            costs["bystander"].append(measured_us(bystander, None, None))
            who = Initiator(0, "root", os.getpid(), sys.executable, "", "/")
            parts: list[float] = []
            for _ in range(PARTS):
                run_id = RunId(fresh_ulid())
                plane.create_run(run_id, LoopName("bench"), who, (), unix_ms())
                parts.append(measured_us(None, plane, run_id, CONNECTS // PARTS))
                plane.remove(run_id)
            costs["loop"].append(statistics.mean(parts))
        finally:
            plane.close()
            clean.clean(CONFIG)
            tree.remove("/lwbench/bystander")
            tree.remove("/lwbench")
        time.sleep(0.05)
    return costs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    with draining(SERVED_PORT), draining(CONFIG.proxy_port):
        costs = rounds(parser.parse_args().rounds)
    print(f"socket() + connect() on loopback, {CONNECTS} a round, {len(costs['base'])} rounds")
    for name, spent in costs.items():
        ratios = [one / base for one, base in zip(spent, costs["base"], strict=True)]
        print(
            f"  {name:10} {statistics.median(spent):7.1f} µs  "
            f"x{statistics.median(ratios):.2f} (x{min(ratios):.2f} to x{max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
