"""What a run of a load costs the processes that serve it, from /proc."""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

NS_PER_US = 1_000
_DURATIONS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def family(pids: list[int]) -> list[int]:
    """Return the processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = entry.joinpath("stat").read_text(encoding="latin-1")
            except OSError:
                continue  # it ended as we looked
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found = list(pids)
    for pid in found:
        found += [child for child in children.get(pid, []) if child not in found]
    return found


def cpu_ns(pids: list[int]) -> int:
    """Return the CPU time of all threads so far: /proc/PID/task/*/schedstat, first field."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(path.read_text(encoding="ascii").split()[0])
    return total


def rss_bytes(pids: list[int]) -> int:
    """Return the resident memory of all, shared pages counted once a process."""
    pages = 0
    for pid in pids:
        pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk said."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True, slots=True)
class Cost:
    """One row."""

    load: Load
    cpu_us_a_request: float
    rss_mib: float

    @property
    def requests_a_second(self) -> float:
        """Throughput."""
        return self.load.requests / self.load.seconds

    @property
    def requests_a_cpu_second(self) -> float:
        """What is compared: it does not depend on how many cores were free."""
        return 1e6 / self.cpu_us_a_request if self.cpu_us_a_request else 0.0


def parse_wrk(text: str) -> Load:
    """Read wrk's output.

    Raises:
        ValueError: it is not wrk's.
    """
    done = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s|m)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text)
    if done is None or p50 is None or p99 is None:
        raise ValueError(f"not wrk's output: {text[:200]}")
    socket_errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    # with `Connection: close` wrk counts the end of each answer as a read error: not an error here
    errors = sum(int(socket_errors[index]) for index in (1, 3, 4)) if socket_errors else 0
    return Load(
        int(done[1]),
        float(done[2]) * _DURATIONS[done[3]] / 1e3,
        float(p50[1]) * _DURATIONS[p50[2]],
        float(p99[1]) * _DURATIONS[p99[2]],
        errors + (int(other[1]) if other else 0),
    )


def measure(wrk: list[str], roots: list[int]) -> Cost:
    """Run a load and return what it cost the processes of `roots`."""
    pids = family(roots)
    before = cpu_ns(pids)
    done = subprocess.run(wrk, check=True, capture_output=True, text=True)
    spent = cpu_ns(pids) - before
    load = parse_wrk(done.stdout)
    return Cost(load, spent / NS_PER_US / max(load.requests, 1), rss_bytes(pids) / (1 << 20))


def fdatasync_us(folder: Path, count: int = 200) -> tuple[float, float]:
    """Return p50 and p99 of append and fdatasync of 256 bytes, in microseconds."""
    times: list[float] = []
    descriptor = os.open(folder / "fdatasync", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            start = time.perf_counter()
            os.write(descriptor, b"x" * 256)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - start) * 1e6)
    finally:
        os.close(descriptor)
    times.sort()
    return times[count // 2], times[int(count * 0.99)]
