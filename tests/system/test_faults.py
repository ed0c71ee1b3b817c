"""The whole path when the disk is full or fails, and when the reporter or the collector dies.

Judged by the upstream's own access log: what it executed must be on record as intended, and what
a loop was answered must be at the collector. Every call has a path of its own.
"""

import json
import os
import random
import socket
import subprocess
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from agent.collector import schema
from agent.collector.store import open_for_reading
from agent.pb import audit_pb2 as pb
from agent.spool.format import frames, parse_header
from tests.servers.collector import running_collector
from tests.system.conftest import API_NAME, NUMBERS, Site, Stage
from tests.system.host import Host, fresh_numbers

WITHIN_S = 300.0  # past this it hangs
TMPFS_BYTES = 6 << 20  # the reserve takes 4 MiB of it
KILLS = 6
FAILURES = 2
CALLERS = 4
STARTS_MAX = 5
LIBFIU = "/usr/lib/fiu"  # of fiu-utils
# What a loop does meanwhile: calls of long paths, and notes of what it was answered.
LOAD = textwrap.dedent(
    """
    import http.client, itertools, os, sys, threading, time
    log, name, prefix, callers = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), *sys.argv[2:5]

    def call(caller):
        connection = http.client.HTTPConnection(name, timeout=12)
        for number in itertools.count():
            path = f"/v1/{prefix}-{caller}-{number}/" + "x" * 400
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read().decode()
                os.write(log, f"{answer.status} {path} {body!r}\\n".encode())
                if answer.status != 200:
                    time.sleep(0.05)
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.02)

    for caller in range(int(callers)):
        threading.Thread(target=call, args=(caller,), daemon=True).start()
    time.sleep(3600)
    """
)
# Names that are looked up all the time: the time and the error's number of each that failed.
LOOKING = textwrap.dedent(
    """
    import socket, sys, time
    print("up", flush=True)
    while True:
        try:
            socket.getaddrinfo(sys.argv[1], 443)
        except socket.gaierror as error:
            print(error.errno, flush=True)
        time.sleep(0.01)
    """
)
FAULT = """
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
int fiu_init(unsigned flags);
int fiu_enable_random(const char *name, int number, void *info, unsigned flags, float chance);
__attribute__((constructor)) static void fault(void) {
  char line[4096] = {0};
  int fd = open("/proc/self/cmdline", O_RDONLY);
  long size = read(fd, line, sizeof line - 1);
  close(fd);
  for (long at = 0; at < size; at += strlen(line + at) + 1)
    if (strcmp(line + at, "agent.reporter") == 0) {
      fiu_init(0);
      fiu_enable_random("posix/io/sync/fdatasync", 1, (void *)5 /* EIO */, 0, 0.02f);
    }
}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """Loops that call, and what they were answered."""

    log: Path

    def answers(self, status: str) -> list[tuple[str, str]]:
        """Return path and body of every answer with this status."""
        whole = self.log.read_text().rpartition("\n")[0]  # the last may be half there
        lines = [line.split(" ", 2) for line in whole.splitlines()]
        return [(line[1], line[2]) for line in lines if line[0] == status]

    def wait_for_more(self, so_many: int, status: str = "200") -> None:
        """Return when so many more calls were answered with this status."""
        goal = len(self.answers(status)) + so_many
        until(lambda: len(self.answers(status)) >= goal, f"{so_many} more answers {status}")


def until(true: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Poll what other processes make true."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.05)


def _calling(stage: Stage, load: Load, words: list[str]) -> "subprocess.Popen[bytes]":
    """Return a run that has had an answer, or has ended."""
    loop = subprocess.Popen(
        stage.host.run_command("job", ["/usr/bin/python3", "-c", LOAD, *words]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=stage.host.loop_environment(),
        cwd="/",
    )
    until(lambda: load.log.stat().st_size > 0 or loop.poll() is not None, "an answer")
    return loop


@contextmanager
def loaded(stage: Stage, prefix: str, *, may_be_refused: bool = False) -> Iterator[Load]:
    """Run the load in a run of its own, until the end of the block.

    may_be_refused: a fault at random may hit the record of the run's start too; it starts again.
    """
    load = Load(stage.host.base / f"load-{prefix}")
    load.log.touch()
    load.log.chmod(0o666)
    words = [str(load.log), API_NAME, prefix, str(CALLERS)]
    loop = _calling(stage, load, words)
    for _ in range(STARTS_MAX if may_be_refused else 0):
        if loop.poll() is None:
            break
        assert not load.log.stat().st_size
        loop = _calling(stage, load, words)
    try:
        load.wait_for_more(50)
        yield load
    finally:
        loop.terminate()
        loop.wait(WITHIN_S)


@contextmanager
def staged(
    made: Site, *, tmpfs_bytes: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[Stage]:
    """Run a collector and an enrolled host, its spool on a small disk or its calls failing."""
    number = next(NUMBERS)
    with tempfile.TemporaryDirectory(prefix="lwt-faults-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running_collector(folder / "collector") as collector:
            collector.folder.chmod(0o755)
            identity = collector.enroll("worker")
            for file in (identity, *identity.iterdir()):
                os.chown(file, 64203, 64203)
            base = Path(tempfile.mkdtemp(prefix="lwt-host-"))
            numbers = fresh_numbers()
            host = Host(
                f"lwflt{os.getpid() % 10_000}x{number}",
                base,
                collector_address=collector.address,
                identity_dir=str(identity),
                proxy_port=numbers["proxy_port"],
                mark_prefix=numbers["mark_prefix"],
                environment=environment or {},
            )
            spool = host.state_dir / "spool"
            spool.mkdir(parents=True)
            host.state_dir.chmod(0o755)
            if tmpfs_bytes:
                options = f"size={tmpfs_bytes},mode=700"
                subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", spool], check=True)
            try:
                host.prepare(made.policy("disk"))
                host.start()
                yield Stage(host, collector, made)
            finally:
                host.stop()
                if tmpfs_bytes:
                    subprocess.run(["umount", spool], check=True)
                host.remove()


def executed(stage: Stage, prefix: str) -> dict[str, int]:
    """Return how often the upstream served each path of a load, by its own log."""
    counts: dict[str, int] = defaultdict(int)
    for line in stage.site.api.requests():
        path = line.split(" ")[1]
        if path.startswith(f"/v1/{prefix}-"):
            counts[path] += 1
    return counts


def intents_collected(stage: Stage) -> dict[str, set[str]]:
    """Return the ids of the operations at the collector, by path."""
    engine = open_for_reading(stage.collector.state_dir)
    table = schema.operations
    found: dict[str, set[str]] = defaultdict(set)
    with engine.connect() as connection:
        query = select(table.c.resource, table.c.operation_id).where(table.c.verdict == "allow")
        for row in connection.execute(query):
            found[row.resource].add(row.operation_id)
    engine.dispose()
    return found


def intents_spooled(stage: Stage) -> dict[str, set[str]]:
    """Return the ids of the operations in the segments, by path, without touching them."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((stage.host.state_dir / "spool").glob("*.seg")):
        data = path.read_bytes()
        for frame in frames(data, parse_header(data)):
            operation = pb.Record.FromString(frame.payload).operation_intended.operation
            found[operation.resource].add(operation.operation_id)
    return found


