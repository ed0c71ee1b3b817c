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
from agent.kernel.admission import Tagger
from agent.kernel.errors import RunRefused
from agent.model.ids import LoopName, RunId
from agent.model.loop import Initiator
from agent.runtime.clock import fresh_ulid, unix_ms

if TYPE_CHECKING:
    from agent.kernel.plane import Plane

PROBE_LOOP = LoopName("loopwarden-doctor")
PROBE_WAIT_S = 60.0  # the child's answers come at once; past this the layer counts as absent
EMPTY_TRIES, EMPTY_WAIT_S = 4000, 0.005  # on a busy host a dead child's own child takes a while
COUNT_TRIES = 200  # of EMPTY_WAIT_S each: packets on lo may wait for a softirq
TARGET_PORT = 9
_EPERM, _REFUSED = 1, 111

# Runs in the throw-away run, isolated mode, standard library only. One JSON line an answer.
_CHILD = """
import json, os, socket, sys
four, six, port, mark, proxy = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
query = bytes.fromhex('1234010000010000000000000a6c6f6f7077617264656e07696e76616c69640000010001')
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
def ask(family, host):
    s = socket.socket(family, 2); s.settimeout(5)
    s.sendto(query, (host, 53)); reply, sender = s.recvfrom(4096)
    return [reply[:2] == query[:2], *sender[:2]]
def stream(family, host):
    s = socket.socket(family); s.settimeout(5); s.connect((host, 53)); return s.getpeername()[:2]
def said(call):
    try: return call()
    except OSError as error: return [error.strerror or str(error)]
def child():
    r, w = os.pipe(); pid = os.fork()
    if pid == 0:
        os.close(w); os.read(r, 1); os._exit(0)
    return pid, w  # it ends when we do
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
out['dns_answer'] = said(lambda: ask(2, four))
out['dns6_answer'] = said(lambda: ask(10, six))
out['dns_tcp'] = said(lambda: stream(2, four))
out['dns6_tcp'] = said(lambda: stream(10, six))
out['option'] = number(lambda: socket.socket().setsockopt(1, 36, 7))
out['bind'] = number(lambda: socket.socket().bind(('127.0.0.1', proxy)))
out['bind6'] = number(lambda: socket.socket(10).bind(('::1', proxy)))
out['child'], tie = child()
inward = socket.socket(type=2); inward.bind(('127.0.0.1', 0))
out['inward'] = inward.getsockname()[1]
print(json.dumps(out), flush=True)
sys.stdin.readline()
print(number(lambda: d.send(query)), number(lambda: kept.sendall(b'x')), flush=True)
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
    """What the child of the run reported, and what was seen of it from outside, by layer."""

    ways: dict[str, object]
    seen: dict[str, bool]


async def probe_layers(plane: "Plane") -> list[Layer]:
    """Return one Layer for each way out. A probe that itself fails is an absent layer."""
    try:
        with _stand_in(plane.config.proxy_port, plane.config.dns_port):
            answers = await _ask_run(plane)
            fenced = await _ask_fence(plane)
    except TimeoutError:
        return [Layer("probe", True, False, f"no answer within {PROBE_WAIT_S:.0f} s")]
    except (OSError, ValueError, RunRefused) as error:
        return [Layer("probe", True, False, f"the probe failed: {error}")]
    return [*_judge_tcp(answers), *_judge_rest(plane, answers), *_judge_fence(fenced)]


@contextlib.contextmanager
def _stand_in(proxy_port: int, dns_port: int) -> Iterator[None]:
    """Serve the proxy's and resolver's ports where nobody does: a redirect must lead somewhere."""
    event_loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for port in (proxy_port, dns_port):
                sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):  # EADDRINUSE: the proxy is there itself
                    sock.bind((address, port))
                    sock.listen(16)
            asked = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            asked.setblocking(False)
            with contextlib.suppress(OSError):
                asked.bind((address, dns_port))
                event_loop.add_reader(asked.fileno(), _echo, asked)
                stack.callback(event_loop.remove_reader, asked.fileno())
        yield


def _echo(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the asker is gone
        sock.sendto(*sock.recvfrom(512))


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
    numbers = (TARGET_PORT, plane.config.mark_base, plane.config.proxy_port)
    try:
        async with _child(_CHILD, *_target(plane), *map(str, numbers)) as child:
            await _line(child)  # it has made the socket that must turn out foreign
            pidfd = os.pidfd_open(child.pid)
            try:
                plane.admit(run.run_id, pidfd)
            finally:
                os.close(pidfd)
            _say(child)
            ways: dict[str, object] = json.loads(await _line(child))
            seen = {"tag": Tagger(plane.maps).get(int(str(ways["child"]))) == run.tag}
            seen |= await _ask_frozen(plane, run.run_id, child, int(str(ways["inward"])))
    finally:
        await _wait_empty(plane, run.run_id)
        plane.remove(run.run_id)
    return _Answers(ways, seen)


async def _ask_frozen(
    plane: "Plane", run_id: RunId, child: asyncio.subprocess.Process, port: int
) -> dict[str, bool]:
    """Revoke the run: a datagram to it, one of its own, and a segment of its own are dropped."""
    before = plane.maps.counters()["revoked"]
    plane.freeze(run_id)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outsider:
        outsider.sendto(b"in", ("127.0.0.1", port))
    arrived = not await _counted(plane, before)
    before = plane.maps.counters()["revoked"]
    _say(child)
    datagram = (await _line(child)).partition(" ")[0]  # "" when it died
    guarded = await _counted(plane, before)
    return {"ingress": not arrived, "egress": datagram == str(_EPERM), "guard": guarded}


async def _counted(plane: "Plane", before: int) -> bool:
    """Return whether one more packet of a revoked run is counted soon."""
    for _ in range(COUNT_TRIES):
        if plane.maps.counters()["revoked"] > before:
            return True
        await asyncio.sleep(EMPTY_WAIT_S)
    return False


async def _wait_empty(plane: "Plane", run_id: RunId) -> None:
    """Wait until the kernel has let go of the dead child and of its child, up to 20 s."""
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
        "option": "setsockopt() of a mark",
        "bind": "bind() to the proxy's port",
        "bind6": "bind() to the proxy's port, IPv6",
    }
    for name, what in denied.items():
        code = answers.ways[name]
        told = os.strerror(code) if isinstance(code, int) and code else "it passed"
        yield Layer(f"probe {name}", True, code in (_EPERM, _REFUSED), f"{what}: {told}")
    for name, host in (("dns", "127.0.0.1"), ("dns6", "::1")):
        peer = answers.ways[f"{name}_peer"]
        ours = peer == [host, plane.config.dns_port]
        yield Layer(f"probe {name}", True, ours, f"a query to port 53 goes to {_place(peer)}")
    yield from _judge_names(plane, answers)
    for name, detail in _SEEN.items():
        yield Layer(f"probe {name}", True, answers.seen[name], detail)


_SEEN = {
    "tag": "a new process has the tag of its parent",
    "ingress": "a datagram to a revoked run is dropped",
    "egress": "a datagram of a revoked run is dropped",
    "guard": "packets of a revoked run's connection are dropped",
}


def _judge_names(plane: "Plane", answers: _Answers) -> Iterator[Layer]:
    """Judge a query with its answer, and name service over TCP."""
    resolvers = ("127.0.0.1", "::1")
    for name, asked, ours in zip(("dns", "dns6"), _target(plane), resolvers, strict=True):
        reply, peer = answers.ways[f"{name}_answer"], answers.ways[f"{name}_tcp"]
        good = reply == [True, asked, 53]
        told = "a query has its answer, under the asked server's name"
        yield Layer(
            f"probe {name} answer", True, good, told if good else f"not so: {told}: {reply}"
        )
        told = f"TCP to port 53 goes to {_place(peer)}"
        yield Layer(f"probe {name} tcp", True, peer == [ours, plane.config.dns_port], told)


def _place(peer: object) -> str:
    """Return an address for people; what is none, as it is."""
    match peer:
        case [str(host), int(port)]:
            return f"{host} port {port}"
        case _:
            return str(peer)


def _judge_fence(codes: list[int]) -> Iterator[Layer]:
    for name, code in zip(("fence4", "fence6"), codes, strict=True):
        held = code not in (0, _REFUSED)
        detail = "nft alone holds the slice in" if held else "not held by nft"
        yield Layer(f"probe {name}", True, held, f"{detail}: {os.strerror(code)}")
