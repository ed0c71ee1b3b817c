"""`python -m tests.bench.proxy`: the worker beside nginx, HAProxy and mitmproxy, in one run.

Every contender terminates TLS, injects the bearer token, and speaks verified TLS upstream. wrk and
the upstream nginx have one core, the contender the other. `process` and `disk` are our worker and
reporter, with stand-ins for kernel and broker; `instance` and `instance-disk` are the whole daemon
with its roles, and the load is a loop: the CPU time of every process of ours is counted.
"""

import argparse
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.model.grant import Durability
from tests.bench.contenders import (
    NAME,
    TOKEN,
    Contender,
    bodies,
    haproxy,
    mitmproxy,
    ours,
    reverse_nginx,
)
from tests.bench.instance import instance
from tests.bench.measure import Cost, fdatasync_us, measure
from tests.servers.certificates import Authority
from tests.servers.nginx import nginx_api

MITM_VENV = Path(tempfile.gettempdir(), "loopwarden-bench-mitmproxy")
CASES = (  # connections, file, a new connection for each request
    (1, "1k", False),
    (32, "1k", False),
    (1, "64k", False),
    (32, "64k", False),
    (8, "1k", True),
)
CONTENDERS = (
    "direct", "nginx", "haproxy", "mitmproxy", "process", "disk", "instance", "instance-disk",
)  # fmt: skip
OURS = ("loopwarden", "instance")
LOAD_CORE = "1"
SYSTEM_PYTHON = "/usr/bin/python3"  # mitmproxy runs as another user, who must be able to read it


def wrk(
    contender: Contender, hosts: Path, connections: int, path: str, seconds: int, *, close: bool
) -> list[str]:
    """Return the load's command: wrk, with the contender's address under the API's name."""
    url = f"https://{NAME}:{contender.port}" if contender.port != 443 else f"https://{NAME}"
    load = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    load += ["--latency", "--timeout", "10s"]
    if contender.token:
        load += ["-H", f"Authorization: Bearer {TOKEN}"]
    if close:
        load += ["-H", "Connection: close"]
    load.append(f"{url}/files/{path}")
    if contender.launch is not None:
        return contender.launch(load)  # the name is resolved by our own resolver
    hosts.write_text(f"{contender.address} {NAME}\n", encoding="ascii")
    mounted = ["unshare", "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
    argv = [*mounted, *load]
    return argv if contender.inside is None else contender.inside.argv(*argv)


def run(
    contenders: list[Contender], folder: Path, seconds: int, rounds: int
) -> dict[str, dict[str, Cost]]:
    """Measure all cases, the contenders taking turns, and keep each one's median by CPU time.

    All are up all the time and the rounds are interleaved, so that what else the machine does
    falls on all of them alike.
    """
    hosts = folder / "hosts"
    for contender in contenders:
        measure(wrk(contender, hosts, 4, "1k", 1, close=False), contender.roots)  # warm
    results: dict[str, dict[str, Cost]] = {contender.name: {} for contender in contenders}
    for connections, path, close in CASES:
        key = f"c={connections} {'new' if close else path}"
        costs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                load = wrk(contender, hosts, connections, path, seconds, close=close)
                costs[contender.name].append(measure(load, contender.roots))
        for name, measured in costs.items():
            measured.sort(key=lambda cost: cost.cpu_us_a_request)
            results[name][key] = measured[len(measured) // 2]
            show(name, key, results[name][key])
    return results


def show(name: str, case: str, cost: Cost) -> None:
    """Print a row."""
    load = cost.load
    print(
        f"{name:20} {case:9} {cost.requests_a_second:9.0f} {load.p50_ms:8.2f} {load.p99_ms:8.2f}"
        f" {cost.cpu_us_a_request:9.1f} {cost.rss_mib:8.1f} {load.errors:6}",
        flush=True,
    )


def mitmdump() -> Path:
    """Return mitmproxy's command, installed in a virtual environment of its own."""
    command = MITM_VENV / "bin" / "mitmdump"
    if not command.exists():
        subprocess.run([SYSTEM_PYTHON, "-m", "venv", str(MITM_VENV)], check=True)
        subprocess.run([str(MITM_VENV / "bin" / "pip"), "install", "-q", "mitmproxy"], check=True)
    return command


def compare(results: dict[str, dict[str, Cost]]) -> None:
    """Print requests per CPU second as ratios."""
    print("\nrequests per CPU second, ours over theirs")
    for mine in (name for name in results if name.startswith(OURS)):
        for case, cost in results[mine].items():
            ratios = [
                f"{other} {cost.requests_a_cpu_second / their[case].requests_a_cpu_second:6.2f}"
                for other, their in results.items()
                if not other.startswith((*OURS, "direct")) and their[case].requests_a_cpu_second
            ]
            print(f"{mine:20} {case:9} {'   '.join(ratios)}")


def main() -> None:
    """Run everything that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=1, help="of each load")
    parser.add_argument("--rounds", type=int, default=5, help="of all contenders, interleaved")
    parser.add_argument("--only", default=",".join(CONTENDERS))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    wanted = arguments.only.split(",")
    authority = Authority()
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lw-bench-")))
        base.chmod(0o755)

        def folder(name: str) -> Path:
            path = base / name
            path.mkdir(mode=0o755)
            return path

        p50, p99 = fdatasync_us(base)
        print(f"fdatasync of 256 bytes here: p50 {p50:.0f} us, p99 {p99:.0f} us")
        print(
            f"{'':20} {'case':9} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/r':>9}"
            f" {'RSS MiB':>8} {'errors':>6}"
        )
        api = stack.enter_context(
            nginx_api(folder("api"), authority, name=NAME, token=TOKEN, files=bodies())
        )
        direct = Contender("direct", "127.0.0.1", api.tls_port, [], token=True)
        makers: dict[str, Callable[[], contextlib.AbstractContextManager[Contender]]] = {
            "direct": lambda: contextlib.nullcontext(direct),
            "nginx": lambda: reverse_nginx(folder("nginx"), authority, api),
            "haproxy": lambda: haproxy(folder("haproxy"), authority, api),
            "mitmproxy": lambda: mitmproxy(folder("mitmproxy"), authority, mitmdump()),
            "process": lambda: ours(folder("process"), authority, api, Durability.PROCESS),
            "disk": lambda: ours(folder("disk"), authority, api, Durability.DISK),
            "instance": lambda: instance(folder("instance"), authority, api, Durability.PROCESS),
            "instance-disk": lambda: instance(
                folder("instance-disk"), authority, api, Durability.DISK
            ),
        }
        contenders = [stack.enter_context(makers[name]()) for name in wanted]
        results = run(contenders, base, arguments.seconds, arguments.rounds)
    compare(results)


if __name__ == "__main__":
    main()
