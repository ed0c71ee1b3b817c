"""Why there is no BCC backend here, said as an error rather than by wrong data.

`bcc` is a declared extra for kernels without BTF. Its narrow role: programs that touch UAPI
contexts only (bpf_sock, bpf_sock_addr), because with headers of another kernel BCC reads wrong
fields of task_struct without any error: measured, a tgid of 2^64-class garbage and a parent
of 0. In a daemon that hands out credentials that would be silent misattribution. So the tag,
the ancestor chain and the procs map cannot come from it, evidence could never be more than
CGROUP_ONLY, and no credential could be injected. Until that mode is asked for, it is refused.
"""

import importlib.util
import os
from pathlib import Path
from typing import NoReturn

from agent.kernel.errors import PlaneError
from agent.kernel.objects import BTF

NEEDS = (
    "the distribution's python3-bpfcc (PyPI's `bcc` is another project)",
    "headers of exactly the running kernel",
    "a kernel without BTF (with BTF the prebuilt objects are used)",
    "an operator who accepts attribution by cgroup only, without credentials",
)


def headers_match() -> bool:
    """Return whether /lib/modules has a build directory of exactly the running kernel."""
    return Path(f"/lib/modules/{os.uname().release}/build/include/linux").is_dir()


def refuse() -> NoReturn:
    """Say what the BCC backend would need and which of it is missing.

    Raises:
        PlaneError: always.
    """
    missing = []
    if BTF.exists():
        missing.append("this kernel has BTF: use the default loader")
    if importlib.util.find_spec("bcc") is None:
        missing.append("python3-bpfcc is not installed")
    if not headers_match():
        missing.append(f"no headers of {os.uname().release}")
    state = "; ".join(missing) if missing else "all there, but the backend is not built"
    raise PlaneError(f"the bcc loader needs {', '.join(NEEDS)}. Here: {state}.")
