"""Freed memory is kept for the next block, within a bound."""

import subprocess
import sys

FAULTS = """
import resource
from agent.runtime.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        blocks = [bytes(200_000) + b"x" for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
assert keep_freed_memory()
faults()
print(first, faults())
"""


def test_blocks_take_no_page_faults_again() -> None:
    """The same blocks, made and freed again and again, take hardly any faults afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after < 1_000
    assert after < before
