"""Runs as the kernel maps hold them. The maps are the truth: a restart re-reads all from there."""

import ctypes
import os
from dataclasses import dataclass, field, replace

import msgspec

from agent.kernel import abi
from agent.kernel.argv import ARGUMENTS_MAX
from agent.kernel.maps import BPF_NOEXIST, Maps
from agent.model.ids import RunId, Tag, decode_ulid
from agent.model.loop import Run
from agent.model.redaction import redact

TAG_BYTES = 8
ARGV_BYTES_MAX = 1024  # of the run's command in run_meta; later arguments are left out


def fresh_tag() -> Tag:
    """Return a random tag that is not 0."""
    while True:
        tag = int.from_bytes(os.urandom(TAG_BYTES), "little")
        if tag:
            return Tag(tag)


def shorten_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the redacted arguments that fit ARGV_BYTES_MAX, with "…" for what was left out."""
    kept: list[str] = []
    size = 0
    for argument in redact(argv[:ARGUMENTS_MAX]):
        size += len(argument.encode()) + 3
        if size > ARGV_BYTES_MAX:
            return (*kept, "…")
        kept.append(argument)
    return (*kept, "…") if len(argv) > ARGUMENTS_MAX else tuple(kept)


def fitted(run: Run) -> Run:
    """Return the run as its map value has room for it.

    What is least needed goes first: programs of parents, then parents from the farthest on, then
    the command's later arguments. Who started it, by kernel and token, stays whole.
    """
    run = replace(run, argv=shorten_argv(run.argv))
    if _size(run) > abi.META_BODY_MAX:
        bare = tuple(replace(parent, exe="") for parent in run.initiator.parents)
        run = replace(run, initiator=replace(run.initiator, parents=bare))
    while _size(run) > abi.META_BODY_MAX and run.initiator.parents:
        fewer = run.initiator.parents[:-1]
        run = replace(run, initiator=replace(run.initiator, parents=fewer))
    while _size(run) > abi.META_BODY_MAX and len(run.argv) > 1:
        run = replace(run, argv=(*run.argv[:-2], "…"))
    return run


def _size(run: Run) -> int:
    return len(msgspec.msgpack.encode(run))


def serialize_run(run: Run) -> abi.Meta:
    """Return the map value of a run.

    Raises:
        ValueError: it does not fit.
    """
    body = msgspec.msgpack.encode(run)
    if len(body) > abi.META_BODY_MAX:
        raise ValueError(f"a run's description of {len(body)} bytes exceeds {abi.META_BODY_MAX}")
    meta = abi.Meta(size=len(body))
    ctypes.memmove(meta.body, body, len(body))
    return meta


def parse_run(meta: abi.Meta) -> Run:
    """Return the run of a map value. Raises ValueError (msgspec's are)."""
    size = min(meta.size, abi.META_BODY_MAX)
    return msgspec.msgpack.decode(bytes(meta.body[:size]), type=Run)


@dataclass(frozen=True, slots=True)
class RunTable:
    """The runs, loops and run_meta maps as one table."""

    maps: Maps
    _known: dict[Tag, Run] = field(default_factory=dict)

    def reload(self) -> None:
        """Read everything from the kernel."""
        self._known.clear()
        for key in self.maps.run_meta.walk():
            meta = self.maps.run_meta.get(key)
            if meta is not None:
                run = parse_run(meta)
                self._known[run.tag] = run

    def all(self) -> tuple[Run, ...]:
        """Return all runs, oldest first."""
        return tuple(sorted(self._known.values(), key=lambda run: run.run_id))

    def by_tag(self, tag: Tag) -> Run | None:
        """Return the run with this tag."""
        return self._known.get(tag)

    def by_id(self, run_id: RunId) -> Run | None:
        """Return the run with this id."""
        return next((run for run in self._known.values() if run.run_id == run_id), None)

    def add(self, run: Run) -> Run:
        """Write a run: what governs last, so that a half-written run is no run.

        Raises:
            OSError: a map is full (RUNS_MAX) or the cgroup is registered (EEXIST).
            ValueError: the description does not fit.
        """
        run = fitted(run)
        tag = ctypes.c_uint64(run.tag)
        flags = abi.RunFlag.ADOPT if run.adopt_joiners else abi.RunFlag(0)
        entry = abi.RunEntry(cgid=run.cgroup_id, flags=flags)
        entry.run_id[:] = decode_ulid(run.run_id)
        try:
            self.maps.run_meta.put(tag, serialize_run(run), BPF_NOEXIST)
            self.maps.pending.put(tag, abi.Pending(), BPF_NOEXIST)
            self.maps.runs.put(tag, entry, BPF_NOEXIST)
            self.maps.loops.put(ctypes.c_uint64(run.cgroup_id), tag, BPF_NOEXIST)
        except OSError:
            self.maps.runs.drop(tag)
            self.maps.pending.drop(tag)
            self.maps.run_meta.drop(tag)
            raise
        self._known[run.tag] = run
        return run

    def revoke(self, run: Run) -> None:
        """Set the REVOKED bit: the kernel stops the run's packets at once. Raises OSError."""
        tag = ctypes.c_uint64(run.tag)
        entry = self.maps.runs.get(tag)
        if entry is not None:
            entry.flags |= abi.RunFlag.REVOKED
            self.maps.runs.put(tag, entry)

    def revoked(self, run: Run) -> bool:
        """Return whether the REVOKED bit is set; a run the kernel lacks counts as revoked."""
        entry = self.maps.runs.get(ctypes.c_uint64(run.tag))
        return entry is None or bool(entry.flags & abi.RunFlag.REVOKED)

    def remove(self, run: Run) -> None:
        """Forget a run. Tasks and sockets that still carry its tag stay refused."""
        tag = ctypes.c_uint64(run.tag)
        held = self.maps.loops.get(ctypes.c_uint64(run.cgroup_id))
        self.maps.runs.drop(tag)
        if held is not None and held.value == run.tag:
            self.maps.loops.drop(ctypes.c_uint64(run.cgroup_id))
        self.maps.pending.drop(tag)
        self.maps.run_meta.drop(tag)
        self._known.pop(run.tag, None)
