"""Runs in a network namespace of its own, where no other instance is: what becomes of its settings.

`python -m tests.kernel.settings_main WHAT INSTANCE BPFFS CGROUP PORT PREFIX`; prints one JSON line.
"""

import ipaddress
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from agent.kernel import clean, routes, sysctls
from agent.kernel.config import PlaneConfig
from agent.kernel.plane import Plane
from agent.kernel.routes import Network

SELF = [sys.executable, "-m", "tests.kernel.settings_main"]
WAIT_S = 120.0  # past this it hangs


def words(config: PlaneConfig) -> list[str]:
    """Return the words that name this instance."""
    numbers = (str(config.proxy_port), str(config.mark_prefix))
    return [config.instance, str(config.bpffs), config.attach_cgroup, *numbers]


def started(config: PlaneConfig) -> None:
    """Start, and stop without cleaning."""
    Plane.open(config).close()


def sysctl(config: PlaneConfig) -> list[str]:
    """Return the sysctl's value before the first instance, with it, and after it is cleaned."""
    values = [sysctls.value()]
    started(config)
    values.append(sysctls.value())
    clean.clean(config)
    return [*values, sysctls.value()]


def theirs(config: PlaneConfig) -> str:
    """Return what is left of somebody else's route, where ours would go."""
    network = config.synthetic4
    add = ["ip", "route", "add", "local", network, "dev", "lo", "proto", "99"]
    subprocess.run(add, check=True)
    started(config)
    clean.clean(config)
    show = ["ip", "-N", "route", "show", "table", "local", "exact", network]
    return subprocess.run(show, capture_output=True, text=True, check=True).stdout


def meanwhile(config: PlaneConfig) -> list[object]:
    """Start another instance while the last one is putting back; return what that one has then."""
    started(config)
    cgroup = f"{config.attach_cgroup}/b"  # numbers may be the same: nobody connects
    other = replace(config, instance=f"{config.instance}-b", attach_cgroup=cgroup)
    real, begun = routes.withdraw, list[subprocess.Popen[bytes]]()

    def withdraw(network: Network) -> bool:
        if not begun:
            begun.append(subprocess.Popen([*SELF, "started", *words(other)]))
            until_over_or_waits(begun[0])
        return real(network)

    routes.withdraw = withdraw
    clean.clean(config)
    code = begun[0].wait(WAIT_S)
    networks = (other.synthetic4, other.synthetic6)
    owners = [routes.owner(ipaddress.ip_network(one)) for one in networks]
    found: list[object] = [code, *owners, sysctls.value()]
    routes.withdraw = real
    clean.clean(other)
    return found


def until_over_or_waits(process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process has ended, or the kernel says that it waits for a lock."""
    deadline = time.monotonic() + WAIT_S
    while process.poll() is None:
        held_up = (line.split() for line in Path("/proc/locks").read_text("ascii").splitlines())
        if any(line[1] == "->" and line[5] == str(process.pid) for line in held_up):
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def main() -> None:
    """Do what the first word says."""
    what, instance, bpffs, cgroup, port, prefix = sys.argv[1:]
    config = PlaneConfig(
        instance=instance,
        bpffs=Path(bpffs),
        attach_cgroup=cgroup,
        slice_name="runs.slice",
        proxy_port=int(port),
        dns_port=int(port) + 1,
        mark_prefix=int(prefix),
    )
    does = {"started": started, "sysctl": sysctl, "theirs": theirs, "meanwhile": meanwhile}
    sys.stdout.write(json.dumps(does[what](config)) + "\n")


if __name__ == "__main__":
    main()
