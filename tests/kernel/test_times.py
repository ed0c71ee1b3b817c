"""What runs leave in connection tracking: nothing for long, and nothing breaks by it."""

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.ipc.messages import Layer
from agent.kernel import nft, nft_timeouts
from agent.kernel.config import PlaneConfig
from agent.kernel.plane import Plane
from tests.kernel.bench import WAIT_S, Bench
from tests.system import claimed

TRACKED = Path("/proc/net/nf_conntrack")
TARGETS = {"tcp4": "198.18.5.6", "tcp6": "fd4c:5700::5:6"}
PORT = 4_431
RESET = struct.pack("ii", 1, 0)
SHORT_S = 1
DIAL = """
s = socket.socket(10 if ':' in sys.argv[1] else 2); s.setsockopt(1, 2, 1)
s.bind(('', int(sys.argv[3]))); s.settimeout(60); s.connect((sys.argv[1], int(sys.argv[2])))
print(s.getsockname()[1], flush=True)
"""
# to a listener of its own: one connection that ends in order, one that is reset, one that stays
OWN = """
l = socket.create_server(('127.0.0.1', 0)); kept = []
for how in ('fin', 'rst', 'stays'):
    s = socket.create_connection(l.getsockname()); c, _ = l.accept(); kept += [c, s]
    print(s.getsockname()[1], l.getsockname()[1], flush=True)
    if how == 'rst': s.setsockopt(1, 13, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
    if how != 'stays': s.close(); c.close()
sys.stdin.readline()
"""


def tracked(port: int, to: int) -> dict[str, int]:
    """Return state and seconds left of what connection tracking knows of this pair of ports."""
    found = {}
    for line in TRACKED.read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[2] == "tcp" and f" sport={port} dport={to} " in line:
            found[words[5]] = int(words[4])
    return found


def until_gone(port: int, to: int) -> None:
    """Wait until connection tracking knows nothing of this pair of ports."""
    end = time.monotonic() + WAIT_S
    while tracked(port, to):
        assert time.monotonic() < end, tracked(port, to)
        time.sleep(0.02)


def over(port: int, to: int) -> None:
    """Wait until it is over: so few seconds are left, or none (it is forgotten already)."""
    most = {"TIME_WAIT": nft_timeouts.TIME_WAIT_S, "CLOSE": nft_timeouts.CLOSE_S}
    for state, left in ended(port, to).items():
        assert left <= most[state]


def ended(port: int, to: int) -> dict[str, int]:
    """Return what is tracked of this pair of ports once no end of it lives."""
    end = time.monotonic() + WAIT_S
    while not (found := tracked(port, to)).keys() <= {"TIME_WAIT", "CLOSE"}:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


def layer(plane: Plane) -> Layer:
    """Return what status says of it."""
    [found] = [one for one in plane.status().layers if one.name == "short connection tracking"]
    return found


def dial(bench: Bench, to: str, port: int = 0) -> "tuple[subprocess.Popen[bytes], int]":
    """Have a new run connect, and hold the connection until it is told on stdin."""
    child = bench.python(
        bench.run(), DIAL + "sys.stdin.readline()\n" + AFTER, to, str(PORT), str(port)
    )
    assert child.stdout is not None
    return child, int(child.stdout.readline())


AFTER = """
s.shutdown(1); print(s.recv(99).decode(), flush=True)
"""


