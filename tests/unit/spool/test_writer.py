"""Appending, rolling, bounds, acknowledgement."""

import errno
import os
from pathlib import Path

import pytest

from agent.spool.cursor import Cursor
from agent.spool.errors import SpoolDead, SpoolFull
from agent.spool.format import FRAME_HEAD_BYTES, RECORD_BYTES_MAX
from agent.spool.reader import Batch, Reader
from agent.spool.recovery import recover
from agent.spool.writer import AHEAD_BYTES_MAX, Spool, SpoolLimits, SyncTicket
from tests.unit.spool.spools import SMALL, filled, opened, record


def read_all(spool: Spool, position: Cursor) -> list[bytes]:
    reader = Reader(position)
    found: list[bytes] = []
    while (
        item := reader.read(spool.segments(), spool.synced_seq, records_max=7, bytes_max=1_000_000)
    ) is not None:
        assert isinstance(item, Batch)
        found += item.records
    return found


def append_for_ever(spool: Spool, *, closing: bool) -> None:
    while True:
        spool.append([record(spool.next_seq)], closing=closing)


def test_numbers_go_on_over_lives(tmp_path: Path) -> None:
    """Numbers never repeat and never have a gap, and the chain hash goes on."""
    for life in range(5):
        spool = opened(tmp_path)
        assert spool.next_seq == life * 3 + 1
        before = spool.hash
        assert list(spool.append([record(spool.next_seq + one) for one in range(3)])) == [
            life * 3 + 1,
            life * 3 + 2,
            life * 3 + 3,
        ]
        assert spool.hash != before
        spool.sync()
        spool.close()
    last = opened(tmp_path)
    assert read_all(last, recover(tmp_path).cursor) == [record(seq) for seq in range(1, 16)]


def test_what_was_not_synced_is_not_read(tmp_path: Path) -> None:
    """The uplink sees a record only once it is on stable storage."""
    spool = opened(tmp_path)
    spool.append([record(1)])
    assert spool.dirty
    assert read_all(spool, spool.cursor) == []
    assert spool.sync() == 1
    assert read_all(spool, spool.cursor) == [record(1)]


def test_a_flush_covers_what_was_appended_before_it_began(tmp_path: Path) -> None:
    """What is appended while a flush runs is not taken as durable by it."""
    spool = opened(tmp_path)
    spool.append([record(1)])
    ticket = spool.begin_sync()
    spool.append([record(2)])
    ticket.run()
    spool.finish_sync(ticket)
    assert spool.synced_seq == 1
    assert spool.dirty


def test_the_old_segment_is_synced_before_the_next_exists(tmp_path: Path) -> None:
    """At each roll the records of the sealed segment are durable already."""
    seen = []

    class Watched(Spool):
        def _open_segment(self) -> None:
            if self._fd >= 0:
                seen.append((self.synced_seq, self.next_seq - 1))
            super()._open_segment()

    spool = opened(tmp_path, kind=Watched)
    for seq in range(1, 200):
        spool.append([record(seq)])
    assert len(seen) > 3
    assert all(synced == last for synced, last in seen)


def test_acknowledged_segments_go_and_the_open_one_stays(tmp_path: Path) -> None:
    """Segments wholly below the cursor are unlinked; one that is partly above it stays."""
    spool = filled(tmp_path, 100)
    segments = spool.segments()
    used = spool.used_bytes
    middle = segments[2]
    spool.acknowledge(Cursor(middle.next_seq - 2, b"h" * 32))
    assert [one.path for one in spool.segments()] == [one.path for one in segments[2:]]
    assert spool.used_bytes < used
    assert not segments[0].path.exists()
    spool.acknowledge(Cursor(100, spool.hash))
    assert len(spool.segments()) == 1
    assert spool.used_bytes == spool.segments()[0].end


def test_the_bound_refuses_beginnings_then_everything(tmp_path: Path) -> None:
    """Less the headroom only closing records are taken, at the bound none; nothing is lost."""
    limits = SpoolLimits(
        bytes_max=20_000, segment_bytes=4_096, headroom_bytes=5_000, reserve_bytes=4_096
    )
    spool = opened(tmp_path, limits)
    with pytest.raises(SpoolFull):
        append_for_ever(spool, closing=False)
    assert 15_000 <= spool.used_bytes < 15_000 + 4_096
    refused_at = spool.next_seq
    with pytest.raises(SpoolFull):
        append_for_ever(spool, closing=True)
    assert refused_at < spool.next_seq
    assert spool.used_bytes < 20_000 + 4_096
    spool.sync()
    assert len(read_all(spool, spool.cursor)) == spool.next_seq - 1
    assert not spool.regain()
    spool.acknowledge(Cursor(spool.synced_seq, spool.hash))
    assert spool.regain()
    spool.append([record(spool.next_seq)])


def test_a_full_spool_takes_beginnings_up_to_the_bound_and_not_past_it(tmp_path: Path) -> None:
    """One byte below the bound a record is taken; at the bound it is refused."""
    empty = opened(tmp_path).used_bytes
    size = FRAME_HEAD_BYTES + 100
    for spare, taken in ((1, True), (0, False)):
        folder = tmp_path / str(spare)
        limits = SpoolLimits(
            bytes_max=empty + size + spare,
            segment_bytes=4_096,
            headroom_bytes=0,
            reserve_bytes=4_096,
        )
        spool = opened(folder, limits)
        spool.append([record(1)])
        if taken:
            spool.append([record(2)])
        else:
            with pytest.raises(SpoolFull):
                spool.append([record(2)])


