"""Every order of crash is accepted; damage is put aside and marked; nothing is deleted."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.spool import cursor as cursors
from agent.spool.cursor import Cursor, read_cursor, write_cursor
from agent.spool.reader import Batch, Gap, Reader
from agent.spool.recovery import QUARANTINE, payloads, recover
from agent.spool.writer import Spool
from tests.unit.spool.spools import filled, opened, record


def items(spool: Spool, position: Cursor = cursors.NOTHING) -> list[Batch | Gap]:
    reader = Reader(position)
    found = []
    while (
        item := reader.read(
            spool.segments(), spool.synced_seq, records_max=1_000, bytes_max=1_000_000
        )
    ) is not None:
        found.append(item)
    return found


def numbers(spool: Spool) -> list[int]:
    return [
        int(one[:10]) for item in items(spool) if isinstance(item, Batch) for one in item.records
    ]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def test_an_empty_directory_is_a_new_spool(tmp_path: Path) -> None:
    """The first record of a host is number 1."""
    recovered = recover(tmp_path / "new")
    assert (recovered.next_seq, recovered.segments, recovered.problems) == (1, (), ())


@pytest.mark.parametrize("garbage", [b"\0" * 500, b"\xf5LWr", os.urandom(77)])
def test_a_torn_tail_is_cut(tmp_path: Path, garbage: bytes) -> None:
    """Bytes behind the last valid frame of the last segment go; no alarm, no quarantine."""
    filled(tmp_path, 10).close()
    with segments(tmp_path)[-1].open("ab") as file:
        file.write(garbage)
    recovered = recover(tmp_path)
    assert (recovered.next_seq, recovered.problems) == (11, ())
    assert numbers(opened(tmp_path)) == list(range(1, 11))
    assert not (tmp_path / QUARANTINE).exists()


def test_zeros_written_ahead_are_cut(tmp_path: Path) -> None:
    """A writer that died leaves them: no alarm, and the recovered segment ends with its records."""
    filled(tmp_path, 5).close()
    assert segments(tmp_path)[-1].read_bytes().endswith(bytes(1_000))
    recovered = recover(tmp_path)
    assert (recovered.next_seq, recovered.problems) == (6, ())
    assert recovered.segments[-1].end == segments(tmp_path)[-1].stat().st_size


@pytest.mark.parametrize("durable", [False, True])
def test_a_hole_is_a_torn_write_unless_it_was_durable(tmp_path: Path, *, durable: bool) -> None:
    """Blocks reach a disk in any order: a frame behind zeros was not acknowledged, or is damage."""
    spool = filled(tmp_path, 2)
    end = spool.segments()[-1].end
    spool.append([record(3)])
    if durable:
        spool.sync()
    behind = spool.segments()[-1].end
    spool.append([record(4)])
    spool.close()
    with segments(tmp_path)[-1].open("r+b") as file:
        file.seek(end)
        file.write(bytes(behind - end))
    recovered = recover(tmp_path)
    assert bool(recovered.problems) is durable
    assert recovered.next_seq == (5 if durable else 3)
    spool = opened(tmp_path)
    spool.append([record(recovered.next_seq)])
    spool.sync()
    assert numbers(spool) == [1, 2, recovered.next_seq]


@given(st.integers(1, 200))
def test_a_cut_at_any_byte_keeps_the_records_before(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """The last segment may end anywhere: the records before the cut are there, numbers go on."""
    directory = tmp_path_factory.mktemp("cut")
    filled(directory, 8).close()
    last = segments(directory)[-1]
    os.truncate(last, max(84, last.stat().st_size - cut * 3))
    recovered = recover(directory)
    assert recovered.problems == ()
    spool = opened(directory)
    kept = numbers(spool)
    assert kept == list(range(1, recovered.next_seq))
    assert list(spool.append([record(recovered.next_seq)])) == [recovered.next_seq]


def test_damage_in_the_middle_is_put_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    """The bad segment stays in quarantine/, its valid records are read, the gap is marked."""
    filled(tmp_path, 100).close()
    bad = segments(tmp_path)[1]
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    first_in_bad = int(bad.name.removesuffix(".seg"))
    recovered = recover(tmp_path)
    assert len(recovered.problems) == 1
    assert recovered.next_seq == 101
    assert (tmp_path / QUARANTINE / f"{bad.name}.0").read_bytes() == bytes(data)
    spool = opened(tmp_path)
    (gap,) = [item for item in items(spool) if isinstance(item, Gap)]
    assert first_in_bad < gap.first_seq < gap.next_seq
    expected = [*range(1, gap.first_seq), *range(gap.next_seq, 101)]
    assert numbers(spool) == expected
    assert recover(tmp_path).problems == ()  # the same damage is an alarm once


def test_quarantined_bytes_survive_the_acknowledgement(tmp_path: Path) -> None:
    """What can't be read is never deleted, also when everything is acknowledged."""
    filled(tmp_path, 100).close()
    bad = segments(tmp_path)[1]
    bad.write_bytes(bad.read_bytes()[:-50])
    spool = opened(tmp_path)
    spool.acknowledge(Cursor(100, spool.hash))
    assert not bad.exists()
    assert (tmp_path / QUARANTINE / f"{bad.name}.0").exists()


