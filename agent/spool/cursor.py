"""What the collector has acknowledged. Losing this file loses nothing: records are sent again."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from agent.spool.files import place
from agent.spool.format import GENESIS

NAME = "cursor"
_BODY = struct.Struct("<8sQ32s")
_CRC = struct.Struct("<I")
_MAGIC = b"LWCURSR1"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to seq is on the collector's stable storage, and hashes to this."""

    seq: int
    hash: bytes


NOTHING = Cursor(0, GENESIS)


def read_cursor(directory: Path) -> Cursor:
    """Return the cursor; a missing or damaged file is the cursor at 0."""
    try:
        data = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return NOTHING
    if len(data) != _BODY.size + _CRC.size:
        return NOTHING
    magic, seq, digest = _BODY.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _BODY.size)
    if magic != _MAGIC or crc != zlib.crc32(data[: _BODY.size]):
        return NOTHING
    return Cursor(seq, digest)


def write_cursor(directory: Path, cursor: Cursor) -> None:
    """Store the cursor durably. Only after this may acknowledged segments be unlinked."""
    body = _BODY.pack(_MAGIC, cursor.seq, cursor.hash)
    place(directory / NAME, body + _CRC.pack(zlib.crc32(body)))
