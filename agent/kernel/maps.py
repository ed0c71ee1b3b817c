"""Typed access to pinned maps. A missing key is None or False, anything else an OSError."""

import ctypes as c
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from agent.kernel import abi
from agent.kernel.libbpf import check, lib, pinned_fd

BPF_ANY = 0
BPF_NOEXIST = 1

CValue = c.c_int | c.c_uint32 | c.c_uint64 | c.Structure | c.Array[c.c_uint64]
K = TypeVar("K", bound=CValue)
V = TypeVar("V", bound=CValue)


class Map(Generic[K, V]):
    """One map with fixed key and value types."""

    def __init__(self, path: Path, key: type[K], value: type[V]) -> None:
        self.fd = pinned_fd(path)
        self._name = path.name
        self._key = key
        self._value = value

    def get(self, key: K) -> V | None:
        """Return a copy of the value."""
        return self._fetch(lib().bpf_map_lookup_elem, key)

    def take(self, key: K) -> V | None:
        """Return the value and delete it, in one step of the kernel."""
        return self._fetch(lib().bpf_map_lookup_and_delete_elem, key)

    def _fetch(self, call: Callable[..., int], key: K) -> V | None:
        value = self._value()
        if call(self.fd, c.byref(key), c.byref(value)) < 0:
            number = c.get_errno()
            if number == errno.ENOENT:
                return None
            raise OSError(number, f"read map {self._name}: {os.strerror(number)}")
        return value

    def put(self, key: K, value: V, flags: int = BPF_ANY) -> None:
        """Write. Raises OSError (E2BIG or ENOSPC when full, EEXIST with BPF_NOEXIST)."""
        result = lib().bpf_map_update_elem(self.fd, c.byref(key), c.byref(value), flags)
        check(result, f"write map {self._name}")

    def drop(self, key: K) -> bool:
        """Delete; return whether it was there."""
        if lib().bpf_map_delete_elem(self.fd, c.byref(key)) < 0:
            if c.get_errno() == errno.ENOENT:
                return False
            check(-1, f"delete in map {self._name}")
        return True

    def walk(self) -> Iterator[K]:
        """Yield the keys. Restarts of the kernel's walk may yield one twice."""
        previous: object = None
        while True:
            key = self._key()
            if lib().bpf_map_get_next_key(self.fd, previous, c.byref(key)) < 0:
                return
            previous = c.byref(key)
            # for typeshed it is no K; a copy, since the walk goes on from key as it was
            copy: K = self._key.from_buffer_copy(bytes(key))  # type: ignore[assignment]
            yield copy

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class Maps:
    """All maps of an instance that user space touches, opened by their pins."""

    def __init__(self, map_dir: Path) -> None:
        self.dir = map_dir
        self.cfg = Map(map_dir / "cfg", c.c_uint32, abi.Cfg)
        self.runs = Map(map_dir / "runs", c.c_uint64, abi.RunEntry)
        self.loops = Map(map_dir / "loops", c.c_uint64, c.c_uint64)
        self.pending = Map(map_dir / "pending", c.c_uint64, abi.Pending)
        self.run_meta = Map(map_dir / "run_meta", c.c_uint64, abi.Meta)
        self.mflows = Map(map_dir / "mflows", c.c_uint32, abi.Flow)
        self.procs = Map(map_dir / "procs", abi.ProcKey, abi.Proc)
        cpus = check(lib().libbpf_num_possible_cpus(), "number of processors")
        self._counters = Map(map_dir / "counters", c.c_uint32, c.c_uint64 * cpus)
        tags = map_dir / "tags"
        self.tags = Map(tags, c.c_int, abi.TagValue) if tags.exists() else None
        self.events_fd = pinned_fd(map_dir / "events")
        self.denials_fd = pinned_fd(map_dir / "denials")

    def counters(self) -> dict[str, int]:
        """Return the sums over processors, by cause in lower case."""
        sums: dict[str, int] = {}
        for cause in abi.Cause:
            per_cpu = self._counters.get(c.c_uint32(cause))
            sums[cause.name.lower()] = sum(per_cpu) if per_cpu is not None else 0
        return sums

    def close(self) -> None:
        """Close all descriptors."""
        for one in (self.cfg, self.runs, self.loops, self.pending, self.run_meta):
            one.close()
        self.mflows.close()
        self.procs.close()
        self._counters.close()
        if self.tags is not None:
            self.tags.close()
        os.close(self.events_fd)
        os.close(self.denials_fd)
