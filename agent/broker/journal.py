"""The lease journal: one line a transition, on stable storage before the transition is used.

A line is the CRC-32 of its JSON in hex, a space, the JSON. A torn last line was never used and is
cut off; a bad line before it is kept in a copy and counted. It never holds a secret. After a
failed write or sync nothing more is written: no lease is given out without its row.
"""

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.lease import LeaseState, allowed

COMPACT_BYTES = 4 << 20  # past it, the journal is rewritten with live rows alone
LINE_BYTES_MAX = 16 << 10


class JournalDead(Exception):
    """The journal can't be written; no lease may be issued until a restart reads it back."""


@dataclass(frozen=True, slots=True)
class Row:
    """What must be known of a lease to take it away after a crash."""

    lease_id: LeaseId
    run_id: RunId
    loop: LoopName
    target: TargetName
    provider: str
    settings: tuple[tuple[str, str], ...]
    shape: str
    name: str
    user: str
    handle: str
    state: LeaseState
    revocable: bool
    at_ms: int


class Journal:
    """The rows of all leases that are not revoked, and the file behind them."""

    def __init__(self, path: Path) -> None:
        """Open or make the journal, and compact it.

        Raises:
            JournalDead: it can't be read or written.
        """
        self._path = path
        self._fd = -1
        self._size = 0
        self._dead = ""
        self.rows: dict[LeaseId, Row] = {}
        self.bad_lines = 0
        try:
            self._load()
            self._compact()
        except OSError as error:
            raise JournalDead(f"{path}: {error.strerror}") from error

    def open_rows(self) -> tuple[Row, ...]:
        """Return the rows that are not revoked."""
        return tuple(self.rows.values())

    def begin(self, row: Row) -> None:
        """Write a new lease's INTENT.

        Raises:
            JournalDead: it is not on stable storage.
        """
        if row.state is not LeaseState.INTENT or row.lease_id in self.rows:
            raise AssertionError("a lease begins once, as an intent")
        self._write([row])

    def move(
        self, lease_id: LeaseId, states: Iterable[LeaseState], at_ms: int, **changes: object
    ) -> Row:
        """Write transitions of a lease in one sync; return the new row.

        Raises:
            JournalDead: they are not on stable storage.
        """
        row = self.rows[lease_id]
        written: list[Row] = []
        for state in states:
            if state not in allowed[row.state]:
                raise AssertionError(f"{row.state} → {state} is no transition of a lease")
            row = replace(row, state=state, at_ms=at_ms, **changes)  # type: ignore[arg-type]
            written.append(row)
        self._write(written)
        return row

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
            os.fdatasync(self._fd)
        except OSError as error:
            # after a failed sync the page is marked clean: a retry would lie (fsyncgate)
            self._dead = f"{self._path}: {error.strerror}; restart after the disk is repaired"
            raise JournalDead(self._dead) from error
        self._size += len(data)
        for row in rows:
            self._apply(row)
        if self._size > COMPACT_BYTES:
            try:
                self._compact()
            except OSError as error:
                self._dead = f"{self._path}: {error.strerror}"

    def _apply(self, row: Row) -> None:
        if row.state is LeaseState.REVOKED:
            self.rows.pop(row.lease_id, None)
        else:
            self.rows[row.lease_id] = row

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        *lines, _torn = data.split(b"\n")
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
        """Write live rows to a new file, make it durable, then put it in place."""
        fresh = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(fresh, flags, 0o600)
        try:
            data = b"".join(map(_line, self.rows.values()))
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
        self._fd, self._size = fd, len(data)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _line(row: Row) -> bytes:
    body = json.dumps(asdict(row), separators=(",", ":")).encode()
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
