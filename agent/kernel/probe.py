"""The doctor's probe: one process in a throw-away run tries each way out, and says what it got."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from agent.ipc.messages import Layer
from agent.kernel.errors import RunRefused
from agent.model.ids import LoopName, RunId
from agent.model.loop import Initiator
from agent.runtime.clock import fresh_ulid, unix_ms

if TYPE_CHECKING:
    from agent.kernel.plane import Plane

PROBE_LOOP = LoopName("loopwarden-doctor")
PROBE_WAIT_S = 5.0  # the child's answers come at once; past this the layer counts as absent
EMPTY_TRIES, EMPTY_WAIT_S = 200, 0.005
TARGET_PORT = 9
_EPERM, _REFUSED = 1, 111

# Runs in the throw-away run, isolated mode, standard library only. One JSON line an answer.
_CHILD = """
import json, socket, sys
four, six, port, mark = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
early = socket.socket()
print('up', flush=True)
sys.stdin.readline()
def number(call):
    try: call()
    except OSError as error: return error.errno or 110
    return 0
def dial(family, host):
    s = socket.socket(family); s.settimeout(0.4); code = number(lambda: s.connect((host, port)))
    ours = s.getsockopt(1, 36) & 0xffffffff & ~0xfffff == mark
    return s, code, ours
out = {}
kept, *out['tcp4'] = dial(2, four)
_, *out['tcp6'] = dial(10, six)
_, *out['mapped'] = dial(10, '::ffff:' + four)
out['foreign'] = number(lambda: early.connect((four, port)))
u = socket.socket(type=2)
out['udp_connect'] = number(lambda: u.connect((four, 443)))
out['udp_send'] = number(lambda: u.sendto(b'x', (four, 443)))
u6 = socket.socket(10, 2)
out['udp6_send'] = number(lambda: u6.sendto(b'x', (six, 443)))
out['raw'] = number(lambda: socket.socket(2, 3, 1))
d = socket.socket(type=2)
out['dns_error'] = number(lambda: d.connect((four, 53)))
out['dns_peer'] = d.getpeername()[:2] if not out['dns_error'] else []
d6 = socket.socket(10, 2)
out['dns6_error'] = number(lambda: d6.connect((six, 53)))
out['dns6_peer'] = d6.getpeername()[:2] if not out['dns6_error'] else []
print(json.dumps(out), flush=True)
sys.stdin.readline()
print(number(lambda: kept.sendall(b'x')), flush=True)
"""
_FENCE_CHILD = """
import socket, sys
sys.stdin.readline()
for family, host in ((2, sys.argv[1]), (10, sys.argv[2])):
    s = socket.socket(family); s.settimeout(0.4)
    try: s.connect((host, int(sys.argv[3]))); print(0)
    except TimeoutError: print(110)
    except OSError as error: print(error.errno)
"""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What the child of the run reported, and whether a frozen run's packet was dropped."""

    ways: dict[str, object]
    frozen: bool


async def probe_layers(plane: "Plane") -> list[Layer]:
    """Return one Layer for each way out. A probe that itself fails is an absent layer."""
    try:
        with _stand_in(plane.config.proxy_port):
            answers = await _ask_run(plane)
            fenced = await _ask_fence(plane)
    except TimeoutError:
        return [Layer("probe", True, False, f"no answer within {PROBE_WAIT_S:.0f} s")]
    except (OSError, ValueError, RunRefused) as error:
        return [Layer("probe", True, False, f"the probe failed: {error}")]
    return [*_judge_tcp(answers), *_judge_rest(plane, answers), *_judge_fence(fenced)]


@contextlib.contextmanager
def _stand_in(port: int) -> Iterator[None]:
    """Listen on the proxy's port where nobody does, so that a redirect has somewhere to go."""
    with contextlib.ExitStack() as stack:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # EADDRINUSE: the proxy is there itself
                sock.bind((address, port))
                sock.listen(16)
        yield


def _target(plane: "Plane") -> tuple[str, str]:
    nets = (plane.config.synthetic4, plane.config.synthetic6)
    four, six = (str(ip_network(one)[-2]) for one in nets)
    return four, six


