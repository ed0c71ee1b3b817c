"""A thin typed binding of libbpf.so.1: only what the plane uses, errors as OSError."""

import ctypes as c
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.kernel.errors import PlaneError

LOG_LINES_MAX = 40  # what libbpf said last, shown with an error; older lines are dropped

_PRINT = c.CFUNCTYPE(c.c_int, c.c_int, c.c_char_p, c.c_void_p)
_SAMPLE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_size_t)

_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "bpf_object__open_file": (c.c_void_p, (c.c_char_p, c.c_void_p)),
    "bpf_object__load": (c.c_int, (c.c_void_p,)),
    "bpf_object__close": (None, (c.c_void_p,)),
    "bpf_object__next_map": (c.c_void_p, (c.c_void_p, c.c_void_p)),
    "bpf_object__next_program": (c.c_void_p, (c.c_void_p, c.c_void_p)),
    "bpf_map__name": (c.c_char_p, (c.c_void_p,)),
    "bpf_map__fd": (c.c_int, (c.c_void_p,)),
    "bpf_map__set_pin_path": (c.c_int, (c.c_void_p, c.c_char_p)),
    "bpf_program__name": (c.c_char_p, (c.c_void_p,)),
    "bpf_program__section_name": (c.c_char_p, (c.c_void_p,)),
    "bpf_program__fd": (c.c_int, (c.c_void_p,)),
    "bpf_program__attach": (c.c_void_p, (c.c_void_p,)),
    "bpf_program__attach_cgroup": (c.c_void_p, (c.c_void_p, c.c_int)),
    "bpf_link__pin": (c.c_int, (c.c_void_p, c.c_char_p)),
    "bpf_link__destroy": (c.c_int, (c.c_void_p,)),
    "bpf_link_update": (c.c_int, (c.c_int, c.c_int, c.c_void_p)),
    "bpf_obj_get": (c.c_int, (c.c_char_p,)),
    "bpf_obj_get_info_by_fd": (c.c_int, (c.c_int, c.c_void_p, c.POINTER(c.c_uint32))),
    "bpf_map_lookup_elem": (c.c_int, (c.c_int, c.c_void_p, c.c_void_p)),
    "bpf_map_lookup_and_delete_elem": (c.c_int, (c.c_int, c.c_void_p, c.c_void_p)),
    "bpf_map_update_elem": (c.c_int, (c.c_int, c.c_void_p, c.c_void_p, c.c_uint64)),
    "bpf_map_delete_elem": (c.c_int, (c.c_int, c.c_void_p)),
    "bpf_map_get_next_key": (c.c_int, (c.c_int, c.c_void_p, c.c_void_p)),
    "libbpf_num_possible_cpus": (c.c_int, ()),
    "libbpf_set_print": (c.c_void_p, (c.c_void_p,)),
    "ring_buffer__new": (c.c_void_p, (c.c_int, _SAMPLE, c.c_void_p, c.c_void_p)),
    "ring_buffer__add": (c.c_int, (c.c_void_p, c.c_int, _SAMPLE, c.c_void_p)),
    "ring_buffer__consume": (c.c_int, (c.c_void_p,)),
    "ring_buffer__epoll_fd": (c.c_int, (c.c_void_p,)),
    "ring_buffer__free": (None, (c.c_void_p,)),
}

_log: deque[str] = deque(maxlen=LOG_LINES_MAX)


def _open_library() -> c.CDLL:
    try:
        library = c.CDLL("libbpf.so.1", use_errno=True)
        libc = c.CDLL(None, use_errno=True)
    except OSError as error:
        raise PlaneError(f"libbpf.so.1 cannot be loaded (package libbpf1): {error}") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    libc.vsnprintf.argtypes = (c.c_char_p, c.c_size_t, c.c_char_p, c.c_void_p)

    def keep(level: int, text: bytes, arguments: int) -> int:
        if level <= 1:  # warnings and information, no debugging
            line = c.create_string_buffer(4096)
            libc.vsnprintf(line, len(line), text, arguments)
            _log.append(line.value.decode(errors="replace").rstrip())
        return 0

    global _kept_print  # noqa: PLW0603 (libbpf calls it as long as the process lives)
    _kept_print = _PRINT(keep)
    library.libbpf_set_print(c.cast(_kept_print, c.c_void_p))
    return library


_kept_print: object = None
_library: c.CDLL | None = None


def lib() -> c.CDLL:
    """Return the library, loaded at first use.

    Raises:
        PlaneError: it is not installed.
    """
    global _library  # noqa: PLW0603 (one library a process)
    if _library is None:
        _library = _open_library()
    return _library


