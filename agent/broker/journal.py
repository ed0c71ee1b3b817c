"""The lease journal: one line a transition, on stable storage before what it announces is done.

The first line names the format. Each other line is the CRC-32 of its JSON in hex, a space, the
JSON. A torn last line was never used and is cut off; a bad line before it is kept in a copy and
counted. It never holds a secret. After a failed write or sync nothing more is written: no lease is
given out without its row.

Rows of leases that are over are history: the last PAST_MAX of them stay, in memory and in the file.
"""

import collections
import json
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.lease import ANNOUNCING, OVER, LeaseState, allowed

FORMAT = b"loopwarden-leases 2\n"
COMPACT_BYTES = 4 << 20  # past it, and past twice what was live, the journal is rewritten
LINE_BYTES_MAX = 32 << 10
PAST_MAX = 512
ERROR_CHARACTERS_MAX = 240


class JournalDead(Exception):
    """The journal can't be written; no lease may be issued until a restart reads it back."""


class RowTooLong(Exception):
    """The lease's settings do not fit a line of LINE_BYTES_MAX."""


@dataclass(frozen=True, slots=True)
class Row:
    """What must be known of a lease to take it away after a crash, and to tell of it."""

    lease_id: LeaseId
    run_id: RunId
    loop: LoopName
    target: TargetName
    uid: int  # whose run it is, for who may see it
    provider: str
    settings: tuple[tuple[str, str], ...]
    shape: str
    name: str
    user: str
    ttl_s: int
    max_ttl_s: int
    state: LeaseState
    began_ms: int  # Unix time of the intent
    at_ms: int  # of this state
    handle: str = ""
    provider_id: str = ""  # the backend's own name of it
    expires_ms: int = 0  # Unix time at which the backend ends it by itself; 0: never
    boot: str = ""  # the boot on whose clock `gone_ms` is
    gone_ms: int = 0  # the same moment as expires_ms, on a clock that nobody sets
    renewable: bool = False
    revocable: bool = True
    next_ms: int = 0  # Unix time of the next action; 0: none is planned
    attempts: int = 0  # revocations that failed
    error: str = ""  # the last failure
    withdrawn: bool = False  # a person took it away: the run gets no other for this target


Withdrawn = dict[tuple[RunId, TargetName], Row]


