"""Where a process comes from: a unit of the system, a container; by its cgroup path alone.

Only root and what root delegates to can make a cgroup, and the kernel tells the path
(proc_pid_cgroup(5)). A delegated subtree can hold look-alikes, so a path is read from the root:
components are slices up to the first that is none, and that one says it; what is below never
does. A path that could mean two things means nothing. Mounts, variables and arguments of the
process are not looked at: they are its own.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

UNITS = Path("/run/systemd/units")  # of PID 1: one link for each unit, to its invocation id
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope)")
_SCOPE = re.compile(r"(docker|libpod|cri-containerd|crio)-([0-9a-f]{64})\.scope")
_ID = re.compile(r"[0-9a-f]{64}")
_LOOKS = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_POD_SLICE = re.compile(r"kubepods(?:-[a-z]+)?-pod([0-9a-f_]{32,36})\.slice")
_POD = re.compile(r"pod([0-9a-f-]{32,36})")
_INVOCATION = re.compile(r"[0-9a-f]{32}")
_RUNTIMES = {"libpod": "podman", "cri-containerd": "containerd"}


@dataclass(frozen=True, slots=True)
class Inside:
    """A container, as its runtime names it. parent is the cgroup above; pod has no dashes."""

    runtime: str
    id: str
    parent: str
    pod: str = ""

    def __str__(self) -> str:
        return f"{self.runtime}/{self.id}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Of a process. "" and None: of none, or not certainly."""

    path: str = ""
    unit: str = ""
    container: Inside | None = None


def read_origin(text: str) -> Origin:
    """Return the origin by what /proc/PID/cgroup says.

    On hosts with both cgroup versions, systemd's own hierarchy must agree.
    """
    paths = [line[3:] for line in text.splitlines() if line.startswith("0::")]
    if len(paths) != 1:
        return Origin()
    origin = _of_path(paths[0])
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        name, _, path = rest.partition(":")
        said = name == "name=systemd" and path != "/"  # which is where nobody put it
        if said and _of_path(path).unit != origin.unit:
            return Origin(paths[0])
    return origin


def read_invocation(unit: str, units: Path = UNITS) -> str:
    """Return systemd's id of the unit's present life, "" when it does not say."""
    try:
        found = os.readlink(units / f"invocation:{unit}")
    except OSError:
        return ""
    return found if _INVOCATION.fullmatch(found) else ""


def _of_path(path: str) -> Origin:
    parts = path.split("/")[1:]
    if not path.startswith("/") or path.endswith(" (deleted)") or not {"", ".."}.isdisjoint(parts):
        return Origin(path)
    slices = 0
    while slices < len(parts) and parts[slices].endswith(".slice"):
        slices += 1
    if slices == len(parts):
        return Origin(path)
    if slices:
        first = parts[slices].removeprefix("_")  # systemd's escape of names like the kernel's own
        unit = first if _UNIT.fullmatch(first) else ""
        return Origin(path, unit, _of_scope(parts, slices))
    return Origin(path, "", _of_cgroupfs(parts))


def _of_scope(parts: list[str], at: int) -> Inside | None:
    """…/docker-ID.scope: the runtime asked systemd for it."""
    found = _SCOPE.fullmatch(parts[at])
    if found is None or _looks_nested(parts[at + 1 :]):
        return None
    pod = _POD_SLICE.fullmatch(parts[at - 1])
    return Inside(
        _RUNTIMES.get(found[1], found[1]),
        found[2],
        "/" + "/".join(parts[:at]),
        pod[1].replace("_", "") if pod else "",
    )


def _of_cgroupfs(parts: list[str]) -> Inside | None:
    """/docker/ID and /kubepods/…/podUID/ID: the runtime made it itself, at the root."""
    runtime, pod, at = "", "", 0
    if parts[0] == "docker":
        runtime, at = "docker", 1
    elif parts[0] == "kubepods":
        at = 2 if parts[1:2] in (["burstable"], ["besteffort"]) else 1
        found = _POD.fullmatch(parts[at]) if at < len(parts) else None
        if found is not None:
            runtime, pod, at = "containerd", found[1].replace("-", ""), at + 1
    if not runtime or at >= len(parts) or not _ID.fullmatch(parts[at]):
        return None
    if _looks_nested(parts[at + 1 :]):
        return None
    return Inside(runtime, parts[at], "/" + "/".join(parts[:at]), pod)


def _looks_nested(below: list[str]) -> bool:
    return any(_LOOKS.search(part) for part in below)