def test_damage_of_durable_records_in_the_last_segment_is_no_torn_tail(tmp_path: Path) -> None:
    """Records behind it prove that it was durable: quarantine, and numbers go on behind them."""
    spool = opened(tmp_path)
    for seq in range(1, 11):
        spool.append([record(seq)])
        spool.sync()
    spool.close()
    last = segments(tmp_path)[-1]
    data = bytearray(last.read_bytes())
    data[data.index(record(4)) + 20] ^= 1
    last.write_bytes(data)
    recovered = recover(tmp_path)
    assert recovered.next_seq == 11
    assert len(recovered.problems) == 2
    spool = opened(tmp_path)
    spool.append([record(11)])
    spool.sync()
    assert numbers(spool) == [1, 2, 3, 11]
    (gap,) = [item for item in items(spool) if isinstance(item, Gap)]
    assert (gap.first_seq, gap.next_seq) == (4, 11)


def test_a_header_that_cannot_be_read_does_not_let_numbers_repeat(tmp_path: Path) -> None:
    """The last segment's header is gone: its records' numbers are still seen and passed over."""
    filled(tmp_path, 10).close()
    last = segments(tmp_path)[-1]
    data = bytearray(last.read_bytes())
    data[3] ^= 1
    last.write_bytes(data)
    recovered = recover(tmp_path)
    assert recovered.next_seq == 11
    assert recovered.problems


def test_cursor_behind_and_file_gone(tmp_path: Path) -> None:
    """Unlinked segments with an older cursor: what is left is read, behind a marked gap."""
    spool = filled(tmp_path, 100)
    segments(tmp_path)[0].unlink()
    spool.close()
    spool = opened(tmp_path)
    gap, *_ = items(spool)
    assert isinstance(gap, Gap)
    assert gap.first_seq == 1
    assert numbers(spool) == list(range(gap.next_seq, 101))
    held = Cursor(gap.next_seq - 1, gap.previous_hash)  # the collector has them all
    assert not [item for item in items(spool, held) if isinstance(item, Gap)]


def test_file_there_and_cursor_ahead(tmp_path: Path) -> None:
    """A crash between cursor and unlink: the segments go with the next acknowledgement."""
    spool = filled(tmp_path, 100)
    write_cursor(tmp_path, Cursor(100, spool.hash))
    spool.close()
    spool = opened(tmp_path)
    assert spool.next_seq == 101
    assert items(spool, spool.cursor) == []
    spool.acknowledge(spool.cursor)
    assert len(segments(tmp_path)) == 1


def test_all_segments_gone_and_the_cursor_left(tmp_path: Path) -> None:
    """Numbers and hash go on from the cursor."""
    spool = filled(tmp_path, 50)
    digest = spool.hash
    spool.acknowledge(Cursor(50, digest))
    spool.close()
    for path in segments(tmp_path):
        path.unlink()
    recovered = recover(tmp_path)
    assert (recovered.next_seq, recovered.hash) == (51, digest)


@pytest.mark.parametrize("content", [b"", b"x", bytes(52), b"LWCURSR1" + bytes(44)])
def test_a_damaged_cursor_loses_nothing(tmp_path: Path, content: bytes) -> None:
    """It counts as nothing acknowledged: everything that is there is sent again."""
    filled(tmp_path, 20).close()
    (tmp_path / cursors.NAME).write_bytes(content)
    assert read_cursor(tmp_path) == cursors.NOTHING
    assert numbers(opened(tmp_path)) == list(range(1, 21))


def test_left_over_temporary_files_are_removed(tmp_path: Path) -> None:
    """A crash before the rename leaves a .tmp file, which nothing was acknowledged from."""
    filled(tmp_path, 5).close()
    (tmp_path / "00000000000000000006.seg.tmp").write_bytes(b"half a header")
    (tmp_path / "cursor.tmp").write_bytes(b"half a cursor")
    assert recover(tmp_path).next_seq == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_a_life_without_records_leaves_one_segment(tmp_path: Path) -> None:
    """Starting again and again does not pile up empty segments."""
    filled(tmp_path, 5).close()
    for _ in range(10):
        opened(tmp_path).close()
    assert len(segments(tmp_path)) == 2
    assert numbers(opened(tmp_path)) == [1, 2, 3, 4, 5]


def test_the_last_segment_is_written_anew(tmp_path: Path) -> None:
    """After a failed fsync only a new copy is durable, so each start makes one."""
    filled(tmp_path, 5).close()
    before = segments(tmp_path)[-1].stat().st_ino
    recovered = recover(tmp_path)
    assert segments(tmp_path)[-1].stat().st_ino != before
    assert payloads(recovered.segments[-1]) == [record(seq) for seq in range(1, 6)]
