"""Marks name flows: what a run can do to speak under another run's, or to nobody's ear."""

import ctypes
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from agent.kernel import abi, objects
from agent.kernel.maps import Map
from agent.kernel.plane import Plane
from agent.runtime.clock import boot_ns
from tests.kernel.bench import SO_MARK, WAIT_S, Bench, go, line
from tests.system import claimed

PROXIED = "198.18.3.4"
# a SYN that waits for the first write: TCP_FASTOPEN_NO_COOKIE and TCP_FASTOPEN_CONNECT
HELD_BACK = """
s = socket.socket(); s.setsockopt(6, 34, 1); s.setsockopt(6, 30, 1)
s.connect((sys.argv[1], int(sys.argv[2])))
"""
WAIT = "print('up', flush=True); sys.stdin.readline()\n"
REPORT = "print(s.getsockopt(1, 36) & 0xfffff); sys.stdout.flush(); sys.stdin.readline()\n"


@contextmanager
def counter(plane: Plane) -> Iterator[Map[ctypes.c_uint32, ctypes.c_uint64]]:
    """The nonces map."""
    path = objects.version_dir(plane.config.pin_dir) / "maps" / "nonces"
    one = Map(path, ctypes.c_uint32, ctypes.c_uint64)
    try:
        yield one
    finally:
        one.close()


def wrap_to(plane: Plane, nonce: int) -> None:
    """As if 2^20 connects had gone by: the next one gets this nonce."""
    with counter(plane) as nonces:
        nonces.put(ctypes.c_uint32(0), ctypes.c_uint64((1 << 20) + nonce))


def age(plane: Plane, mark: int) -> None:
    """Make a record old, as after the time that a wrap takes."""
    record = plane.maps.mflows.get(ctypes.c_uint32(mark))
    assert record is not None
    record.connect_ns -= 60 * 10**9
    plane.maps.mflows.put(ctypes.c_uint32(mark), record)


def test_a_syn_that_was_held_back_does_not_go_under_anothers_record(bench: Bench) -> None:
    """A run keeps a connect's SYN back until its nonce is another run's: the SYN is dropped."""
    thief = bench.python(
        bench.run(), HELD_BACK + REPORT + "s.setblocking(False); s.send(b'mine')", PROXIED, "443"
    )
    nonce = int(line(thief))
    mark = bench.plane.config.mark_base | nonce
    age(bench.plane, mark)
    wrap_to(bench.plane, nonce)
    run = bench.run()
    code = "s=socket.create_connection((sys.argv[1],443));" + REPORT
    victim = bench.python(run, code, PROXIED)
    assert int(line(victim)) == nonce
    go(thief)
    thief.wait(WAIT_S)
    bench.renew()
    assert bench.arrive().attributed().run_id == run.run_id
    assert bench.nothing_arrives()


def test_a_fresh_record_is_not_overwritten(bench: Bench) -> None:
    """The nonce of a connection that still waits at the proxy is passed over."""
    first, second = bench.run(), bench.run()
    code = WAIT + "s=socket.create_connection((sys.argv[1],443));" + REPORT
    one, two = bench.python(first, code, PROXIED), bench.python(second, code, PROXIED)
    assert line(two) == line(one) == b"up"
    go(one)
    nonce = int(line(one))
    wrap_to(bench.plane, nonce)
    bench.renew()
    go(two)
    assert int(line(two)) == nonce + 1
    bench.renew()
    found = [bench.arrive() for _ in range(2)]
    whose = {
        each.sock.getsockopt(1, SO_MARK) & 0xFFFFFFFF: each.attributed().run_id for each in found
    }
    base = bench.plane.config.mark_base
    assert whose == {base | nonce: first.run_id, base | nonce + 1: second.run_id}


def test_without_a_free_nonce_a_connect_is_refused(bench: Bench) -> None:
    """Four fresh records in a row: EPERM, counted; three: the fourth nonce is taken."""
    base = bench.plane.config.mark_base
    code = WAIT + "s=socket.socket();print(s.connect_ex((sys.argv[1],443)),flush=True)"
    for count, expected in ((3, b"0"), (4, b"1")):
        child = bench.python(bench.run(), code, PROXIED)
        assert line(child) == b"up"
        start = 1000 * count
        for nonce in range(start, start + count):
            record = abi.Flow(mark=base | nonce, connect_ns=boot_ns())
            bench.plane.maps.mflows.put(ctypes.c_uint32(base | nonce), record)
        wrap_to(bench.plane, start)
        go(child)
        assert line(child) == expected
    assert bench.plane.status().counters["no_room"] == 1


