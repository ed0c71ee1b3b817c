"""Attribution under load: every flow right, no bystander touched."""

import select
import socket
import subprocess
import time

import pytest

from agent.model.flow import Attribution
from tests.kernel.bench import SO_MARK, WAIT_S, Bench, listener, original_destination

CLIENTS, CONNECTS = 8, 4000
BYSTANDERS, BYSTANDER_CONNECTS = 2, 1000

# Each connection tells who it is and where it wanted to go; the answer paces the client.
CLIENT = """
import random, struct
n = int(sys.argv[1]); pid = os.getpid(); rng = random.Random(pid)
for _ in range(n):
    host = '198.18.%d.%d' % (rng.randrange(256), rng.randrange(256)); port = rng.randrange(1, 50000)
    if port == 53: port = 54
    s = socket.socket(); s.connect((host, port))
    s.sendall(struct.pack('!I4sH', pid, socket.inet_aton(host), port)); s.recv(1); s.close()
"""
BYSTANDER = """
for _ in range(int(sys.argv[1])):
    s = socket.create_connection(('127.0.0.1', int(sys.argv[2]))); assert s.recv(3) == b'own'
    s.close()
"""


def _serve_bystander(server: socket.socket) -> None:
    sock, _ = server.accept()
    with sock:
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == 0
        sock.sendall(b"own")


def _judge(bench: Bench, server: socket.socket) -> tuple[str, int]:
    """Attribute one flow; return run id and pid when all that the client said is so."""
    sock, _ = server.accept()
    with sock:
        destination = original_destination(sock)
        mark = sock.getsockopt(socket.SOL_SOCKET, SO_MARK)
        whose = bench.plane.attribute(mark, destination)
        said = sock.recv(10, socket.MSG_WAITALL)
        sock.sendall(b"!")
    assert isinstance(whose, Attribution), whose
    assert whose.process.pid == int.from_bytes(said[:4], "big")
    assert whose.destination.address == socket.inet_ntoa(said[4:8])
    assert whose.destination.port == int.from_bytes(said[8:], "big")
    return whose.run_id, whose.process.pid


@pytest.mark.timeout(1800)  # ten seconds, on a machine that does nothing else
def test_8_processes_of_4000_connects_from_two_runs(bench: Bench) -> None:
    """All 32,000 flows have the right run, pid and destination; bystanders are not redirected."""
    runs = [bench.run(), bench.run(name="other")]
    open_host = listener("127.0.0.1", 0)
    port = str(open_host.getsockname()[1])
    expected: dict[int, str] = {}
    children: list[subprocess.Popen[bytes]] = []
    for number in range(CLIENTS):
        run = runs[number % 2]
        child = bench.python(run, CLIENT, str(CONNECTS))
        expected[child.pid] = run.run_id
        children.append(child)
    outsider = (BYSTANDER, str(BYSTANDER_CONNECTS), port)
    children += [bench.python(None, *outsider) for _ in range(BYSTANDERS)]
    right, bystanders, started = 0, 0, time.monotonic()
    with open_host:
        while right < CLIENTS * CONNECTS or bystanders < BYSTANDERS * BYSTANDER_CONNECTS:
            ready, _, _ = select.select([open_host, bench.listeners[0]], [], [], WAIT_S)
            assert ready, (right, bystanders)
            for server in ready:
                if server is open_host:
                    _serve_bystander(server)
                    bystanders += 1
                    continue
                run_id, pid = _judge(bench, server)
                assert expected[pid] == run_id
                right += 1
    assert [child.wait(WAIT_S) for child in children] == [0] * len(children)
    seconds = time.monotonic() - started
    print(f"{right} of {CLIENTS * CONNECTS} right in {seconds:.1f} s ({right / seconds:.0f}/s)")