@contextlib.asynccontextmanager
async def _child(code: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yield a started child; within PROBE_WAIT_S in all, and ended afterwards.

    Raises:
        TimeoutError: it took longer.
    """
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    command = (sys.executable, "-I", "-S", "-c", code, *arguments)
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=null)
    try:
        async with asyncio.timeout(PROBE_WAIT_S):
            yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _say(child: asyncio.subprocess.Process) -> None:
    assert child.stdin is not None
    child.stdin.write(b"go\n")


async def _line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    return (await child.stdout.readline()).decode()


async def _ask_run(plane: "Plane") -> _Answers:
    initiator = Initiator(os.geteuid(), "root", os.getpid(), "", "", "")
    run_id = RunId(fresh_ulid())
    run = plane.create_run(run_id, PROBE_LOOP, initiator, ("probe",), unix_ms())
    marks = (str(TARGET_PORT), str(plane.config.mark_base))
    try:
        async with _child(_CHILD, *_target(plane), *marks) as child:
            await _line(child)  # it has made the socket that must turn out foreign
            pidfd = os.pidfd_open(child.pid)
            try:
                plane.admit(run.run_id, pidfd)
            finally:
                os.close(pidfd)
            _say(child)
            ways: dict[str, object] = json.loads(await _line(child))
            before = plane.maps.counters()["revoked"]
            plane.freeze(run.run_id)
            _say(child)
            await _line(child)
            frozen = plane.maps.counters()["revoked"] > before
    finally:
        await _wait_empty(plane, run.run_id)
        plane.remove(run.run_id)
    return _Answers(ways, frozen)


async def _wait_empty(plane: "Plane", run_id: RunId) -> None:
    """Wait until the kernel has let go of the dead child, up to a second."""
    for _ in range(EMPTY_TRIES):
        if not plane.populated(run_id):
            return
        await asyncio.sleep(EMPTY_WAIT_S)


async def _ask_fence(plane: "Plane") -> list[int]:
    """Dial from a cgroup in the slice that is no run: BPF lets it pass, only nft holds it."""
    path = str(PurePosixPath(plane.config.slice_path) / f"probe-{os.getpid()}")
    plane.tree.create(path)
    try:
        async with _child(_FENCE_CHILD, *_target(plane), str(TARGET_PORT)) as child:
            plane.tree.move(path, child.pid)
            _say(child)
            return [int(await _line(child)) for _ in range(2)]
    finally:
        plane.tree.remove(path)


def _judge_tcp(answers: _Answers) -> Iterator[Layer]:
    for name in ("tcp4", "tcp6", "mapped"):
        raw = answers.ways[name]
        code, ours = raw if isinstance(raw, list) else (0, False)
        detail = "marked and redirected to the proxy's port"
        if not ours:
            detail = "connect() gave no mark of ours"
        elif code != 0:
            detail = f"marked, but not redirected: {os.strerror(int(code))}"
        yield Layer(f"probe {name}", True, bool(ours) and code == 0, detail)


def _judge_rest(plane: "Plane", answers: _Answers) -> Iterator[Layer]:
    denied = {
        "foreign": "a socket made before the run",
        "udp_connect": "UDP connect()",
        "udp_send": "UDP sendto()",
        "udp6_send": "UDP sendto(), IPv6",
        "raw": "a raw socket",
    }
    for name, what in denied.items():
        code = answers.ways[name]
        yield Layer(f"probe {name}", True, code in (_EPERM, _REFUSED), f"{what}: errno {code}")
    for name, host in (("dns", "127.0.0.1"), ("dns6", "::1")):
        peer = answers.ways[f"{name}_peer"]
        ours = peer == [host, plane.config.dns_port]
        yield Layer(f"probe {name}", True, ours, f"a query to port 53 goes to {peer}")
    detail = "packets of a revoked run are dropped"
    yield Layer("probe guard", True, answers.frozen, detail)


def _judge_fence(codes: list[int]) -> Iterator[Layer]:
    for name, code in zip(("fence4", "fence6"), codes, strict=True):
        held = code not in (0, _REFUSED)
        detail = "nft alone holds the slice in" if held else "not held by nft"
        yield Layer(f"probe {name}", True, held, f"{detail}: {os.strerror(code)}")
