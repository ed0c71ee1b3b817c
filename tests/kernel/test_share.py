"""What all runs share, one can't use up; and what names a flow, nobody outside can say."""

import ctypes
import ipaddress
import socket

from agent.kernel import abi
from agent.model.loop import Run
from agent.runtime.clock import boot_ns
from tests.kernel.bench import WAIT_S, Bench, go, line
from tests.system import claimed

TO = "198.18.3.4"
# each is in the listener's queue before the next one is dialled
DIAL = """
said = []; print('up', flush=True); sys.stdin.readline()
for _ in range(int(sys.argv[1])):
    s = socket.socket(); s.settimeout(60); said.append(s.connect_ex(('198.18.3.4', 443)))
    s.close()
print(said.count(0), said.count(errno.EAGAIN))
"""


def dial(bench: Bench, run: Run, count: int) -> str:
    """Have a process of the run connect so often, while no record is old; return what it said."""
    child = bench.python(run, DIAL, str(count))
    assert line(child) == b"up"
    bench.renew()
    go(child)
    said = line(child).decode()
    assert child.wait(WAIT_S) == 0
    return said


def test_a_run_has_so_many_connections_on_their_way(bench: Bench) -> None:
    """The 1,024th goes, the next is EAGAIN; another run's goes, and its own when one arrived."""
    run, other = bench.run(), bench.run()
    bench.listeners[0].listen(4096)
    assert dial(bench, run, abi.PENDING_MAX) == f"{abi.PENDING_MAX} 0"
    assert dial(bench, run, 1) == "0 1"
    assert bench.plane.status().counters["crowded"] == 1
    assert dial(bench, other, 1) == "1 0"
    bench.renew()
    for _ in range(16):
        assert bench.arrive().attributed().run_id == run.run_id
    assert dial(bench, run, 1) == "1 0"


ASK = """
s = socket.socket(2, 2); sent, refused = 0, set()  # it waits for its buffer: EAGAIN is the hook's
started = time.monotonic()
for _ in range(int(sys.argv[1])):
    try: s.sendto(b'question', ('192.0.2.53', 53)); sent += 1
    except OSError as error: refused.add(errno.errorcode[error.errno])
print(sent <= 1100 + 600 * (time.monotonic() - started), sent >= 990, *sorted(refused))
"""


def test_a_run_has_its_share_of_the_resolver(bench: Bench) -> None:
    """A thousand questions at once and 500 a second; more are refused; another run has its own."""
    run, other = bench.run(), bench.run()
    said = bench.output(run, ASK, "20000").split()
    assert said[:2] == ["True", "True"]
    assert set(said[2:]) <= {"EAGAIN", "EPERM"}
    assert said[2:]
    assert bench.output(other, ASK, "990").split()[1:] == ["True"]


def test_connected_sockets_have_no_other_share(bench: Bench) -> None:
    """send(2) on a connected socket goes past the hooks of sendmsg, not past the packet's."""
    code = ASK.replace("started =", "s.connect(('192.0.2.53', 53)); started =", 1)
    code = code.replace("s.sendto(b'question', ('192.0.2.53', 53))", "s.send(b'question')")
    code = code.replace("1100 + 600", "4100 + 2200")  # each counts once; none is there to answer
    said = bench.output(bench.run(), code, "60000").split()
    assert said[0] == "True"


def test_nobody_outside_dials_under_a_runs_mark(bench: Bench) -> None:
    """Root outside sets the mark of a record that waits, and dials its destination: dropped."""
    run = bench.run()
    mark = bench.plane.config.mark_base | 77
    record = abi.Flow(mark=mark, tag=run.tag, connect_ns=boot_ns(), dport=443)
    record.daddr[:] = ipaddress.ip_address("::ffff:" + TO).packed
    bench.plane.maps.mflows.put(ctypes.c_uint32(mark), record)
    code = """
for family, to in ((2, '198.18.3.4'), (10, '::ffff:198.18.3.4')):
    s = socket.socket(family); s.settimeout(0.5)
    s.setsockopt(1, 36, int(sys.argv[1]).to_bytes(4, sys.byteorder))
    try: s.connect((to, 443)); print('connected')
    except OSError as error: print(type(error).__name__)
"""
    assert set(bench.output(None, code, str(mark)).split()) <= {"TimeoutError", "PermissionError"}
    assert bench.nothing_arrives()
    assert bench.plane.status().counters["forged"] >= 2


def test_marks_that_are_not_ours_are_left_alone(bench: Bench) -> None:
    """An outsider's connection under somebody else's mark goes where it went."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        code = """
s = socket.socket(); s.setsockopt(1, 36, 0x2a); s.settimeout(2)
print(s.connect_ex(('127.0.0.1', int(sys.argv[1]))))
"""
        assert bench.output(None, code, str(service.getsockname()[1])) == "0"


def test_a_port_whose_last_connection_is_closing_dials_the_runs_listener(bench: Bench) -> None:
    """The server closed first and keeps the pair for a minute: the next one need not wait."""
    code = """
for family, where in ((2, '127.0.0.1'), (10, '::1')):
    l = socket.create_server((where, 0), family=family); port = int(sys.argv[1])
    for _ in range(5):
        s = socket.socket(family); s.setsockopt(1, 2, 1); s.settimeout(60); s.bind((where, port))
        s.connect(l.getsockname()[:2]); c, _ = l.accept(); c.close(); s.recv(1)
        assert s.getsockopt(6, 11, 104)[100:] == bytes(4)  # tcpi_total_retrans: its SYN was enough
        s.close()
print('all')
"""
    assert bench.output(bench.run(), code, str(claimed.port_pair())) == "all"