def unrecorded(served: Mapping[str, int], intents: Mapping[str, set[str]]) -> list[str]:
    """Return the paths that the upstream executed more often than was intended on record."""
    return [path for path, times in served.items() if times > len(intents.get(path, ()))]


def conclude(stage: Stage, load: Load, prefix: str) -> None:
    """Check, once all is collected, that nothing executed or acknowledged is missing."""
    answered = {path for path, _ in load.answers("200")}
    assert answered
    until(
        lambda: not answered - intents_collected(stage).keys(),
        "everything acknowledged at the collector",
    )
    until(
        lambda: not unrecorded(executed(stage, prefix), intents_collected(stage)),
        "everything executed at the collector",
    )
    (report,) = stage.collector.ask("verify")
    assert report["intact"]
    assert report["gaps"] == 0
    assert stage.collector.ask("hosts")[0]["refusals"] == 0


def test_a_full_disk_refuses_operations_until_there_is_space(api_site: Site) -> None:
    """ENOSPC and no collector: 503 with why and what next; 0 executed and not recorded."""
    with staged(api_site, tmpfs_bytes=TMPFS_BYTES) as stage:
        stage.collector.kill()
        with loaded(stage, "full") as load:
            load.wait_for_more(20, "503")
            _, body = load.answers("503")[-1]
            refusal = json.loads(body.strip("'\""))
            assert refusal["reason"] == "record-failed"
            assert refusal["next_step"]
            until(
                lambda: "REFUSES RUNS" in stage.host.cli("status").stdout, "a status that says so"
            )
            assert "no space left on the disk" in stage.host.cli("status").stdout
            # first who was served and answered, then the records: it goes on meanwhile
            served, answered = executed(stage, "full"), {path for path, _ in load.answers("200")}
            recorded = intents_spooled(stage)
            assert served
            assert not unrecorded(served, recorded)
            assert answered <= recorded.keys()
            stage.collector.start()
            load.wait_for_more(50)
        until(lambda: "REFUSES RUNS" not in stage.host.cli("status").stdout, "runs again")
        conclude(stage, load, "full")


