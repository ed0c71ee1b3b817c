"""Reading forward for the uplink: only what is durable, in batches, with the chain hashes."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.spool.cursor import Cursor
from agent.spool.format import FRAME_HEAD_BYTES, RECORD_BYTES_MAX, chain, parse_frame
from agent.spool.recovery import Segment

_CHUNK_BYTES = 131_072  # read at once; a batch ends where the chunk does
_CHUNK_BYTES_MAX = FRAME_HEAD_BYTES + RECORD_BYTES_MAX  # when even one record does not fit it


@dataclass(frozen=True, slots=True)
class Batch:
    """Contiguous records with the chain hash before the first and after the last."""

    first_seq: int
    records: tuple[bytes, ...]
    previous_hash: bytes
    hash: bytes

    @property
    def last_seq(self) -> int:
        """Number of the last record."""
        return self.first_seq + len(self.records) - 1


@dataclass(frozen=True, slots=True)
class Gap:
    """Records first_seq … next_seq - 1 are not there; the chain goes on from previous_hash."""

    first_seq: int
    next_seq: int
    previous_hash: bytes


class ReadFailed(Exception):
    """What was readable at start no longer is: recovery at the next start deals with it."""


class Reader:
    """A position in the segments. It is told the segments on each call: they come and go."""

    def __init__(self, position: Cursor) -> None:
        self._next_seq = position.seq + 1
        self._hash = position.hash
        self._segment_seq = 0
        self._offset = 0

    @property
    def next_seq(self) -> int:
        """Number of the record to be read next."""
        return self._next_seq

    def agrees(self, segments: Sequence[Segment]) -> bool:
        """Whether what is here leads to the position's hash, or can't tell. Ask before `read`.

        Raises:
            ReadFailed: a frame that was valid is not any more.
        """
        seq, digest = self._next_seq - 1, self._hash
        if any(one.first_seq == seq + 1 and one.header.previous_hash == digest for one in segments):
            return True  # also behind records that are lost: the chain goes on from there
        for segment in segments:
            if segment.first_seq <= seq < segment.next_seq:
                if segment.next_seq == seq + 1:
                    return segment.hash == digest
                self._seek(segment)
                return self._hash == digest
        return True

    def read(
        self, segments: Sequence[Segment], up_to_seq: int, *, records_max: int, bytes_max: int
    ) -> Batch | Gap | None:
        """Return what follows, or None when everything up to up_to_seq was read.

        Raises:
            ReadFailed: a frame that was valid is not any more.
        """
        if self._next_seq > up_to_seq:
            return None
        segment = _holding(segments, self._next_seq)
        if segment is None:
            return None
        if segment.first_seq > self._next_seq or (
            segment.first_seq == self._next_seq and segment.header.previous_hash != self._hash
        ):
            gap = Gap(self._next_seq, segment.first_seq, segment.header.previous_hash)
            self._next_seq, self._hash = segment.first_seq, segment.header.previous_hash
            return gap
        self._seek(segment)
        return self._batch(segment, up_to_seq, records_max, bytes_max)

    def _seek(self, segment: Segment) -> None:
        """Go to the frame of next_seq in the segment."""
        if self._segment_seq == segment.first_seq:
            return
        self._segment_seq = segment.first_seq
        self._offset = segment.header.size_bytes
        data = segment.path.read_bytes() if segment.first_seq < self._next_seq else b""
        digest = segment.header.previous_hash
        for seq in range(segment.first_seq, self._next_seq):
            frame = parse_frame(data, self._offset)
            if frame is None or frame.seq != seq:
                self._segment_seq = 0
                raise ReadFailed(f"record {seq} can't be read any more")
            digest = chain(digest, frame.payload)
            self._offset = frame.end
        self._hash = digest

    def _batch(self, segment: Segment, up_to_seq: int, records_max: int, bytes_max: int) -> Batch:
        first, previous = self._next_seq, self._hash
        last = min(up_to_seq, segment.next_seq - 1, first + records_max - 1)
        records: list[bytes] = []
        at = 0
        for chunk_bytes in (_CHUNK_BYTES, _CHUNK_BYTES_MAX):
            data = self._chunk(segment, chunk_bytes)
            at = size = 0
            for seq in range(first, last + 1):
                frame = parse_frame(data, at, base=self._offset)
                if frame is None or frame.seq != seq:
                    break  # the chunk ends within it
                if records and size + len(frame.payload) > bytes_max:
                    break
                records.append(frame.payload)
                size += len(frame.payload)
                at = frame.end
            if records:
                break
        if not records:
            raise ReadFailed(f"record {first} can't be read any more")
        for record in records:
            self._hash = chain(self._hash, record)
        self._offset += at
        self._next_seq = first + len(records)
        return Batch(first, tuple(records), previous, self._hash)

    def _chunk(self, segment: Segment, size_bytes: int) -> bytes:
        with segment.path.open("rb", buffering=0) as file:
            file.seek(self._offset)
            return file.read(min(size_bytes, segment.end - self._offset))


def _holding(segments: Sequence[Segment], seq: int) -> Segment | None:
    """Return the segment with this record, or else the next one behind it that has records."""
    for segment in segments:
        if segment.next_seq > seq and segment.next_seq > segment.first_seq:
            return segment
    return None