class Journal:
    """The rows of all leases that are not over, the last that are, and the file behind them."""

    def __init__(self, path: Path, on_dead: Callable[[str], None] = lambda _why: None) -> None:
        """Open or make the journal, and compact it. on_dead is told once, when writing ends.

        Raises:
            JournalDead: it can't be read or written, or is of another format.
        """
        self._path = path
        self._fd = -1
        self._size = 0
        self._kept = 0  # what the last compaction left
        self._dead = ""
        self._on_dead = on_dead
        self.rows: dict[LeaseId, Row] = {}
        self.past: collections.OrderedDict[LeaseId, Row] = collections.OrderedDict()
        self.withdrawn: Withdrawn = {}
        self.bad_lines = 0
        try:
            self._load()
            self._compact()
        except OSError as error:
            raise JournalDead(f"{path}: {error.strerror}") from error

    def open_rows(self) -> tuple[Row, ...]:
        """Return the rows of leases that are not over."""
        return tuple(self.rows.values())

    def some(self, lease_ids: Iterable[LeaseId]) -> list[Row]:
        """Return the rows of those that are not over."""
        return [self.rows[one] for one in lease_ids if one in self.rows]

    def begin(self, row: Row) -> None:
        """Write a new lease's INTENT.

        Raises:
            JournalDead: it is not on stable storage.
            RowTooLong: it does not fit a line.
        """
        if row.state is not LeaseState.INTENT or row.lease_id in self.rows:
            raise AssertionError("a lease begins once, as an intent")
        if len(_line(row)) > LINE_BYTES_MAX // 2:  # handle, id and error come later
            raise RowTooLong
        self._write([row])

    def keep_handle(self, lease_id: LeaseId, handle: str) -> None:
        """Write down what there is to take away while a lease is issued; its state stays.

        Raises:
            JournalDead: it is not on stable storage.
        """
        row = self.rows.get(lease_id)
        if row is not None:
            self._write([replace(row, handle=handle)])

    def move(self, *steps: Row) -> Row:
        """Write a lease's next rows, one a transition, in one sync if any announces something.

        Raises:
            JournalDead: they are not on stable storage.
        """
        state = self.rows[steps[0].lease_id].state
        for row in steps:
            if row.state not in allowed[state]:
                raise AssertionError(f"{state} → {row.state} is no transition of a lease")
            state = row.state
        self._write(list(steps))
        return steps[-1]

    def keep(self, row: Row) -> None:
        """Know a row that could not be written: its lease is taken away all the same."""
        self._apply(row)

    def withdraw(self, row: Row) -> None:
        """Give the run no other lease for this target; the lease's next row has it written."""
        self.withdrawn[row.run_id, row.target] = row
        if row.lease_id in self.rows:
            self.rows[row.lease_id] = row

    def release(self, run_id: RunId) -> None:
        """The run is no more, and so is what was withdrawn from it."""
        for key in [key for key in self.withdrawn if key[0] == run_id]:
            del self.withdrawn[key]

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, rows: list[Row]) -> None:
        if self._dead:
            raise JournalDead(self._dead)
        data = b"".join(map(_line, rows))
        try:
            written = os.write(self._fd, data)
            if written != len(data):
                raise OSError(0, "the disk is full")
            if any(row.state in ANNOUNCING for row in rows):
                os.fdatasync(self._fd)
        except OSError as error:
            # after a failed sync the page is marked clean: a retry would lie (fsyncgate)
            raise self._died(error) from error
        self._size += len(data)
        for row in rows:
            self._apply(row)
        if self._size > max(COMPACT_BYTES, 2 * self._kept):
            try:
                self._compact()
            except OSError as error:
                self._died(error)

    def _died(self, error: OSError) -> JournalDead:
        """End all writing; return what to raise."""
        self._dead = f"{self._path}: {error.strerror}; restart after the disk is repaired"
        self._on_dead(self._dead)
        return JournalDead(self._dead)

    def _apply(self, row: Row) -> None:
        if row.withdrawn:
            self.withdrawn[row.run_id, row.target] = row
        if row.state not in OVER:
            self.rows[row.lease_id] = row
            return
        self.rows.pop(row.lease_id, None)
        self.past[row.lease_id] = row
        if len(self.past) > PAST_MAX:
            self.past.popitem(last=False)

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        if FORMAT.startswith(data):
            return  # nothing was ever written
        if not data.startswith(FORMAT):
            raise JournalDead(
                f"{self._path} is not of this version's format: end what it names with the version "
                "that wrote it, then move it away"
            )
        *lines, _torn = data[len(FORMAT) :].split(b"\n")
        for line in lines:
            row = _parse(line)
            if row is None:
                self.bad_lines += 1
            else:
                self._apply(row)
        if self.bad_lines:
            copy = self._path.with_suffix(".quarantine")
            copy.write_bytes(data)
            copy.chmod(0o600)

    def _compact(self) -> None:
        """Write what counts to a new file, make it durable, then put it in place."""
        fresh = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(fresh, flags, 0o600)
        rows = {row.lease_id: row for row in self.withdrawn.values()} | self.past | self.rows
        try:
            data = FORMAT + b"".join(map(_line, rows.values()))
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
            os.rename(fresh, self._path)
            _sync_directory(self._path.parent)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd = fd
        self._size = self._kept = len(data)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _line(row: Row) -> bytes:
    # letters as they are: escaped, a backend's names could take six times what they count
    text = json.dumps(asdict(row), separators=(",", ":"), ensure_ascii=False)
    body = text.encode("utf-8", "surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> Row | None:
    checksum, _, body = line.partition(b" ")
    if len(line) > LINE_BYTES_MAX or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        tree = json.loads(body)
        tree["state"] = LeaseState(tree["state"])
        tree["settings"] = tuple((str(key), str(value)) for key, value in tree["settings"])
        return Row(**tree)
    except (ValueError, TypeError, KeyError):
        return None
