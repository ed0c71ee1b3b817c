"""Numbers of processes that come again: nobody is taken for who had his number before."""

from agent.model.loop import Run
from tests.kernel.bench import Bench

SERVICE = "127.0.0.77"  # of this host: a run's way there is the proxy, a bystander's is not

# clone3(2): a child with this number (0: any); it connects, and says by its end what came of it
BORN = """
import ctypes, struct
libc = ctypes.PyDLL(None, use_errno=True)
tid = ctypes.c_int(int(sys.argv[1]))
words = [0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(tid), 1, 0]
if not tid.value: words[8:10] = [0, 0]
args = ctypes.create_string_buffer(struct.pack('11Q', *words), 88)
pid = libc.syscall(ctypes.c_long(435), args, ctypes.c_size_t(88))
if pid == 0:
    s = socket.socket(); s.settimeout(60)
    os._exit(s.connect_ex((sys.argv[2], 443)))
assert pid > 0, os.strerror(ctypes.get_errno())
print(pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def _connects(bench: Bench, place: Run | None, number: int = 0) -> tuple[int, int]:
    """Let a process of this number connect and end; return its number, and its errno."""
    pid, errno = bench.output(place, BORN, str(number), SERVICE).split()
    return int(pid), int(errno)


def test_one_number_three_times(bench: Bench) -> None:
    """A run's process, a bystander and another run's process: each is what it is, after all ended.

    Neither the connection that waits at the proxy nor what is known of a number says who it was.
    """
    one, other = bench.run(), bench.run(name="other")
    number, errno = _connects(bench, one)
    assert errno == 0
    assert _connects(bench, None, number) == (number, 111)  # refused: it went to the host itself
    assert _connects(bench, other, number) == (number, 0)
    assert _connects(bench, None, number) == (number, 111)
    bench.renew()
    found = [bench.arrive().attributed() for _ in range(2)]
    assert bench.nothing_arrives()
    assert {whose.run_id for whose in found} == {one.run_id, other.run_id}
    assert [whose.process.pid for whose in found] == [number, number]
    assert found[0].process != found[1].process  # by when they began
    assert found[0].ancestors[0].pid != found[1].ancestors[0].pid
