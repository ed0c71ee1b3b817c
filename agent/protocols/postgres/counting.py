"""Walks over runs of messages of one kind without cutting them: what big results cost is here."""

from struct import Struct

from agent.protocols.postgres.frames import Malformed

# One row or piece of copied data with its length. A length below this begins with a byte that no
# password has, so that no secret can go down verbatim across the border of two messages.
BULK_BYTES_MAX = 0x1FFF_FFFF
_header = Struct("!Bi").unpack_from


def run(data: bytes, at: int, kind: int, most: int) -> tuple[int, int]:
    """Return where a run of complete messages of this kind ends, and how many they are.

    at is where the first message begins; most: count no more than so many; -1: no bound.

    Raises:
        Malformed: a message's length is less than itself or more than BULK_BYTES_MAX.
    """
    size = len(data)
    last = size - 5
    header = _header
    count = 0
    while at <= last and count != most:
        found, length = header(data, at)
        if found != kind:
            break
        if not 4 <= length <= BULK_BYTES_MAX:
            raise Malformed("a message whose length may not be")
        end = at + 1 + length
        if end > size:
            break
        at = end
        count += 1
    return at, count
