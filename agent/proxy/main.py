"""`python -m agent.proxy`: the role that parses hostile bytes, with no power of its own."""

import sys

from agent.ipc.role import run_role
from agent.proxy.worker import Worker


def main() -> int:
    """Run until drained or orphaned; return the exit code."""
    return run_role(
        sys.argv[1:], user=lambda config: config.users.proxy, make=Worker, read_only=True
    )
