"""Messages of protocol 3: split from a stream, and read field by field.

A message is a type byte, an int32 length that counts itself, and a payload. What we build is in
`messages`; rows and copied data, which may be large, pass in pieces in the steady half.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.model.reason import Reason

HEADER_BYTES = 5


class Malformed(Exception):
    """Bytes that are no message, or not one that may come now. The text is fixed, safe to show."""

    def __init__(self, detail: str, reason: Reason = Reason.PROTOCOL_ERROR) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Frame:
    """One complete message: its type byte, and the payload behind type and length."""

    kind: int
    payload: bytes = field(repr=False)

    @property
    def wire_bytes(self) -> int:
        """How long it is with its header."""
        return HEADER_BYTES + len(self.payload)


class Splitter:
    """Cuts one side's bytes into messages.

    Args:
        caps: the types that may come, with the most bytes of a payload (agent…limits).
    """

    __slots__ = ("_at", "_caps", "_data", "_large", "_missing")

    def __init__(self, caps: Mapping[int, int]) -> None:
        self._caps = caps
        self._data = b""
        self._at = 0
        self._large = bytearray()  # a message that needs more than what has come
        self._missing = 0  # how many bytes it needs

    @property
    def held(self) -> int:
        """How many bytes are held."""
        return len(self._large) + len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Append bytes of the stream."""
        if self._missing:
            self._large += data
            self._missing -= len(data)
            if self._missing > 0:
                return
            data, self._large, self._missing = bytes(self._large), bytearray(), 0
            self._data, self._at = data, 0
        elif self._at < len(self._data):
            self._data, self._at = self._data[self._at :] + data, 0
        else:
            self._data, self._at = data, 0

    def take_rest(self) -> bytes:
        """Return and forget all bytes that are in no message yet."""
        rest = bytes(self._large) + self._data[self._at :]
        self._data, self._at, self._large, self._missing = b"", 0, bytearray(), 0
        return rest

    def next(self) -> Frame | None:
        """Return the next message, None when more bytes are needed.

        Raises:
            Malformed: a type that may not come, or a length that may not be.
        """
        data, at = self._data, self._at
        if len(data) - at < HEADER_BYTES:
            if at < len(data):
                self._check_kind(data[at])
            return None
        kind = data[at]
        size = self._size(kind, at)
        end = at + HEADER_BYTES + size
        if end > len(data):
            self._large += memoryview(data)[at:]
            self._missing = end - len(data)
            self._data, self._at = b"", 0
            return None
        self._at = end
        return Frame(kind, data[at + HEADER_BYTES : end])

    def _check_kind(self, kind: int) -> int:
        cap = self._caps.get(kind)
        if cap is None:
            raise Malformed("a message of a type that may not come")
        return cap

    def _size(self, kind: int, at: int) -> int:
        """Return the payload's size, once type and length are checked."""
        cap = self._check_kind(kind)
        length = int.from_bytes(self._data[at + 1 : at + HEADER_BYTES], "big", signed=True)
        if length < 4:
            raise Malformed("a message's length is less than the length itself")
        if length - 4 > cap:
            raise Malformed("a message is longer than may be", Reason.LIMIT_EXCEEDED)
        return length - 4


class Fields:
    """Reads one payload, field by field; what is read last has to be `end`."""

    __slots__ = ("_at", "_data")

    def __init__(self, payload: bytes) -> None:
        self._data = payload
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes are not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Return so many bytes.

        Raises:
            Malformed: there are not so many (of every method here).
        """
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise Malformed("a field does not fit its message")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def byte(self) -> int:
        """Return one byte's value."""
        return self.take(1)[0]

    def int16(self) -> int:
        """Return a signed 16 bit number."""
        return int.from_bytes(self.take(2), "big", signed=True)

    def count(self) -> int:
        """Return a 16 bit number of fields that follow: unsigned, as servers read it."""
        return int.from_bytes(self.take(2), "big")

    def int32(self) -> int:
        """Return a signed 32 bit number."""
        return int.from_bytes(self.take(4), "big", signed=True)

    def uint32(self) -> int:
        """Return an unsigned 32 bit number: an object id."""
        return int.from_bytes(self.take(4), "big")

    def value(self) -> bytes | None:
        """Return a value with its length before it; None for the length -1, which is NULL."""
        length = self.int32()
        return None if length == -1 else self.take(length)

    def cstring(self) -> bytes:
        """Return bytes up to a NUL, without it."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise Malformed("a text has no end within its message")
        piece = self._data[self._at : end]
        self._at = end + 1
        return piece

    def text(self) -> str:
        """Return a cstring that is strict UTF-8."""
        return strict_text(self.cstring())

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.left)

    def end(self) -> None:
        """Refuse bytes behind the last field."""
        if self.left:
            raise Malformed("bytes behind a message's last field")


def strict_text(data: bytes) -> str:
    """Return UTF-8 as text.

    Raises:
        Malformed: it is none.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


def without_field(fields: dict[int, bytes], kind: int) -> bytes:
    """Return the payload of an ErrorResponse or NoticeResponse without one of its fields."""
    kept = (bytes((each,)) + text + b"\0" for each, text in fields.items() if each != kind)
    return b"".join(kept) + b"\0"


def report_fields(payload: bytes) -> dict[int, bytes]:
    """Return the fields of an ErrorResponse or NoticeResponse by their type byte, in order.

    Raises:
        Malformed: they do not end as they should, or one comes twice.
    """
    fields = Fields(payload)
    found: dict[int, bytes] = {}
    while kind := fields.byte():
        if kind in found:
            raise Malformed("a field of an error or notice comes twice")
        found[kind] = fields.cstring()
    fields.end()
    return found
