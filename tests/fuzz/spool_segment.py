"""Invariant: any bytes are a readable prefix with its chain, or unreadable: never an error."""

from agent.spool.format import (
    GENESIS,
    Header,
    SegmentUnreadable,
    chain,
    frames,
    highest_seq,
    parse_header,
    scan,
    serialize_frames,
    serialize_header,
)
from tests.fuzz.engine import main

_HEADER = serialize_header(Header(bytes(16), 7, GENESIS, 1_700_000_000_000, b"note"))
_FRAMES = tuple(
    serialize_frames([payload], 7 + number, synced, GENESIS)[0]
    for number, (synced, payload) in enumerate(((0, b"one"), (90, b""), (90, b"\xf5LWr three")))
)
SEEDS = (
    b"",
    _HEADER,
    _HEADER + b"".join(_FRAMES),
    _HEADER + _FRAMES[0] + bytes(64) + _FRAMES[2],
    _HEADER + _FRAMES[1] + _FRAMES[0] + b"\xf5LWr",
)


def check(data: bytes) -> None:
    """Scan, and scan again what was found valid."""
    seen = highest_seq(data)
    try:
        found = scan(data)
    except SegmentUnreadable:
        return
    header = parse_header(data)
    assert header.size_bytes <= found.end <= len(data)
    digest, seq = header.previous_hash, header.first_seq
    for frame in frames(data, header):
        assert frame.seq == seq
        digest, seq = chain(digest, frame.payload), seq + 1
    assert (found.hash, found.next_seq) == (digest, seq)
    assert found.seen_seq >= seq - 1
    assert seen >= seq - 1 or seq == header.first_seq
    cut = scan(data[: found.end])
    assert (cut.hash, cut.next_seq, cut.damaged) == (digest, seq, False)


if __name__ == "__main__":
    main("spool_segment")
