"""`python -m agent.proxy`: the role that parses hostile bytes, with no power of its own."""

import sys

from agent.ipc.role import run_role
from agent.proxy.worker import Worker

# It has to close a run's connections at once, also while it moves bytes for others; and no more
# than that, since loops decide how much it has to do.
NICE = -5


def main() -> int:
    """Run until drained or orphaned; return the exit code."""
    return run_role(
        sys.argv[1:], user=lambda config: config.users.proxy, make=Worker, read_only=True, nice=NICE
    )