def test_a_record_over_its_limit_is_refused(tmp_path: Path) -> None:
    """RECORD_BYTES_MAX is taken, one byte more is an error and leaves nothing behind."""
    spool = opened(tmp_path)
    spool.append([bytes(RECORD_BYTES_MAX)])
    with pytest.raises(ValueError, match="exceeds"):
        spool.append([record(2), bytes(RECORD_BYTES_MAX + 1)])
    assert spool.next_seq == 2
    assert recover(tmp_path).next_seq == 2


def test_a_failed_flush_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error of fdatasync nothing is synced, appended or acknowledged ever again."""
    spool = opened(tmp_path)
    spool.append([record(1)])
    calls = []

    def fails(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(SpoolDead):
        spool.sync()
    monkeypatch.undo()
    for action in (
        spool.sync,
        spool.begin_sync,
        lambda: spool.append([record(2)]),
        lambda: spool.append([record(2)], closing=True),
    ):
        with pytest.raises(SpoolDead):
            action()
    assert spool.synced_seq == 0
    assert len(calls) == 1
    assert not spool.regain()


def test_a_flush_that_returned_does_not_count_when_another_failed(tmp_path: Path) -> None:
    """The kernel tells an error to one caller only: a dead spool acknowledges nothing."""
    spool = opened(tmp_path)
    spool.append([record(1)])
    ticket: SyncTicket = spool.begin_sync()
    ticket.run()
    spool.died(OSError(errno.EIO, "another call got it"))
    with pytest.raises(SpoolDead):
        spool.finish_sync(ticket)
    assert spool.synced_seq == 0


def test_a_roll_with_a_flush_in_the_air_is_safe(tmp_path: Path) -> None:
    """A ticket's descriptor is its own: a roll may close the segment meanwhile."""
    spool = opened(tmp_path)
    spool.append([record(1)])
    ticket = spool.begin_sync()
    for seq in range(2, 100):
        spool.append([record(seq)])
    assert len(spool.segments()) > 1
    ticket.run()
    spool.finish_sync(ticket)
    spool.sync()
    assert recover(tmp_path).problems == ()
    assert recover(tmp_path).next_seq == 100


def test_the_note_is_carried_to_every_segment(tmp_path: Path) -> None:
    """Each new segment asks for the note, and recovery returns the last one."""
    notes = iter([b"first", *[f"note {number}".encode() for number in range(100)]])
    last = [b""]

    def carry() -> bytes:
        last[0] = next(notes)
        return last[0]

    spool = Spool(
        tmp_path, recover(tmp_path), boot=bytes(16), created_ms=1, limits=SMALL, carry=carry
    )
    for seq in range(1, 100):
        spool.append([record(seq)])
    assert recover(tmp_path).note == last[0] != b"first"


def open_file(spool: Spool) -> Path:
    return spool.segments()[-1].path


def test_zeros_are_written_ahead_up_to_their_limit(tmp_path: Path) -> None:
    """AHEAD_BYTES_MAX behind the first record; the file stays until records pass its end."""
    spool = opened(tmp_path, SpoolLimits())
    spool.append([record(1)])
    end = spool.segments()[-1].end
    assert open_file(spool).stat().st_size == end + AHEAD_BYTES_MAX
    assert open_file(spool).read_bytes()[end:] == bytes(AHEAD_BYTES_MAX)
    spool.append([bytes(RECORD_BYTES_MAX)] * 3)
    left = end + AHEAD_BYTES_MAX - spool.segments()[-1].end
    spool.append([bytes(left - FRAME_HEAD_BYTES)])  # to the last zero
    assert open_file(spool).stat().st_size == end + AHEAD_BYTES_MAX == spool.segments()[-1].end
    spool.append([b""])  # and past it
    assert open_file(spool).stat().st_size == spool.segments()[-1].end + AHEAD_BYTES_MAX
    spool.sync()
    assert len(read_all(spool, spool.cursor)) == spool.next_seq - 1


def test_only_the_open_segment_ends_in_zeros_and_none_is_longer_than_a_segment(
    tmp_path: Path,
) -> None:
    """A sealed segment is as long as its records; the zeros end where the segment's limit is."""
    spool = filled(tmp_path, 100)
    *sealed, current = spool.segments()
    assert len(sealed) > 1
    assert all(one.path.stat().st_size == one.end for one in sealed)
    assert current.path.stat().st_size == SMALL.segment_bytes
    assert spool.used_bytes == sum(one.end for one in [*sealed, current])


def test_no_space_for_zeros_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC as they are written: the record is in, the spool is not full, and goes on."""

    def full(_fd: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    spool = filled(tmp_path, 3)
    assert not spool.full
    assert open_file(spool).stat().st_size == spool.segments()[-1].end
    assert len(read_all(spool, spool.cursor)) == 3


def test_a_disk_that_fails_as_zeros_are_written_is_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO: nothing of the group is acknowledged, nothing more is taken."""

    def fails(_fd: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    spool = opened(tmp_path)
    monkeypatch.setattr(os, "pwrite", fails)
    with pytest.raises(SpoolDead):
        spool.append([record(1)])
    with pytest.raises(SpoolDead):
        spool.sync()
    assert spool.synced_seq == 0
