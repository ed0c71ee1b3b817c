"""Identity: tag and cgroup, in every combination."""

import ctypes
import os
import socket

import pytest

from agent.kernel import flows
from agent.kernel.events import CgroupWithoutTag, TagWithoutCgroup
from agent.model.flow import Attribution, Endpoint, Evidence, Unattributed
from tests.kernel.bench import SO_MARK, WAIT_S, Bench, original_destination

CONNECT = """
s = socket.socket()
s.settimeout(60)
s.connect((sys.argv[1], int(sys.argv[2])))
print(s.recv(10).decode())
"""
PROXIED = ("198.18.3.4", "443")


def test_a_flow_of_a_run_is_attributed_with_both_facts(bench: Bench) -> None:
    """A run's connect arrives at the proxy with run, process, argv, parent and destination."""
    run = bench.run()
    child = bench.python(run, CONNECT, *PROXIED)
    arrived = bench.arrive()
    whose = arrived.attributed()
    assert whose.run_id == run.run_id
    assert whose.tag == run.tag
    assert whose.cgroup_id == run.cgroup_id
    assert whose.evidence is Evidence.TAG_AND_CGROUP
    assert whose.destination == Endpoint("198.18.3.4", 443)
    assert whose.process.pid == child.pid
    assert whose.process.argv[1:4] == ("-I", "-S", "-c")
    assert whose.process.exe.startswith("/")
    assert whose.ancestors[0].pid == os.getpid()


def test_a_flow_record_is_taken_once(bench: Bench) -> None:
    """The second question for the same mark is answered with Unattributed."""
    bench.python(bench.run(), CONNECT, *PROXIED)
    arrived = bench.arrive()
    arrived.attributed()
    mark = arrived.sock.getsockopt(socket.SOL_SOCKET, SO_MARK)
    assert isinstance(bench.plane.attribute(mark, arrived.destination), Unattributed)


@pytest.mark.parametrize(("late_ns", "known"), [(0, True), (1_000_000, False)])
def test_a_record_has_an_age(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, late_ns: int, *, known: bool
) -> None:
    """At RECORD_AGE_MAX_S it is taken; a millisecond later its connection is nobody's."""
    child = bench.python(bench.run(), "s=socket.create_connection(('198.18.7.7',80)); s.recv(1)")
    sock, _ = bench.listeners[0].accept()
    with sock:
        mark = sock.getsockopt(socket.SOL_SOCKET, SO_MARK)
        record = bench.plane.maps.mflows.get(ctypes.c_uint32(mark & 0xFFFFFFFF))
        assert record is not None
        then_ns = record.connect_ns + int(flows.RECORD_AGE_MAX_S * 1e9) + late_ns
        monkeypatch.setattr(flows, "boot_ns", lambda: then_ns)
        whose = bench.plane.attribute(mark, original_destination(sock))
    assert isinstance(whose, Attribution) is known
    if isinstance(whose, Unattributed):
        assert "s old" in whose.detail
    child.wait(WAIT_S)


def test_a_record_is_refused_for_another_destination(bench: Bench) -> None:
    """A mark with a destination that is not the record's is Unattributed, and consumed."""
    bench.python(bench.run(), CONNECT, *PROXIED)
    sock, _ = bench.listeners[0].accept()
    with sock:
        mark = sock.getsockopt(socket.SOL_SOCKET, SO_MARK)
    other = Endpoint("198.18.3.5", 443)
    assert isinstance(bench.plane.attribute(mark, other), Unattributed)
    assert isinstance(bench.plane.attribute(mark, Endpoint(*PROXIED[:1], 443)), Unattributed)


def test_a_bystander_is_neither_redirected_nor_recorded(bench: Bench) -> None:
    """A process outside, same uid, same address, gets no record and no redirect."""
    out = bench.output(
        None, "s=socket.socket();s.settimeout(2);print(s.connect_ex((sys.argv[1],443)))", PROXIED[0]
    )
    assert int(out) != 0
    assert bench.nothing_arrives()
    assert bench.plane.status().counters["marked"] == 0


def test_a_bystander_may_not_address_the_proxy(bench: Bench) -> None:
    """An outsider's connect to the proxy's and resolver's ports is EPERM; to others it is not."""
    code = "s=socket.socket();print(s.connect_ex(('127.0.0.1',int(sys.argv[1]))))"
    assert bench.output(None, code, str(bench.plane.config.proxy_port)) == "1"
    assert bench.output(None, code, str(bench.plane.config.dns_port)) == "1"
    assert bench.output(None, code, "1") == "111"


