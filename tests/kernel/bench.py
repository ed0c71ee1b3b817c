"""What kernel tests build with: runs, processes in and out of them, and a stand-in proxy."""

import os
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

from agent.kernel.events import KernelEvent
from agent.kernel.plane import Plane
from agent.model.flow import Attribution, Endpoint, Unattributed
from agent.model.ids import LoopName, RunId
from agent.model.loop import Initiator, Run
from agent.runtime.clock import boot_ns, fresh_ulid, unix_ms

WAIT_S = 60.0  # past this it hangs; no test claims that anything is done in so many seconds
SO_MARK = 36
SO_ORIGINAL_DST = 80
SOL_IPV6 = 41


def original_destination(accepted: socket.socket) -> Endpoint:
    """Return SO_ORIGINAL_DST of an accepted socket, as the proxy reads it."""
    if accepted.family == socket.AF_INET:
        raw = accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        return Endpoint(socket.inet_ntoa(raw[4:8]), struct.unpack_from("!H", raw, 2)[0])
    raw = accepted.getsockopt(SOL_IPV6, SO_ORIGINAL_DST, 28)
    return Endpoint(
        socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from("!H", raw, 2)[0]
    )


def listener(address: str, port: int, backlog: int = 1024) -> socket.socket:
    """Return a TCP listener."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(backlog)
    return sock


def line(child: subprocess.Popen[bytes]) -> bytes:
    """Return what the child says next."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def go(child: subprocess.Popen[bytes]) -> None:
    """Let the child go on."""
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()


@dataclass(frozen=True)
class Arrived:
    """One connection at the stand-in proxy."""

    sock: socket.socket
    destination: Endpoint
    whose: Attribution | Unattributed

    def attributed(self) -> Attribution:
        """Return the attribution; the test fails without."""
        assert isinstance(self.whose, Attribution), self.whose
        return self.whose


class Bench:
    """A plane with a stand-in proxy on its port (IPv4 and IPv6)."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        port = plane.config.proxy_port
        self.listeners = [listener("127.0.0.1", port), listener("::1", port)]
        self.outside = plane.config.attach_cgroup + "/outside"
        plane.tree.create(self.outside)
        self._children: list[subprocess.Popen[bytes]] = []
        self._events: list[KernelEvent] = []
        self._accepted: list[socket.socket] = []

    def run(self, uid: int = 0, name: str = "nightly") -> Run:
        """Create a run."""
        initiator = Initiator(uid, "tester", os.getpid(), "", "", "")
        run_id = RunId(fresh_ulid())
        return self.plane.create_run(run_id, LoopName(name), initiator, ("job",), unix_ms())

    def spawn(
        self, place: Run | str | None, *argv: str, uid: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command: in a run (admitted before exec), in a cgroup, or outside any run."""
        child = subprocess.Popen(
            ["sh", "-c", 'read go; exec "$@"', "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            user=uid,
        )
        self._children.append(child)
        pidfd = os.pidfd_open(child.pid)
        try:
            if isinstance(place, Run):
                self.plane.admit(place.run_id, pidfd)
            else:
                self.plane.tree.move(place or self.outside, child.pid)
        finally:
            os.close(pidfd)
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        return child

    def python(
        self, place: Run | str | None, code: str, *arguments: str, uid: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a Python program; it must end by itself."""
        prelude = "import os,socket,sys,time,errno\n"
        python = os.path.realpath(sys.executable)
        return self.spawn(place, python, "-I", "-S", "-c", prelude + code, *arguments, uid=uid)

    def output(self, place: Run | str | None, code: str, *arguments: str) -> str:
        """Run a Python program to its end and return what it printed."""
        child = self.python(place, code, *arguments)
        out, err = child.communicate(timeout=WAIT_S)
        assert child.returncode == 0, err.decode()
        return out.decode().strip()

    def arrive(self, timeout_s: float = WAIT_S) -> Arrived:
        """Accept one connection at the proxy's port and attribute it."""
        ready, _, _ = select.select(self.listeners, [], [], timeout_s)
        assert ready, "nothing arrived at the proxy"
        sock, _ = ready[0].accept()
        self._accepted.append(sock)
        destination = original_destination(sock)
        mark = sock.getsockopt(socket.SOL_SOCKET, SO_MARK)
        return Arrived(sock, destination, self.plane.attribute(mark, destination))

    def renew(self) -> None:
        """Make all records that wait as new as if their connects were now.

        Attribution refuses those of five seconds ago: on a busy machine a process that starts
        in between takes longer.
        """
        now = boot_ns()
        for mark in list(self.plane.maps.mflows.walk()):
            record = self.plane.maps.mflows.get(mark)
            if record is not None:
                record.connect_ns = now
                self.plane.maps.mflows.put(mark, record)

    def until_empty(self, run: Run) -> None:
        """Wait until the kernel has let go of the run's dead processes: after wait(2), perhaps."""
        end = time.monotonic() + WAIT_S
        while self.plane.populated(run.run_id):
            assert time.monotonic() < end, f"{run.run_id} still has processes"
            time.sleep(0.005)

    def nothing_arrives(self) -> bool:
        """Return whether no connection waits at the proxy's port."""
        return not select.select(self.listeners, [], [], 0)[0]

    def wait_event(self, kind: type[KernelEvent], timeout_s: float = WAIT_S) -> KernelEvent:
        """Return the next event of this kind; others are kept for later."""
        end = time.monotonic() + timeout_s
        while True:
            for event in self._events:
                if isinstance(event, kind):
                    self._events.remove(event)
                    return event
            left = end - time.monotonic()
            assert left > 0, f"no {kind.__name__}; seen: {self._events}"
            select.select([self.plane.events_fd], [], [], left)
            self._events += self.plane.read_events()

    def close(self) -> None:
        """End all children and close listeners."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        for one in self.listeners + self._accepted:
            one.close()
