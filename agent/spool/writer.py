"""The only writer of the spool: append, sync, roll, acknowledge. Blocking, no threads, no clock.

`append` is called by one thread; `SyncTicket.run` may run in another meanwhile (group commit:
what was appended before `begin_sync` is durable after `finish_sync`).

Zeros are written ahead of the records: a flush of bytes that the file already has costs half of
one that makes the file longer, for which the file system commits its journal.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.spool import reserve
from agent.spool.cursor import Cursor, write_cursor
from agent.spool.errors import SpoolDead, SpoolFull
from agent.spool.files import place, sync_directory, write_all
from agent.spool.format import (
    FRAME_HEAD_BYTES,
    RECORD_BYTES_MAX,
    Header,
    serialize_frames,
    serialize_header,
)
from agent.spool.recovery import QUARANTINE, Recovered, Segment, segment_name

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
AHEAD_BYTES_MAX = 1_048_576  # of zeros behind the records of the open segment
_ZEROS = bytes(AHEAD_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bounds on disk. Past bytes_max less headroom_bytes only closing records are taken.

    The reserve and the zeros written ahead (AHEAD_BYTES_MAX) come on top of bytes_max.
    """

    bytes_max: int = 1_073_741_824
    segment_bytes: int = 33_554_432
    headroom_bytes: int = 8_388_608
    reserve_bytes: int = 4_194_304


@dataclass(frozen=True, slots=True)
class SyncTicket:
    """One fdatasync to do, in any thread; the descriptor is its own."""

    fd: int
    seq: int
    end: int
    first_seq: int

    def run(self) -> None:
        """Flush to stable storage.

        Raises:
            OSError: the spool is dead; tell it by `Spool.died`.
        """
        try:
            os.fdatasync(self.fd)
        finally:
            os.close(self.fd)