@pytest.fixture
def short(config: PlaneConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A plane whose ended connections are forgotten after a second."""
    for name in ("SYN_SENT_S", "TIME_WAIT_S", "CLOSE_S"):
        monkeypatch.setattr(nft_timeouts, name, SHORT_S)
    plane = Plane.open(config)
    bench = Bench(plane)
    yield bench
    bench.close()
    plane.close()


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_connection_to_the_proxy_is_soon_forgotten(bench: Bench, family: str, how: str) -> None:
    """While it lives it has the host's time; when it is over, 2 s."""
    child, port = dial(bench, TARGETS[family])
    arrived = bench.arrive()
    arrived.attributed()
    assert tracked(port, PORT)["ESTABLISHED"] > 300
    if how == "rst":
        arrived.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        arrived.sock.close()
        child.communicate(b"go\n", timeout=WAIT_S)
        over(port, PORT)
        return
    arrived.sock.sendall(b"all")
    arrived.sock.close()
    out, _ = child.communicate(b"go\n", timeout=WAIT_S)
    assert out == b"all\n"
    over(port, PORT)


def test_connections_of_a_run_to_itself_are_too_and_nobody_elses(bench: Bench) -> None:
    """Its own listener's ended ones have 2 s, the live one the host's; a bystander's all have."""
    for place in (bench.run(), None):
        child = bench.python(place, OWN)
        assert child.stdout is not None
        fin, rst, stays = ([int(one) for one in child.stdout.readline().split()] for _ in range(3))
        if place is not None:
            over(*fin)
            over(*rst)
        else:
            assert ended(*fin)["TIME_WAIT"] > 30
        assert tracked(*stays)["ESTABLISHED"] > 300
        child.communicate(b"go\n", timeout=WAIT_S)


def test_a_half_closed_connection_outlives_the_short_times(short: Bench) -> None:
    """Longer than any of them after the loop's FIN, the other half still brings what is sent."""
    child, port = dial(short, TARGETS["tcp4"])
    arrived = short.arrive()
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
    assert arrived.sock.recv(9) == b""
    time.sleep(SHORT_S + 0.3)  # nothing can be waited for: that nothing happens is the claim
    assert tracked(port, PORT)
    arrived.sock.sendall(b"late")
    arrived.sock.close()
    out, _ = child.communicate(timeout=WAIT_S)
    assert out == b"late\n"


def test_the_same_ports_are_dialled_again_when_they_are_forgotten(short: Bench) -> None:
    """The proxy closed first, and has its end for a minute; with no entry left the next arrives."""
    port = claimed.port_pair()  # in between, nobody else takes it
    for text in (b"first", b"second"):
        child, port = dial(short, TARGETS["tcp4"], port)
        arrived = short.arrive()
        arrived.attributed()
        arrived.sock.sendall(text)
        arrived.sock.close()
        out, _ = child.communicate(b"go\n", timeout=WAIT_S)
        assert out.strip() == text
        if text == b"first":
            until_gone(port, PORT)


def test_a_kernel_without_such_times_has_the_table_all_the_same(
    config: PlaneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redirect and fences hold, status says so; a later daemon on a kernel that has them adds them.

    The number of an object that no kernel has stands in for the kernel without ours.
    """
    monkeypatch.setattr(nft_timeouts, "OBJECT_CT_TIMEOUT", 99)
    plane = Plane.open(config)
    assert not layer(plane).present
    assert not layer(plane).claimed
    bench = Bench(plane)
    dial(bench, TARGETS["tcp4"])
    bench.arrive().attributed()
    assert plane.verify() == ()
    plane._guard.install_table()  # the chains are there: rules are exchanged
    assert not layer(plane).present
    before = nft.chains(config.instance)
    monkeypatch.undo()
    plane._guard.install_table()
    assert layer(plane).present
    assert nft.chains(config.instance) == before
    assert plane.verify() == ()
    dial(bench, TARGETS["tcp6"])
    bench.arrive().attributed()
    bench.close()
    plane.close()


def test_a_table_that_was_flushed_has_its_times_again(bench: Bench) -> None:
    """With the repair of the table; and exchanging its rules keeps them."""
    table = bench.plane.config.instance
    subprocess.run(["nft", "flush", "table", "inet", table], check=True)
    assert not layer(bench.plane).present
    assert [one.part for one in bench.plane.verify()] == ["nft"]
    assert layer(bench.plane).present
    bench.plane._guard.install_table()
    assert layer(bench.plane).present
    assert bench.plane.verify() == ()
