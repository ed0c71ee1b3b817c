"""Nothing leaks and nothing acknowledged is lost, whatever is killed, and whenever."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from agent.collector import schema
from agent.collector.store import open_for_reading
from tests.servers.netns import run
from tests.system.conftest import API_NAME, NUMBERS, Stage

KILLS = 50
WITHIN_S = 180.0  # past this it hangs
ROLES = ("proxy@0", "broker", "reporter")
# What a loop does meanwhile: calls that count, and three ways straight to an address of the far
# host that no policy names. It goes on whatever happens to it.
LOAD = textwrap.dedent(
    """
    import itertools, os, socket, sys, time, urllib.request
    acknowledged = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
    name, worker, foreign = sys.argv[2], sys.argv[3], sys.argv[4]
    for number in itertools.count():
        path = f"/v1/{worker}-{number}"
        try:
            with urllib.request.urlopen(f"http://{name}{path}", timeout=60) as answer:
                if answer.status == 200 and answer.read():
                    os.write(acknowledged, f"{path}\\n".encode())
        except OSError:
            time.sleep(0.01)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(socket.AF_INET, kind) as sock:
                    sock.settimeout(0.2)
                    sock.connect((foreign, 9))
                    sock.send(b"leak")
            except OSError:
                pass
    """
)
SNIFF = textwrap.dedent(
    """
    import sys
    from scapy.all import AsyncSniffer
    sniffer = AsyncSniffer(
        iface="eth0",
        store=False,
        prn=lambda packet: print(packet.summary(), flush=True),
        lfilter=lambda packet: sys.argv[1] in packet.summary(),
        started_callback=lambda: print("sniffing", flush=True),
    )
    sniffer.start()
    sys.stdin.read()
    sniffer.stop()
    """
)


@dataclass(slots=True)
class Load:
    """Loops that call and try to leak, and what the far end saw of the leaks."""

    acknowledged: Path
    sniffed: Path
    foreign: str
    leaked: tuple[str, ...] = ()  # known at the end
    answered: frozenset[str] = frozenset()  # known at the end

    def paths(self) -> set[str]:
        """Return what the loops have been answered 200 for so far."""
        return set(self.acknowledged.read_text().split())

    def conclude(self) -> None:
        """Keep what the files say."""
        self.answered = frozenset(self.paths())
        lines = self.sniffed.read_text().splitlines()
        self.leaked = tuple(line for line in lines if line != "sniffing")

    def wait_for_more(self, so_many: int) -> None:
        """Return when so many more calls were answered."""
        goal = len(self.paths()) + so_many
        deadline = time.monotonic() + WITHIN_S
        while len(self.paths()) < goal:
            assert time.monotonic() < deadline, "the loops get no more answers"
            time.sleep(0.02)


@contextmanager
def loaded(whole: Stage, workers: int = 2) -> Iterator[Load]:
    """Run the load in runs of its own, and a sniffer at the far end."""
    far = whole.site.far
    foreign = far.address4.rsplit(".", 1)[0] + ".77"
    far.inside.run("ip", "address", "add", f"{foreign}/24", "dev", "eth0")
    with tempfile.TemporaryDirectory(prefix="lwt-load-") as folder:
        base = Path(folder)
        base.chmod(0o755)
        load = Load(base / "acknowledged", base / "sniffed", foreign)
        load.acknowledged.touch()
        load.acknowledged.chmod(0o666)
        with load.sniffed.open("w") as out:
            sniffer = subprocess.Popen(
                far.inside.argv(sys.executable, "-c", SNIFF, foreign),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.DEVNULL,
            )
        while "sniffing" not in load.sniffed.read_text():
            time.sleep(0.05)
        loops = [
            subprocess.Popen(
                whole.host.run_command(
                    "job",
                    [
                        "/usr/bin/python3",
                        "-c",
                        LOAD,
                        str(load.acknowledged),
                        API_NAME,
                        f"w{next(NUMBERS)}",  # no call is another test's
                        foreign,
                    ],
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=whole.host.loop_environment(),
                cwd="/",
            )
            for _ in range(workers)
        ]
        try:
            load.wait_for_more(20)
            yield load
        finally:
            for loop in loops:
                loop.terminate()
                loop.wait(WITHIN_S)
            assert sniffer.stdin is not None
            sniffer.stdin.close()
            sniffer.wait(WITHIN_S)
            load.conclude()
            run("ip", "neigh", "flush", "dev", far.link)
            far.inside.run("ip", "address", "delete", f"{foreign}/24", "dev", "eth0")


def missing(whole: Stage, load: Load) -> frozenset[str]:
    """Return the acknowledged calls that the collector does not have, after it had its time."""
    deadline = time.monotonic() + WITHIN_S
    while (lost := load.answered - collected(whole)) and time.monotonic() < deadline:
        time.sleep(0.3)
    return lost


def collected(whole: Stage) -> set[str]:
    """Return the resources of all operations that the collector has, however many they are."""
    engine = open_for_reading(whole.collector.state_dir)
    try:
        with engine.connect() as connection:
            return set(connection.scalars(select(schema.operations.c.resource)))
    finally:
        engine.dispose()


def test_the_control_leaks(whole: Stage) -> None:
    """The sniffer sees what a process outside sends to the same address: it can fail."""
    with loaded(whole, workers=1) as load:
        send = f"echo leak > /dev/udp/{load.foreign}/9"
        whole.host.bystander(["/bin/bash", "-c", send])
        deadline = time.monotonic() + WITHIN_S
        while load.foreign not in load.sniffed.read_text():
            assert time.monotonic() < deadline, "the sniffer sees nothing"
            time.sleep(0.05)
    assert load.leaked


@pytest.mark.timeout(1800)  # fifty starts of the daemon: two seconds each, more on a busy machine
def test_the_daemon_killed_at_random_points_under_load(whole: Stage) -> None:
    """SIGKILL of the daemon at 50 random points: 0 packets leak, 0 acknowledged calls are lost."""
    seed = random.randrange(1 << 32)
    points = random.Random(seed)
    with loaded(whole) as load:
        for _ in range(KILLS):
            time.sleep(points.uniform(0.0, 0.3))
            os.kill(whole.host.role_pid("kernel"), signal.SIGKILL)
            assert whole.host.daemon is not None
            whole.host.daemon.wait(WITHIN_S)
            time.sleep(points.uniform(0.0, 0.1))
            whole.host.start()
        load.wait_for_more(10)
    assert not load.leaked, f"seed {seed}"
    assert not missing(whole, load), f"seed {seed}"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_killed_under_load_comes_back(whole: Stage, role: str) -> None:
    """SIGKILL of a role: 0 packets leak, 0 acknowledged calls are lost, calls go on after it."""
    with loaded(whole) as load:
        for _ in range(3):
            whole.host.kill_role(role)
            load.wait_for_more(10)
    assert not load.leaked
    assert not missing(whole, load)


def test_systemd_is_told_nothing_while_a_lock_is_gone(whole: Stage) -> None:
    """A program that was detached: an alarm, the watchdog is not fed; a restart attaches it."""
    (links,) = Path("/sys/fs/bpf", whole.host.instance).glob("v*/links")
    path = whole.host.base / "notify"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(WITHIN_S)
        assert manager.recv(4096) == b"WATCHDOG=1"
        (links / "connect4").unlink()
        detail = "link connect4 was missing, NOT put back"
        deadline = time.monotonic() + WITHIN_S
        while detail not in whole.host.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        manager.settimeout(0)
        with suppress(BlockingIOError):
            while manager.recv(4096):
                continue
        manager.settimeout(1.5)  # it looks every second
        with pytest.raises(TimeoutError):
            manager.recv(4096)
    whole.host.stop()
    whole.host.start()
    assert (links / "connect4").exists()
    until_alarmed(whole, detail)


def test_a_foreign_nft_flush_under_load(whole: Stage) -> None:
    """Somebody else deletes our table: nothing leaks, it is repaired and reported."""
    with loaded(whole) as load:
        for _ in range(3):
            run("nft", "delete", "table", "inet", whole.host.instance)
            load.wait_for_more(10)
    assert not load.leaked
    assert not missing(whole, load)
    until_alarmed(whole, "nft")


def until_alarmed(whole: Stage, detail: str) -> None:
    """Wait until the collector has an alarm that says so."""
    deadline = time.monotonic() + WITHIN_S
    while not any(detail in alarm["detail"] for alarm in whole.collector.ask("alarms")):
        assert time.monotonic() < deadline, detail
        time.sleep(0.1)
