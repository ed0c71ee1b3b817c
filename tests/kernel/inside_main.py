"""Runs inside new pid, mount and cgroup namespaces (as in a container): prints what it saw."""

import asyncio
import json
import sys
from pathlib import Path

from agent.kernel import clean
from agent.kernel.config import PlaneConfig
from agent.kernel.plane import Plane
from tests.kernel.bench import Bench


def main() -> None:
    """Open a plane, probe it, attribute one flow; leave nothing."""
    proxy_port = int(sys.argv[4])
    config = PlaneConfig(
        instance=sys.argv[1],
        bpffs=Path(sys.argv[2]),
        attach_cgroup="/",
        slice_name="runs.slice",
        proxy_port=proxy_port,
        dns_port=proxy_port + 1,
        mark_prefix=int(sys.argv[3]),
    )
    plane = Plane.open(config)
    try:
        layers = asyncio.run(plane.probe()).layers
        absent = [one.name for one in layers if one.claimed and not one.present]
        bench = Bench(plane)
        child = bench.python(bench.run(), "s=socket.create_connection(('198.18.7.7',80))")
        whose = bench.arrive().attributed()
        seen = {
            "absent": absent,
            "pid": whose.process.pid == child.pid,
            "small": whose.process.pid < 1000,
            "parent": [one.pid for one in whose.ancestors][:1],
            "evidence": whose.evidence,
        }
        bench.close()
    finally:
        plane.close()
        clean.clean(config)
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main()
