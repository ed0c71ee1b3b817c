"""Start-up: all state is derived from the segments. Nothing acknowledged is ever deleted here."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from agent.spool.cursor import Cursor, read_cursor
from agent.spool.files import place, sync_directory
from agent.spool.format import (
    GENESIS,
    Header,
    SegmentUnreadable,
    frames,
    highest_seq,
    parse_header,
    scan,
)

SUFFIX = ".seg"
QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Segment:
    """A readable segment: records first_seq … next_seq - 1, in file bytes up to `end`."""

    path: Path
    header: Header
    next_seq: int
    hash: bytes  # after its last record
    end: int

    @property
    def first_seq(self) -> int:
        """Number of its first record."""
        return self.header.first_seq


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the directory holds. problems are for people, and each is an alarm."""

    segments: tuple[Segment, ...]
    cursor: Cursor
    next_seq: int
    hash: bytes
    problems: tuple[str, ...]

    @property
    def note(self) -> bytes:
        """The note of the last segment, empty on a new spool."""
        return self.segments[-1].header.note if self.segments else b""


def segment_name(first_seq: int) -> str:
    """Return the file's name; names sort as numbers do."""
    return f"{first_seq:020d}{SUFFIX}"


def payloads(segment: Segment) -> list[bytes]:
    """Return the records of one segment."""
    data = segment.path.read_bytes()[: segment.end]
    return [frame.payload for frame in frames(data, parse_header(data))]


def recover(directory: Path) -> Recovered:
    """Read every segment, cut the torn tail of the last one, and put damage aside.

    A torn tail is cut only behind the last valid frame of the last segment, and only when nothing
    behind it proves that it was durable. Whatever else can't be read is linked into quarantine/
    (and stays there for ever), and the chain goes on behind it with a gap that is marked.

    Raises:
        OSError: the directory can't be used, or the last segment can't be made durable.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in directory.glob("*.tmp"):
        left_over.unlink()  # never renamed into place, so never acknowledged
    cursor = read_cursor(directory)
    paths = sorted(directory.glob("*" + SUFFIX))
    segments: list[Segment] = []
    problems: list[str] = []
    seen = max(cursor.seq, _seen_aside(directory))
    for path in paths:
        segment, segment_seen = _read(path, problems, is_last=path == paths[-1])
        seen = max(seen, segment_seen)
        if segment is not None:
            segments.append(segment)
    next_seq, digest = _head(segments, cursor)
    if seen >= next_seq:
        if problems:  # found now; at later starts it is known
            problems.append(f"records {next_seq} to {seen} can't be read")
        next_seq = seen + 1
    return Recovered(tuple(segments), cursor, next_seq, digest, tuple(problems))


def _seen_aside(directory: Path) -> int:
    """Return the highest number in quarantine: it was given out, so it may not be again."""
    return max((highest_seq(path.read_bytes()) for path in _aside(directory)), default=0)


def _aside(directory: Path) -> list[Path]:
    return sorted((directory / QUARANTINE).glob("*"))


def _head(segments: list[Segment], cursor: Cursor) -> tuple[int, bytes]:
    """Return the next number and the chain hash before it."""
    if segments and segments[-1].next_seq > cursor.seq:
        return segments[-1].next_seq, segments[-1].hash
    return (cursor.seq + 1, cursor.hash) if cursor.seq else (1, GENESIS)


def _read(path: Path, problems: list[str], *, is_last: bool) -> tuple[Segment | None, int]:
    """Return the segment if its header can be read, and the highest number seen in the file."""
    data = b""
    try:
        data = path.read_bytes()
        result = scan(data)
        if path.name != segment_name(result.header.first_seq):
            raise SegmentUnreadable("the name is of another segment")
    except (SegmentUnreadable, OSError) as error:
        _quarantine(path, str(error), problems)
        path.unlink()  # the link in quarantine/ stays
        return None, highest_seq(data)
    intact = result.end == len(data)
    if result.damaged or (not intact and not is_last):
        _quarantine(path, f"damaged at byte {result.end}", problems)
    if is_last:
        _settle(path, data[: result.end], intact=intact)
    segment = Segment(path, result.header, result.next_seq, result.hash, result.end)
    return segment, result.seen_seq if result.damaged else result.next_seq - 1


def _settle(path: Path, data: bytes, *, intact: bool) -> None:
    """Make the last segment durable in a new file.

    After a failed fsync the page cache shows bytes that the disk does not have; only writing
    them again makes them durable. Without space for a copy the tail is cut in place.
    """
    try:
        place(path, data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not intact:
                os.ftruncate(fd, len(data))
            os.fsync(fd)
        finally:
            os.close(fd)


def _quarantine(path: Path, why: str, problems: list[str]) -> None:
    """Link the file into quarantine/, durably, once; the same damage is reported once."""
    aside = path.parent / QUARANTINE
    aside.mkdir(mode=0o700, exist_ok=True)
    number = 0
    while (link := aside / f"{path.name}.{number}").exists():
        if link.samefile(path):
            return
        number += 1
    os.link(path, link)
    sync_directory(aside)
    sync_directory(path.parent)
    problems.append(f"segment {path.name} quarantined: {why}")
