r"""Bytes of a segment file, pure: header, frames, and what a scan makes of any bytes.

    segment = header frame*
    header  = "LWSPOOL1" length:u32 boot:16 first_seq:u64 previous_hash:32 created_ms:u64
              note_length:u32 note crc:u32                     (little endian; crc of all before)
    frame   = "\xf5LWr" crc:u32 length:u32 synced:u32 seq:u64 payload

A frame's crc covers all that follows it. `synced` is the offset of this file that was on stable
storage when the frame was written: a bad frame below a later frame's `synced` is damage of what
was durable, any other bad end is a torn write. The chain: hash = SHA-256(previous hash + payload).
The segment that is being written may end in zeros, which are space kept for it and no frame.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAGIC = b"LWSPOOL1"
MARKER = b"\xf5LWr"
GENESIS = bytes(32)  # the hash before the first record of a host
RECORD_BYTES_MAX = 262_144  # one record; an IPC frame of 65,536 grows to less than that
NOTE_BYTES_MAX = 4_194_304  # what the writer carries from segment to segment
SEGMENT_BYTES_MAX = 1_073_741_824  # offsets fit u32 with room

_FIXED = struct.Struct("<8sI16sQ32sQI")
_CRC = struct.Struct("<I")
_TAIL = struct.Struct("<IIQ")  # length, synced, seq: what the crc covers before the payload
_FRAME = struct.Struct("<4sIIIQ")
_CRC_AT = len(MARKER) + _CRC.size  # from here on the crc covers
FRAME_HEAD_BYTES = _FRAME.size
HEADER_BYTES_MIN = _FIXED.size + _CRC.size


class SegmentUnreadable(Exception):
    """The header is not a header of ours, or is damaged."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself. note is the writer's own, opaque here."""

    boot: bytes
    first_seq: int
    previous_hash: bytes
    created_ms: int
    note: bytes

    @property
    def size_bytes(self) -> int:
        """Length of the serialised header."""
        return HEADER_BYTES_MIN + len(self.note)


def serialize_header(header: Header) -> bytes:
    """Return the header's bytes.

    Raises:
        ValueError: the note exceeds NOTE_BYTES_MAX.
    """
    if len(header.note) > NOTE_BYTES_MAX:
        raise ValueError(f"a note of {len(header.note)} bytes exceeds {NOTE_BYTES_MAX}")
    body = _FIXED.pack(
        MAGIC,
        header.size_bytes,
        header.boot,
        header.first_seq,
        header.previous_hash,
        header.created_ms,
        len(header.note),
    )
    body += header.note
    return body + _CRC.pack(zlib.crc32(body))


def parse_header(data: bytes) -> Header:
    """Return the header at the start of a segment.

    Raises:
        SegmentUnreadable: too short, another magic, lengths that disagree, or a wrong checksum.
    """
    if len(data) < HEADER_BYTES_MIN:
        raise SegmentUnreadable("shorter than a header")
    magic, size, boot, first_seq, previous_hash, created_ms, note_bytes = _FIXED.unpack_from(data)
    if magic != MAGIC:
        raise SegmentUnreadable("not a segment of ours")
    if note_bytes > NOTE_BYTES_MAX or size != HEADER_BYTES_MIN + note_bytes or len(data) < size:
        raise SegmentUnreadable("lengths in the header disagree")
    body = bytes(data[: size - _CRC.size])
    if _CRC.unpack_from(data, size - _CRC.size)[0] != zlib.crc32(body):
        raise SegmentUnreadable("the header's checksum is wrong")
    if first_seq == 0:
        raise SegmentUnreadable("sequence numbers start at 1")
    return Header(boot, first_seq, previous_hash, created_ms, body[_FIXED.size :])


def serialize_frames(
    records: Sequence[bytes], first_seq: int, synced: int, previous_hash: bytes
) -> tuple[bytes, bytes]:
    """Return the frames of records, and the chain hash after them (hot: about 2 µs a record)."""
    parts: list[bytes] = []
    digest, crc32, sha256 = previous_hash, zlib.crc32, hashlib.sha256
    for seq, record in enumerate(records, first_seq):
        tail = _TAIL.pack(len(record), synced, seq)
        parts += (MARKER, _CRC.pack(crc32(record, crc32(tail))), tail, record)
        digest = sha256(digest + record).digest()
    return b"".join(parts), digest


def chain(previous_hash: bytes, payload: bytes) -> bytes:
    """Return the chain hash after this record."""
    return hashlib.sha256(previous_hash + payload).digest()


@dataclass(frozen=True, slots=True)
class Frame:
    """One valid frame and where it ends."""

    seq: int
    synced: int
    payload: bytes
    end: int


def parse_frame(data: bytes, offset: int, base: int = 0) -> Frame | None:
    """Return the frame at the offset, or None when there is no valid one. Never raises.

    base is the file offset of data's first byte.
    """
    start = offset + FRAME_HEAD_BYTES
    if len(data) < start:
        return None
    marker, crc, length, synced, seq = _FRAME.unpack_from(data, offset)
    end = start + length
    if (
        marker != MARKER
        or length > RECORD_BYTES_MAX
        or end > len(data)
        or synced > base + offset
        or zlib.crc32(data[offset + _CRC_AT : end]) != crc
    ):
        return None
    return Frame(seq, synced, bytes(data[start:end]), end)


def frames(data: bytes, header: Header) -> Iterator[Frame]:
    """Yield the valid frames from the start, as long as their numbers are contiguous."""
    offset, seq = header.size_bytes, header.first_seq
    while (frame := parse_frame(data, offset)) is not None and frame.seq == seq:
        yield frame
        offset, seq = frame.end, seq + 1


@dataclass(frozen=True, slots=True)
class Scan:
    """A whole segment, read. `damaged` means that durable bytes behind `end` can't be read."""

    header: Header
    end: int  # offset after the last valid frame
    next_seq: int
    hash: bytes
    damaged: bool
    seen_seq: int  # highest number of any valid frame, also behind damage


def scan(data: bytes) -> Scan:
    """Read a segment.

    Raises:
        SegmentUnreadable: no valid header.
    """
    header = parse_header(data)
    end, seq, digest = header.size_bytes, header.first_seq, header.previous_hash
    for frame in frames(data, header):
        end, seq = frame.end, seq + 1
        digest = chain(digest, frame.payload)
    damaged, seen = _behind(data, end, seq)
    return Scan(header, end, seq, digest, damaged, max(seen, seq - 1))


def _behind(data: bytes, end: int, seq: int) -> tuple[bool, int]:
    """Return whether frames behind a bad one prove that it was durable, and their highest seq."""
    damaged, seen = False, 0
    at = data.find(MARKER, end)
    while at >= 0:
        frame = parse_frame(data, at)
        if frame is None or frame.seq < seq:
            at = data.find(MARKER, at + 1)
            continue
        damaged = damaged or frame.synced > end
        seen = max(seen, frame.seq)
        at = data.find(MARKER, frame.end)
    return damaged, seen


def highest_seq(data: bytes) -> int:
    """Return the highest number of any valid frame in these bytes, 0 when there is none."""
    return _behind(data, 0, 0)[1]
