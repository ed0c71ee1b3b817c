"""A run that is refused as fast as it can be: nobody else waits for it."""

import select
import time

from agent.kernel.events import DENIALS_A_READ_MAX, Denied, Emptied
from tests.kernel.bench import WAIT_S, Bench

FLOOD = """
s = socket.socket(2, 2); print('up'); sys.stdout.flush(); end = time.monotonic() + 300
while time.monotonic() < end:
    try: s.sendto(b'x', ('198.18.3.4', 443))
    except PermissionError: pass
"""


def denied(bench: Bench) -> int:
    """Return how many datagrams were refused."""
    return bench.plane.status().counters["udp"]


def wait_for(bench: Bench, count: int) -> None:
    """Wait until so many more were refused."""
    end, aim = time.monotonic() + WAIT_S, denied(bench) + count
    while denied(bench) < aim:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_denials_wake_nobody_and_come_a_few_at_a_time(bench: Bench) -> None:
    """While a run floods, a read ends, takes no more than its bound, and events come as ever."""
    flood = bench.python(bench.run(), FLOOD)
    assert flood.stdout is not None
    assert flood.stdout.readline() == b"up\n"
    wait_for(bench, 10_000)  # more than the ring holds
    assert not select.select([bench.plane.events_fd], [], [], 0)[0]
    for _ in range(50):
        found = bench.plane.read_events()
        assert len([one for one in found if isinstance(one, Denied)]) <= DENIALS_A_READ_MAX
    other = bench.run()
    assert bench.spawn(other, "true").wait(WAIT_S) == 0
    ended = bench.wait_event(Emptied)
    assert isinstance(ended, Emptied)
    assert ended.run_id == other.run_id
    assert flood.poll() is None
    flood.kill()


def test_denials_are_read_to_the_last(bench: Bench) -> None:
    """One more than a read takes comes with the next read."""
    code = """
s = socket.socket(2, 2)
for _ in range(int(sys.argv[1])):
    try: s.sendto(b'x', ('198.18.3.4', 443))
    except PermissionError: pass
"""
    bench.output(bench.run(), code, str(DENIALS_A_READ_MAX + 1))
    counts = []
    for _ in range(3):
        found = bench.plane.read_events()
        counts.append(len([one for one in found if isinstance(one, Denied)]))
    assert counts == [DENIALS_A_READ_MAX, 1, 0]
