"""Protobuf by hand for the two hot kinds: the bytes of the generated code in half the time.

Fields are written in the order of their numbers and left out when they have the default value, as
protobuf's own serialiser does (https://protobuf.dev/programming-guides/encoding). What operations
of one session have in common is serialised once and kept.
"""

from agent.model.audit import OperationFinished, OperationIntended
from agent.model.operation import Operation
from agent.model.redaction_sql import redact_sql
from agent.model.sql import Effect, Statement

KEPT_MAX = 4_096  # serialised groups of fields; past it all are forgotten
KEPT_BYTES_MAX = 512  # of one of them; longer ones are not kept
_UINT64 = 1 << 64
_PAIR = 1 << 14  # two groups of seven bits


def _short(number: int) -> bytes:
    return bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))


_LAST = tuple(_short(number) for number in range(_PAIR))
_MORE = tuple(bytes((number & 0x7F | 0x80, number >> 7 | 0x80)) for number in range(_PAIR))
_TEXT_HEADS = tuple(  # of a field with a text of less than 128 bytes
    tuple(bytes((field << 3 | 2, size)) for size in range(0x80)) for field in range(16)
)
_kept: dict[object, bytes] = {}


def varint(number: int) -> bytes:
    """Return an unsigned integer of at most 64 bits.

    Raises:
        ValueError: it does not fit.
    """
    if 0 <= number < _PAIR:
        return _LAST[number]
    if not 0 <= number < _UINT64:
        raise ValueError(f"{number} does not fit 64 bits")
    parts = b""
    while number >= _PAIR:
        parts += _MORE[number & _PAIR - 1]
        number >>= 14
    return parts + _LAST[number]


def text(field: int, value: str) -> bytes:
    """Return a string field (numbers up to 15), nothing for "".

    Raises:
        UnicodeEncodeError: a lone surrogate.
    """
    if not value:
        return b""
    data = value.encode()
    size = len(data)
    if size < 0x80:
        return _TEXT_HEADS[field][size] + data
    return _LAST[field << 3 | 2] + varint(size) + data


def number(field: int, value: int) -> bytes:
    """Return an unsigned integer field (numbers up to 15), nothing for 0."""
    if 0 < value < _PAIR:
        return _LAST[field << 3] + _LAST[value]
    return _LAST[field << 3] + varint(value) if value else b""


def message(field: int, body: bytes) -> bytes:
    """Return a sub-message field, also when it is empty (numbers up to 2,047)."""
    size = len(body)
    return _LAST[field << 3 | 2] + (_LAST[size] if size < _PAIR else varint(size)) + body


def texts(first: int, *values: str) -> bytes:
    """Return string fields with consecutive numbers, from what was kept if they were seen."""
    key = (first, values)
    found = _kept.get(key)
    if found is None:
        found = b"".join([text(field, value) for field, value in enumerate(values, first)])
        _keep(key, found)
    return found


def _keep(key: object, data: bytes) -> None:
    if len(data) <= KEPT_BYTES_MAX:
        if len(_kept) >= KEPT_MAX:
            _kept.clear()
        _kept[key] = data


_EFFECTS = {effect: text(2, effect) for effect in sorted(Effect)}
_UNBOUNDED, _RETURNS_ROWS = number(8, 1), number(9, 1)


def record_head(boot_id: str, unix_ms: int, monotonic_ns: int) -> bytes:
    """Return fields 2 to 4 of a Record."""
    return text(2, boot_id) + number(3, unix_ms) + number(4, monotonic_ns)


def record(seq: int, head: bytes, field: int, event: bytes) -> bytes:
    """Return a Record around a serialised event; head is its fields 2 to 5."""
    size = len(event)
    return b"".join((
        number(1, seq), head, _LAST[field << 3 | 2], _LAST[size] if size < _PAIR else varint(size),
        event,
    ))  # fmt: skip


def operation_intended(event: OperationIntended) -> bytes:
    """Return the event's bytes."""
    common = (event.session_id, event.run_id, event.loop, event.target or "")
    last = (event.rule, event.lease_id or "", event.durability)
    return b"".join((
        _kept.get((1, common)) or texts(1, *common),
        message(5, _operation(event.operation)),
        _kept.get((6, last)) or texts(6, *last),
    ))  # fmt: skip


def _operation(one: Operation) -> bytes:
    kind = (one.protocol, one.verb)
    return b"".join((
        text(1, one.operation_id),
        _kept.get((2, kind)) or texts(2, *kind),
        text(4, redact_sql(one.resource) if one.statements else one.resource),
        _attributes(5, one.attributes) if one.attributes else b"",
        _statements(one.statements) if one.statements else b"",
    ))  # fmt: skip


def _attributes(field: int, pairs: tuple[tuple[str, str], ...]) -> bytes:
    """Return the attributes, from what was kept if they were seen."""
    key = (field, pairs)
    found = _kept.get(key)
    if found is None:
        found = b"".join([message(field, text(1, name) + text(2, value)) for name, value in pairs])
        if not pairs[-1][0].startswith("$"):  # bound values rarely come again
            _keep(key, found)
    return found


def _statements(statements: tuple[Statement, ...]) -> bytes:
    """Return what a text does, from what was kept if it was seen."""
    found = _kept.get(statements)
    if found is None:
        found = b"".join(map(_statement, statements))
        _keep(statements, found)
    return found


def _statement(one: Statement) -> bytes:
    """Return one statement, as field 6 of an operation."""
    parts = [text(1, one.kind)]
    parts += [data for effect, data in _EFFECTS.items() if effect in one.effects]
    parts += [message(3, texts(1, each.schema, each.name)) for each in one.reads]
    parts += [message(4, texts(1, each.schema, each.name)) for each in one.writes]
    parts += [message(5, texts(1, each.table, each.name)) for each in one.columns_read]
    parts += [message(6, texts(1, each.table, each.name)) for each in one.columns_written]
    parts += [message(7, texts(1, each.schema, each.name, each.effect)) for each in one.calls]
    parts += [_UNBOUNDED if one.unbounded else b"", _RETURNS_ROWS if one.returns_rows else b""]
    parts += [text(10, one.why), text(11, one.prepared)]
    parts += [message(12, _setting(*each)) for each in one.settings]
    return message(6, b"".join(parts))


def _setting(name: str, value: str | None) -> bytes:
    return text(1, name) + (number(3, 1) if value is None else text(2, value))


def operation_finished(event: OperationFinished) -> bytes:
    """Return the event's bytes."""
    session, result = (event.session_id,), (event.outcome, event.reason, event.status)
    return b"".join((
        _kept.get((1, session)) or texts(1, *session),
        text(2, event.operation_id),
        _kept.get((3, result)) or texts(3, *result),
        number(6, event.request_bytes),
        number(7, event.response_bytes),
        number(8, event.duration_ns),
        texts(9, event.upstream),
        number(10, event.rows),
        _attributes(11, event.attributes) if event.attributes else b"",
    ))  # fmt: skip