def last_words() -> str:
    """Return and forget what libbpf printed last."""
    text = "\n".join(_log)
    _log.clear()
    return text


def check(result: int, what: str) -> int:
    """Return a result that is not negative.

    Raises:
        OSError: it is negative; carries errno.
    """
    if result < 0:
        number = c.get_errno() or -result
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def check_pointer(pointer: int | None, what: str) -> int:
    """Return a pointer that is not null. Raises OSError."""
    if not pointer:
        number = c.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return pointer


def pinned_fd(path: Path) -> int:
    """Return a descriptor of a pinned map or link. Raises OSError."""
    return check(lib().bpf_obj_get(os.fsencode(path)), f"open {path}")


class Program:
    """One loaded program."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self.name: str = lib().bpf_program__name(pointer).decode()
        self.section: str = lib().bpf_program__section_name(pointer).decode()

    @property
    def is_cgroup(self) -> bool:
        """Return whether it attaches to a cgroup; the others attach to a tracepoint."""
        return self.section.startswith("cgroup")

    @property
    def fd(self) -> int:
        """Return its descriptor, owned by the object."""
        return int(lib().bpf_program__fd(self._pointer))

    def attach_and_pin(self, cgroup_fd: int, path: Path) -> None:
        """Attach and pin at path, which must not exist. Raises OSError; then it is detached."""
        if self.is_cgroup:
            link = lib().bpf_program__attach_cgroup(self._pointer, cgroup_fd)
        else:
            link = lib().bpf_program__attach(self._pointer)
        check_pointer(link, f"attach {self.name}")
        try:
            check(lib().bpf_link__pin(link, os.fsencode(path)), f"pin {path}")
        finally:
            lib().bpf_link__destroy(link)  # closes our descriptor; the pin keeps the link


class BpfObject:
    """One object file in the kernel. Close it once links are pinned; maps are opened by pin."""

    def __init__(self, path: Path, map_dir: Path) -> None:
        """Load; maps pinned in map_dir are used again, others are made and pinned there.

        Raises:
            PlaneError: the kernel refuses it, with libbpf's words.
        """
        last_words()
        self._pointer = lib().bpf_object__open_file(os.fsencode(path), None)
        if not self._pointer:
            raise PlaneError(f"{path} is not a BPF object: {last_words()}")
        for pointer in self._walk("map"):
            name = lib().bpf_map__name(pointer)
            if not name.startswith(b"."):
                pin = os.fsencode(map_dir / name.decode())
                check(lib().bpf_map__set_pin_path(pointer, pin), f"pin path of {name!r}")
        result = lib().bpf_object__load(self._pointer)
        if result < 0:
            self.close()
            raise PlaneError(f"{path.name} does not load: {last_words()}")

    def _walk(self, kind: str) -> Iterator[int]:
        step: Callable[[int, int | None], int | None]
        step = getattr(lib(), f"bpf_object__next_{kind}")
        pointer = step(self._pointer, None)
        while pointer:
            yield pointer
            pointer = step(self._pointer, pointer)

    def programs(self) -> list[Program]:
        """Return its programs."""
        return [Program(pointer) for pointer in self._walk("program")]

    def close(self) -> None:
        """Release; what is pinned stays."""
        if self._pointer:
            lib().bpf_object__close(self._pointer)
            self._pointer = None


class RingReader:
    """Reads a ring buffer. fd is readable while there is something; samples come as bytes.

    libbpf reads until nothing is left: at most `most` a time come here, or who writes as fast as
    they are read would keep us for ever. What is left is there the next time.
    """

    def __init__(self, map_fd: int, most: int) -> None:
        self._samples: list[bytes] = []
        self._most = most
        self._callback = _SAMPLE(self._take)  # must live as long as the reader
        ring = lib().ring_buffer__new(map_fd, self._callback, None, None)
        self._ring = check_pointer(ring, "ring buffer")
        self.fd: int = check(lib().ring_buffer__epoll_fd(self._ring), "ring buffer")

    def _take(self, _context: int | None, data: int, size: int) -> int:
        self._samples.append(c.string_at(data, size))
        return -1 if len(self._samples) >= self._most else 0  # which ends the reading, behind it

    def read(self) -> list[bytes]:
        """Return the samples there are, without blocking."""
        lib().ring_buffer__consume(self._ring)
        taken, self._samples = self._samples, []
        return taken

    def close(self) -> None:
        """Unmap the rings."""
        if self._ring:
            lib().ring_buffer__free(self._ring)
            self._ring = 0
