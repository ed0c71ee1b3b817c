"""What the loop's messages say, read strictly: every count, every terminator, every last byte.

PostgreSQL documentation, chapter "Frontend/Backend Protocol", "Message Formats". Counts of 16 bits
are unsigned, as servers read them; lengths of values are signed, -1 is NULL. A name is cut at 63
bytes where it is a key, as servers do: two names with the same first 63 bytes are one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct

from agent.protocols.postgres.frames import Fields, Malformed, strict_text

NAME_BYTES = 63  # NAMEDATALEN - 1: what a server keeps of a statement's or portal's name
_count = Struct("!H").unpack_from
_int32 = Struct("!i").unpack_from


@dataclass(frozen=True, slots=True)
class Parse:
    """Make a prepared statement."""

    name: bytes
    text: str


@dataclass(slots=True)
class Bind:
    """Make a portal of a statement and values. formats: one for all, one each, or none (text)."""

    portal: bytes
    statement: bytes
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Named:
    """Describe or Close: a statement (b"S") or a portal (b"P")."""

    what: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a portal; most: rows before it is suspended, 0 for all."""

    portal: bytes
    most: int


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """Call a function by its object id."""

    function: int
    arguments: int


def parse_query(payload: bytes) -> str:
    """Return a Query's text.

    Raises:
        Malformed: not exactly one NUL at the end, or not UTF-8 (of every function here).
    """
    if not payload or payload.find(0) != len(payload) - 1:
        raise Malformed("a query's text has not exactly one NUL, at its end")
    return strict_text(payload[:-1])


def parse_parse(payload: bytes) -> Parse:
    """Return a Parse; the types of its parameters stay as they are."""
    name, at = _cstring(payload, 0)
    text, at = _cstring(payload, at)
    types, at = _number(payload, at)
    if at + 4 * types != len(payload):
        raise Malformed("a Parse's types do not fit its message")
    return Parse(_key(name), strict_text(text))


def parse_bind(payload: bytes) -> Bind:
    """Return a Bind."""
    portal, at = _cstring(payload, 0)
    statement, at = _cstring(payload, at)
    formats, at = _formats(payload, at)
    values, at = _values(payload, at)
    _, at = _formats(payload, at)
    if at != len(payload):
        raise Malformed("bytes behind a message's last field")
    return Bind(_key(portal), _key(statement), formats, values)


def parse_named(payload: bytes) -> Named:
    """Return a Describe or a Close."""
    what = payload[:1]
    if what not in {b"S", b"P"}:
        raise Malformed("neither a statement nor a portal is named")
    name, at = _cstring(payload, 1)
    if at != len(payload):
        raise Malformed("bytes behind a message's last field")
    return Named(what, _key(name))


def parse_execute(payload: bytes) -> Execute:
    """Return an Execute."""
    name, at = _cstring(payload, 0)
    if at + 4 != len(payload):
        raise Malformed("an Execute's row limit does not fit its message")
    return Execute(_key(name), max(0, _int32(payload, at)[0]))


def parse_function_call(payload: bytes) -> FunctionCall:
    """Return a FunctionCall."""
    fields = Fields(payload)
    function = fields.uint32()
    for _ in range(fields.count()):
        fields.int16()
    arguments = fields.count()
    for _ in range(arguments):
        fields.value()
    fields.int16()
    fields.end()
    return FunctionCall(function, arguments)


def parse_copy_fail(payload: bytes) -> str:
    """Return why the loop ends a COPY."""
    return parse_query(payload)


def parse_empty(payload: bytes) -> None:
    """Take the payload of a message that has none."""
    if payload:
        raise Malformed("bytes behind a message's last field")


def _key(name: bytes) -> bytes:
    if len(name) <= NAME_BYTES and name.isascii():
        return name
    strict_text(name)
    return name[:NAME_BYTES]


def _cstring(payload: bytes, at: int) -> tuple[bytes, int]:
    end = payload.find(0, at)
    if end < 0:
        raise Malformed("a text has no end within its message")
    return payload[at:end], end + 1


def _number(payload: bytes, at: int) -> tuple[int, int]:
    if at + 2 > len(payload):
        raise Malformed("a count does not fit its message")
    number: int = _count(payload, at)[0]
    return number, at + 2


def _formats(payload: bytes, at: int) -> tuple[tuple[int, ...], int]:
    count, at = _number(payload, at)
    end = at + 2 * count
    if end > len(payload):
        raise Malformed("format codes do not fit their message")
    if count == 1:
        return _count(payload, at), end
    return _shorts(count)(payload, at) if count else (), end


def _values(payload: bytes, at: int) -> tuple[tuple[bytes | None, ...], int]:
    count, at = _number(payload, at)
    size = len(payload)
    values: list[bytes | None] = []
    for _ in range(count):
        if at + 4 > size:
            raise Malformed("a value's length does not fit its message")
        length = _int32(payload, at)[0]
        at += 4
        if length == -1:
            values.append(None)
            continue
        if length < 0 or length > size - at:
            raise Malformed("a value does not fit its message")
        values.append(payload[at : at + length])
        at += length
    return tuple(values), at


def _shorts(count: int) -> Callable[[bytes, int], tuple[int, ...]]:
    return Struct(f"!{count}H").unpack_from