def test_a_process_moved_in_has_no_tag(bench: Bench) -> None:
    """Moved into the run's cgroup by root: governed, evidence CGROUP_ONLY, and an event."""
    run = bench.run()
    child = bench.python(run.cgroup_path, CONNECT, *PROXIED)
    assert bench.arrive().attributed().evidence is Evidence.CGROUP_ONLY
    event = bench.wait_event(CgroupWithoutTag)
    assert isinstance(event, CgroupWithoutTag)
    assert (event.run_id, event.pid) == (run.run_id, child.pid)


def test_a_process_moved_out_is_still_governed(bench: Bench) -> None:
    """A run's process moved out: redirected as before, evidence TAG_ONLY, and an event."""
    run = bench.run()
    child = bench.python(run, "sys.stdin.readline()\n" + CONNECT, *PROXIED)
    bench.plane.tree.move(bench.outside, child.pid)
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
    whose = bench.arrive().attributed()
    assert whose.evidence is Evidence.TAG_ONLY
    assert whose.run_id == run.run_id
    event = bench.wait_event(TagWithoutCgroup)
    assert isinstance(event, TagWithoutCgroup)
    assert (event.run_id, event.pid) == (run.run_id, child.pid)


def test_the_tag_follows_fork_and_threads(bench: Bench) -> None:
    """Grandchildren and threads of a run's process connect with both facts."""
    run = bench.run()
    code = """
import threading
def go():
    s = socket.socket(); s.settimeout(60); s.connect((sys.argv[1], 443)); s.recv(1)
if os.fork() == 0:
    if os.fork() == 0:
        go()
    os._exit(0)
t = threading.Thread(target=go); t.start(); t.join(); os.wait()
"""
    bench.python(run, code, PROXIED[0])
    found = {bench.arrive().attributed() for _ in range(2)}
    assert {one.evidence for one in found} == {Evidence.TAG_AND_CGROUP}
    assert len({one.process.pid for one in found}) == 2


def test_one_shot_processes_are_known_after_exit(bench: Bench) -> None:
    """Six processes connect and exit before accept: exe, argv and ancestors are all there."""
    run = bench.run()
    script = """
i=0; while [ $i -lt 6 ]; do
python3 -I -S -c "import socket,os
s=socket.socket();s.connect(('198.18.3.4',443));os._exit(0)" --job=$i
i=$((i+1)); done"""
    child = bench.spawn(run, "sh", "-c", script)
    assert child.wait(WAIT_S) == 0
    bench.renew()
    jobs = set()
    for _ in range(6):
        whose = bench.arrive().attributed()
        assert not os.path.exists(f"/proc/{whose.process.pid}")
        assert whose.process.exe.rpartition("/")[2].startswith("python3")
        assert whose.ancestors[0].pid == child.pid
        assert whose.ancestors[0].argv[:2] == ("sh", "-c")
        jobs.add(whose.process.argv[-1])
    assert jobs == {f"--job={number}" for number in range(6)}


def test_a_loop_may_use_its_own_loopback_listener(bench: Bench) -> None:
    """Same run: direct. Another run or the host's own listeners: through the proxy."""
    code = """
l = socket.create_server(('127.0.0.1', 0)); port = l.getsockname()[1]
c = socket.create_connection(('127.0.0.1', port)); s, _ = l.accept()
s.sendall(b'own'); print(c.recv(3).decode(), c.getsockopt(1, 36))
"""
    assert bench.output(bench.run(), code) == "own 0"
    assert bench.nothing_arrives()
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        bench.python(bench.run(), CONNECT, "127.0.0.1", str(port))
        assert bench.arrive().attributed().destination == Endpoint("127.0.0.1", port)


def test_a_foreign_socket_is_refused(bench: Bench) -> None:
    """A socket made before the process joined the run cannot connect: EPERM."""
    run = bench.run()
    code = """
s = socket.socket(); sys.stdout.write('made\\n'); sys.stdout.flush(); sys.stdin.readline()
print(s.connect_ex(('198.18.3.4', 443)))
"""
    child = bench.python(None, code)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"made\n"
    pidfd = os.pidfd_open(child.pid)
    bench.plane.admit(run.run_id, pidfd)  # an unbound socket is not in sock_diag: see the gate
    os.close(pidfd)
    child.stdin.write(b"go\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"1\n"
