"""`loopwarden register` and `unregister`."""

import argparse
import os
import sys
from pathlib import Path

from agent.broker.control import Accepted, RegisterLoop, RunOpened, Unregister
from agent.cli.client import Client


def register(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Make a cgroup a run; print the run's id."""
    with Client(socket_path) as client:
        request = RegisterLoop(arguments.loop, cgroup_path(arguments.cgroup))
        sys.stdout.write(f"{client.ask(request, RunOpened).run_id}\n")
    return 0


def unregister(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Forget a registered cgroup."""
    run = arguments.run
    text = cgroup_path(run) if "/" in run else run
    with Client(socket_path) as client:
        sys.stdout.write(f"{client.ask(Unregister(text), Accepted).detail}\n")
    return 0


def cgroup_path(text: str) -> str:
    """Return the path below the cgroup v2 mount; a full path below a mount is understood too."""
    path = os.path.normpath(text)
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        head, _, tail = line.partition(" - ")
        mount = head.split()[4]
        if tail.startswith("cgroup2 ") and (path == mount or path.startswith(f"{mount}/")):
            return path[len(mount) :] or "/"
    return "/" + path.lstrip("/")