class Spool:
    """Segments in one directory. Numbers are contiguous over all lives of the writer."""

    def __init__(
        self,
        directory: Path,
        recovered: Recovered,
        *,
        boot: bytes,
        created_ms: int,
        limits: SpoolLimits = SpoolLimits(),
        carry: Callable[[], bytes] = bytes,
    ) -> None:
        """Open a new segment behind what was recovered.

        boot is the 16 bytes of the kernel's boot id. carry is asked for the note of each new
        segment: what a later life needs of the segments before, since those may be gone.

        Raises:
            SpoolFull: no space even for a header.
            OSError: the directory can't be used.
        """
        self._directory = directory
        self._limits = limits
        self._boot = boot
        self._created_ms = created_ms
        self._carry = carry
        self._sealed = list(recovered.segments)
        self._next_seq = recovered.next_seq
        self._hash = recovered.hash
        self._fd = -1
        self._header = Header(boot, self._next_seq, self._hash, created_ms, b"")
        self._end = self._synced_end = 0
        self._file_end = 0  # of the open segment, with the zeros
        self.synced_seq = self._next_seq - 1
        self.cursor = recovered.cursor
        self.dead = ""
        self.out_of_space = False
        self._sealed_bytes = sum(path.stat().st_size for path in self._files())
        self._open_segment()
        if not reserve.make(directory, limits.reserve_bytes):
            self.out_of_space = True

    # --- state ---

    @property
    def next_seq(self) -> int:
        """The number that the next record must carry."""
        return self._next_seq

    @property
    def hash(self) -> bytes:
        """The chain hash after the last record."""
        return self._hash

    @property
    def used_bytes(self) -> int:
        """Bytes of all segments, quarantined ones included, without the zeros written ahead."""
        return self._sealed_bytes + self._end

    @property
    def full(self) -> bool:
        """Whether new operations must be refused."""
        return (
            self.out_of_space
            or self.used_bytes >= self._limits.bytes_max - self._limits.headroom_bytes
        )

    @property
    def dirty(self) -> bool:
        """Whether something was appended that is not on stable storage."""
        return self.synced_seq < self._next_seq - 1

    def segments(self) -> list[Segment]:
        """Return what can be read now, the open segment last."""
        current = Segment(
            self._directory / segment_name(self._header.first_seq),
            self._header,
            self._next_seq,
            self._hash,
            self._end,
        )
        return [*self._sealed, current]

    # --- append ---

    def append(self, records: Sequence[bytes], *, closing: bool = False) -> range:
        """Append records, numbered from next_seq on; return their numbers. Not yet durable.

        closing: they end what was begun (outcomes, alarms), so the headroom and the space of the
        released reserve may be used for them.

        Raises:
            SpoolFull: refused, nothing was appended.
            SpoolDead: the disk failed.
            ValueError: a record exceeds RECORD_BYTES_MAX.
        """
        self._check(closing=closing)
        sizes = list(map(len, records))
        if max(sizes, default=0) > RECORD_BYTES_MAX:
            raise ValueError(f"a record of {max(sizes)} bytes exceeds {RECORD_BYTES_MAX}")
        size = sum(sizes) + FRAME_HEAD_BYTES * len(records)
        if self._end + size > self._limits.segment_bytes and self._next_seq > (
            self._header.first_seq
        ):
            self._roll()
        first = self._next_seq
        data, digest = serialize_frames(records, first, self._synced_end, self._hash)
        self._write(data)
        self._end += len(data)
        if self._end > self._file_end:
            self._write_ahead()
        self._hash = digest
        self._next_seq = first + len(records)
        return range(first, self._next_seq)

    def _check(self, *, closing: bool) -> None:
        if self.dead:
            raise SpoolDead(self.dead)
        if closing:
            if self.used_bytes >= self._limits.bytes_max:
                raise SpoolFull(f"the bound of {self._limits.bytes_max} bytes is reached")
        elif self.full:
            room = (self._limits.bytes_max - self._limits.headroom_bytes) >> 20
            bound = f"the spool's bound is reached: {room} MiB of records wait for the collector"
            raise SpoolFull("no space left on the disk" if self.out_of_space else bound)

    def _write(self, data: bytes) -> None:
        try:
            write_all(self._fd, data)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise self.died(error) from error
            self._take_back()
            self._no_space()
            raise SpoolFull("no space left on the disk") from error

    def _write_ahead(self) -> None:
        """Make the file longer than its records, while there is space in plenty.

        Without space nothing is refused: the next records find out whether they fit.
        """
        self._file_end = self._end
        room = min(self._limits.segment_bytes - self._end, AHEAD_BYTES_MAX)
        if room <= 0 or self.out_of_space:
            return
        try:
            self._file_end += os.pwrite(self._fd, memoryview(_ZEROS)[:room], self._end)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise self.died(error) from error

    def _take_back(self) -> None:
        """Remove what is behind the last whole group: a part of one, and zeros."""
        try:
            os.ftruncate(self._fd, self._end)
            self._file_end = self._end
            os.lseek(self._fd, self._end, os.SEEK_SET)
        except OSError as error:
            raise self.died(error) from error

    def _no_space(self) -> None:
        self.out_of_space = True
        reserve.release(self._directory)

    def died(self, error: OSError) -> SpoolDead:
        """Mark the spool dead, for ever; return what to raise."""
        self.dead = self.dead or f"the spool's disk failed: {error.strerror}"
        return SpoolDead(self.dead)

    # --- sync ---

    def begin_sync(self) -> SyncTicket:
        """Return the flush that covers everything appended so far.

        Raises:
            SpoolDead: the disk failed.
        """
        if self.dead:
            raise SpoolDead(self.dead)
        fd = os.dup(self._fd)  # the same open file, so a roll may close its own meanwhile
        return SyncTicket(fd, self._next_seq - 1, self._end, self._header.first_seq)

    def finish_sync(self, ticket: SyncTicket) -> None:
        """Take note that the ticket's run returned without error.

        Raises:
            SpoolDead: the disk failed meanwhile (one call gets the error, another may not).
        """
        if self.dead:
            raise SpoolDead(self.dead)
        self.synced_seq = max(self.synced_seq, ticket.seq)
        if ticket.first_seq == self._header.first_seq:
            self._synced_end = max(self._synced_end, ticket.end)

    def sync(self) -> int:
        """Flush now; return the highest durable number.

        Raises:
            SpoolDead: the flush failed, and nothing since the last one may be acknowledged.
        """
        if self.dead:
            raise SpoolDead(self.dead)
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self.died(error) from error
        self.synced_seq, self._synced_end = self._next_seq - 1, self._end
        return self.synced_seq

    # --- segments ---

    def _seal(self) -> None:
        """Make the old segment durable before the next one exists (tests override this)."""
        self.sync()

    def _roll(self) -> None:
        self._take_back()  # only the last segment may end in zeros
        self._seal()
        old = self.segments()[-1]
        old_fd, old_end = self._fd, self._end
        self._open_segment()
        os.close(old_fd)
        self._sealed.append(old)
        self._sealed_bytes += old_end

    def _open_segment(self) -> None:
        """Create the segment whole, durable and named, then open it for appending."""
        header = Header(self._boot, self._next_seq, self._hash, self._created_ms, self._carry())
        path = self._directory / segment_name(self._next_seq)
        data = serialize_header(header)
        try:
            place(path, data)
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.lseek(fd, len(data), os.SEEK_SET)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise self.died(error) from error
            self._no_space()
            raise SpoolFull("no space left on the disk") from error
        # a segment of an earlier life without records has this name, and is replaced by it
        self._sealed = [one for one in self._sealed if one.path != path]
        self._fd, self._header = fd, header
        self._end = self._synced_end = self._file_end = len(data)

    def _files(self) -> list[Path]:
        """Every file that counts against the bound, without the open segment."""
        name = segment_name(self._next_seq)
        sealed = [one.path for one in self._sealed if one.path.name != name]
        return sealed + list((self._directory / QUARANTINE).glob("*"))

    # --- acknowledgement ---

    def frees(self, seq: int) -> bool:
        """Whether an acknowledgement up to seq would let a segment go."""
        return bool(self._sealed) and self._sealed[0].next_seq - 1 <= seq

    def acknowledge(self, cursor: Cursor) -> None:
        """Store the collector's acknowledgement, then unlink segments that are wholly below it.

        Raises:
            SpoolDead: the disk failed.
        """
        if cursor.seq < self.cursor.seq:
            return
        self.cursor = cursor
        done = [one for one in self._sealed if one.next_seq - 1 <= cursor.seq]
        try:
            write_cursor(self._directory, cursor)
            for segment in done:
                size = segment.path.stat().st_size
                segment.path.unlink()
                self._sealed_bytes -= size
                self._sealed.remove(segment)
            if done:
                sync_directory(self._directory)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise self.died(error) from error

    def regain(self) -> bool:
        """Try to leave the full state: the reserve must fit again. Returns whether open."""
        if self.dead:
            return False
        if self.out_of_space and reserve.make(self._directory, self._limits.reserve_bytes):
            self.out_of_space = False
        return not self.full

    def close(self) -> None:
        """Close without a sync."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