def test_a_service_on_another_loopback_address_is_not_the_runs_own(bench: Bench) -> None:
    """0.0.0.0 means the socket's own address: a listener on 127.0.0.1 does not stand for it."""
    port = claimed.port_pair()
    with socket.create_server(("127.0.0.2", port)):
        code = """
l = socket.create_server(('127.0.0.1', int(sys.argv[1])))
s = socket.socket(); s.bind(('127.0.0.2', 0)); s.settimeout(0.5)
try: s.connect(('0.0.0.0', int(sys.argv[1]))); print('connected')
except OSError: print('refused')
"""
        assert bench.output(bench.run(), code, str(port)) == "refused"


def test_a_listener_that_was_the_runs_own_is_asked_for_again(bench: Bench) -> None:
    """A SYN held back until the run's listener is gone and a service is there: dropped."""
    code = (
        "l = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        + HELD_BACK
        + "l.close(); print('closed', flush=True); sys.stdin.readline()\n"
        + "s.setblocking(False); s.send(b'x'); time.sleep(0.3)"
    )
    port = claimed.port_pair()
    child = bench.python(bench.run(), code, "127.0.0.1", str(port))
    assert line(child) == b"closed"
    with socket.create_server(("127.0.0.1", port)) as service:
        service.settimeout(0)
        go(child)
        assert child.wait(WAIT_S) == 0
        try:
            service.accept()
        except BlockingIOError:
            return
        raise AssertionError("the run reached the host's service")


def test_a_run_talks_to_its_own_listeners(bench: Bench) -> None:
    """IPv4, mapped, IPv6 and the any address: directly, also with a held-back SYN."""
    code = """
for family, where in ((2,'127.0.0.1'),(2,'127.0.0.9'),(2,'0.0.0.0'),(10,'::1'),(10,'::')):
    l = socket.socket(family); l.bind((where, 0)); l.listen(); port = l.getsockname()[1]
    s = socket.socket(family); s.connect((where, port)); l.accept()
    if family == 2 and where != '127.0.0.9':
        s = socket.socket(10); s.connect(('::ffff:127.0.0.1', port)); l.accept()
print('all')
"""
    assert bench.output(bench.run(), code) == "all"
    assert bench.nothing_arrives()


def test_our_ports_are_roots_while_nobody_holds_them(bench: Bench) -> None:
    """Without a daemon, neither a run (root or not) nor a user can bind them; root can."""
    for one in bench.listeners:
        one.close()
    port = str(bench.plane.config.proxy_port)
    code = """
for family, where in ((2,'127.0.0.1'),(2,'0.0.0.0'),(10,'::1'),(10,'::'),(10,'::ffff:127.0.0.1')):
    s = socket.socket(family); s.setsockopt(1, 15, 1)
    try: s.bind((where, int(sys.argv[1]))); print(0, end=' ')
    except OSError as error: print(error.errno, end=' ')
"""
    assert bench.output(bench.run(), code, port).split() == ["1"] * 5
    outsider = bench.python(None, code, port, uid=65534)
    assert outsider.communicate(timeout=WAIT_S)[0].split() == [b"1"] * 5
    assert bench.output(None, code, port).split()[0] == "0"


def test_our_ports_elsewhere_are_anybodys(bench: Bench) -> None:
    """In another network namespace a bystander may bind and dial the same numbers."""
    code = "l=socket.create_server(('127.0.0.1',int(sys.argv[1])));"
    code += "socket.create_connection(l.getsockname());print('both')"
    up = f'ip link set lo up && exec python3 -I -S -c "import sys,socket;{code}" $1'
    child = bench.spawn(
        None, "unshare", "-Urn", "sh", "-c", up, "sh", str(bench.plane.config.proxy_port)
    )
    out, err = child.communicate(timeout=WAIT_S)
    assert out == b"both\n", err
