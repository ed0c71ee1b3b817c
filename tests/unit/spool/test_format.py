"""The bytes of a segment: any bytes give records that were written, or a typed error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.spool.format import (
    GENESIS,
    NOTE_BYTES_MAX,
    RECORD_BYTES_MAX,
    Header,
    SegmentUnreadable,
    chain,
    frames,
    parse_frame,
    parse_header,
    scan,
    serialize_frames,
    serialize_header,
)

payload_lists = st.lists(st.binary(max_size=200), max_size=12)
FIRST = 7


def segment(payloads: list[bytes], note: bytes = b"") -> bytes:
    header = Header(bytes(16), FIRST, GENESIS, 5, note)
    return serialize_header(header) + serialize_frames(payloads, FIRST, 0, GENESIS)[0]


def frame(seq: int, synced: int, payload: bytes) -> bytes:
    return serialize_frames([payload], seq, synced, GENESIS)[0]


@given(payload_lists, st.binary(max_size=100))
def test_what_was_written_is_read(payloads: list[bytes], note: bytes) -> None:
    """Header, note, records, numbers and the chain hash come back."""
    data = segment(payloads, note)
    result = scan(data)
    assert result.header.note == note
    assert [one.payload for one in frames(data, result.header)] == payloads
    digest = GENESIS
    for one in payloads:
        digest = chain(digest, one)
    assert serialize_frames(payloads, FIRST, 0, GENESIS)[1] == digest
    assert (result.hash, result.next_seq, result.end) == (digest, FIRST + len(payloads), len(data))
    assert not result.damaged


@given(st.binary(max_size=2_000))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    """Bytes that nobody wrote are SegmentUnreadable; nothing else is raised."""
    with pytest.raises(SegmentUnreadable):
        scan(data)
    assert parse_frame(data, 0) is None


@given(payload_lists, st.data())
def test_damage_never_makes_a_wrong_record(payloads: list[bytes], data: st.DataObject) -> None:
    """After any overwrite, insertion or removal, what is read is a prefix of what was written."""
    whole = segment(payloads)
    at = data.draw(st.integers(0, len(whole)))
    removed = data.draw(st.integers(0, len(whole) - at))
    damaged = whole[:at] + data.draw(st.binary(max_size=64)) + whole[at + removed :]
    try:
        result = scan(damaged)
    except SegmentUnreadable:
        return
    read = [frame.payload for frame in frames(damaged, result.header)]
    assert read == payloads[: len(read)]
    assert result.next_seq == FIRST + len(read)


@given(payload_lists, st.data())
def test_a_cut_is_a_torn_tail(payloads: list[bytes], data: st.DataObject) -> None:
    """A file that ends early has the records before, and is not taken for damaged."""
    whole = segment(payloads)
    header_bytes = len(segment([]))
    cut = whole[: data.draw(st.integers(header_bytes, len(whole)))]
    result = scan(cut)
    assert result.end <= len(cut)
    assert not result.damaged


def test_damage_below_a_synced_offset_is_told_from_a_torn_write() -> None:
    """A bad frame is damage when a later frame says that it was durable, else a torn write."""
    header = serialize_header(Header(bytes(16), 1, GENESIS, 5, b""))
    first = frame(1, 0, b"one")
    second = frame(2, len(header), b"two")
    broken = bytes(len(first))
    durable = frame(2, len(header) + len(first), b"two")
    assert not scan(header + broken + second).damaged
    result = scan(header + broken + durable)
    assert result.damaged
    assert (result.next_seq, result.seen_seq) == (1, 2)


def test_limits_hold_at_the_limit_and_one_past_it() -> None:
    """A record of RECORD_BYTES_MAX is read, one byte more is not; the same for the note."""
    assert parse_frame(frame(1, 0, bytes(RECORD_BYTES_MAX)), 0) is not None
    assert parse_frame(frame(1, 0, bytes(RECORD_BYTES_MAX + 1)), 0) is None
    note = bytes(NOTE_BYTES_MAX)
    assert parse_header(serialize_header(Header(bytes(16), 1, GENESIS, 0, note))).note == note
    with pytest.raises(ValueError, match="note"):
        serialize_header(Header(bytes(16), 1, GENESIS, 0, note + b"."))
