"""Processes: the kernel's own record first, /proc where there is none and it is surely the same."""

import os
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import abi
from agent.kernel.argv import split_argv
from agent.kernel.maps import Map
from agent.model.flow import Process
from agent.runtime.clock import monotonic_ns

NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
CMDLINE_BYTES_MAX = 4096  # of /proc/PID/cmdline; a longer one is marked as cut
PROC_FRESH_S = 1.0  # what /proc said is read again after this
BOOK_MAX = 4096  # processes remembered


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/PID/stat: start is in clock ticks since boot."""

    comm: str
    parent: int
    start_ticks: int


def read_stat(pid: int) -> Stat | None:
    """Return it, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    comm, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Stat(comm, int(fields[1]), int(fields[19]))


def uids(pid: int) -> tuple[int, ...]:
    """Return real, effective, saved and filesystem uid. Raises OSError."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("Uid:"):
            return tuple(int(number) for number in line.split()[1:5])
    raise OSError(f"/proc/{pid}/status has no Uid")


def _started(pid: int, start_ns: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.start_ticks == start_ns // NS_PER_TICK


def _exe_from_proc(pid: int, start_ns: int) -> str:
    """Return the program by /proc, "" if the process there is not certainly the one meant."""
    try:
        exe = str(Path(f"/proc/{pid}/exe").readlink()) if _started(pid, start_ns) else ""
    except OSError:
        return ""  # gone meanwhile, or a kernel thread
    return exe if _started(pid, start_ns) else ""


def _from_proc(pid: int, start_ns: int, uid: int, comm: str) -> Process:
    """Fill exe and argv from /proc if the process there started when this one did."""
    exe = _exe_from_proc(pid, start_ns)
    argv: tuple[str, ...] = ()
    cut = False
    if exe:
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            raw = b""
        argv, cut = split_argv(raw[:CMDLINE_BYTES_MAX], len(raw))
        if not _started(pid, start_ns):
            exe, argv, cut = "", (), False
    return Process(pid, start_ns, uid, comm, exe, argv, cut)


@dataclass(frozen=True, slots=True)
class _Remembered:
    process: Process
    until_ns: int  # monotonic; of what /proc said, 0 for what the kernel recorded


class ProcessBook:
    """Describes processes, and remembers: reading /proc costs more than the rest of a flow.

    What the kernel recorded is remembered by its exec time, so it cannot be stale. What /proc
    said is remembered for PROC_FRESH_S. Past BOOK_MAX entries it starts empty.
    """

    def __init__(self, procs: Map[abi.ProcKey, abi.Proc]) -> None:
        self._procs = procs
        self._known: dict[tuple[int, int, int, str], _Remembered] = {}

    def describe(self, pid: int, start_ns: int, uid: int, comm: str) -> Process:
        """Return the process: from the procs map, which outlives it, else best effort."""
        record = self._procs.get(abi.ProcKey(tgid=pid, start_ns=start_ns))
        exec_ns = record.exec_ns if record is not None and record.exe else 0
        key = (pid, start_ns, exec_ns, comm)
        known = self._known.get(key)
        if known is not None and (exec_ns or known.until_ns > monotonic_ns()):
            return known.process
        if record is not None and record.exe:
            process = _from_record(record, pid, start_ns, uid, comm)
        else:
            process = _from_proc(pid, start_ns, uid, comm)
        if len(self._known) >= BOOK_MAX:
            self._known.clear()
        until_ns = monotonic_ns() + int(PROC_FRESH_S * 1e9)
        self._known[key] = _Remembered(process, until_ns)
        return process

    def living(self, pid: int) -> tuple[Process, int] | None:
        """Return a live process and its parent's pid, or None when it has gone.

        start_ns is exact when the kernel's record is there, else of the clock tick.
        """
        stat = read_stat(pid)
        if stat is None:
            return None
        try:
            uid = uids(pid)[0]
        except OSError:
            return None
        start_ns = stat.start_ticks * NS_PER_TICK
        for key in self._procs.walk():
            if key.tgid == pid and key.start_ns // NS_PER_TICK == stat.start_ticks:
                start_ns = key.start_ns
        return self.describe(pid, start_ns, uid, stat.comm), stat.parent


def _from_record(record: abi.Proc, pid: int, start_ns: int, uid: int, comm: str) -> Process:
    argv, cut = split_argv(bytes(record.argv[: record.argv_size]), record.argv_total)
    exe = record.exe.decode(errors="replace")
    if not exe.startswith("/"):
        # its memory is not read: who holds its lock would hold us up
        exe = _exe_from_proc(pid, start_ns) or exe
    return Process(pid, start_ns, uid, comm, exe, argv, cut)