def fault_of_the_reporter(folder: Path) -> Path:
    """Return a library that lets libfiu fail the reporter's flushes, and no other role's.

    libfiu's own remote control is a thread, which does not survive the signals by which
    setresuid(2) reaches threads; its environment variable would fail the broker's journal too.
    """
    folder.parent.chmod(0o755)
    source, library = folder / "fault.c", folder / "fault.so"
    source.write_text(FAULT)
    subprocess.run(
        ["clang", "-shared", "-fPIC", "-o", library, source, "-l:libfiu.so.0"], check=True
    )
    return library


def test_a_failing_flush_stops_traffic_and_the_reporter_starts_again(
    api_site: Site, tmp_path: Path
) -> None:
    """EIO of fdatasync at random, by libfiu: 0 executed and not recorded, 0 acknowledged lost."""
    failing = {"LD_PRELOAD": f"{LIBFIU}/fiu_posix_preload.so:{fault_of_the_reporter(tmp_path)}"}
    with staged(api_site, environment=failing) as stage:
        with loaded(stage, "eio", may_be_refused=True) as load:
            until(
                lambda: stage.host.log.read_text().count("the spool's disk failed") >= FAILURES,
                f"{FAILURES} failed flushes",
            )
            load.wait_for_more(20)
        stage.host.stop()
        stage.host.environment = {}
        stage.host.start()
        conclude(stage, load, "eio")


def test_the_reporter_killed_at_random_points_under_load(api_site: Site) -> None:
    """SIGKILL under `durability: disk`: 0 executed and not recorded, 0 acknowledged lost."""
    seed = random.randrange(1 << 32)
    points = random.Random(seed)
    with staged(api_site) as stage:
        with loaded(stage, "kill") as load:
            for _ in range(KILLS):
                time.sleep(points.uniform(0.0, 0.3))
                stage.host.kill_role("reporter")
                load.wait_for_more(1 + points.randrange(40))
        conclude(stage, load, "kill")


def test_the_collector_killed_at_random_points_under_load(api_site: Site) -> None:
    """SIGKILL of the collector: traffic goes on, the chain has no gap and no record twice."""
    seed = random.randrange(1 << 32)
    points = random.Random(seed)
    with staged(api_site) as stage:
        with loaded(stage, "away") as load:
            for _ in range(KILLS):
                time.sleep(points.uniform(0.0, 0.3))
                stage.collector.kill()
                load.wait_for_more(10)
                stage.collector.start()
        conclude(stage, load, "away")


def test_a_workers_death_makes_no_name_unknown(api_site: Site) -> None:
    """SIGKILL of worker and broker: look-ups wait for the policy, and none says "not known"."""
    with staged(api_site) as stage:
        host = stage.host
        with subprocess.Popen(
            host.run_command("job", ["/usr/bin/python3", "-c", LOOKING, API_NAME]),
            stdout=subprocess.PIPE,
            text=True,
            env=host.loop_environment(),
            cwd="/",
        ) as looking:
            assert looking.stdout is not None
            assert looking.stdout.readline() == "up\n"
            call = ["curl", "-sSf", "--max-time", "20", f"https://{API_NAME}/v1/again"]
            for _ in range(3):
                host.kill_role("broker")
                host.kill_role("proxy@0")
                host.role_pid("broker")
                until(lambda: host.run("job", call).returncode == 0, "calls again")
            looking.terminate()
            failed = looking.stdout.read().split()
        assert str(int(socket.EAI_NONAME)) not in failed
