"""Operations cut to what one record takes. What is left out is counted, never silently gone.

A text is kept as head, hash and tail; of statements the first, and all effects; of
attributes the first, and of a long value head, hash and tail.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from agent.model.operation import Operation
from agent.model.sql import Call, Column, Effect, Relation, Statement

RESOURCE_BYTES_MAX = 16 << 10
STATEMENTS_BYTES_MAX = 12 << 10
ATTRIBUTES_BYTES_MAX = 12 << 10
VALUE_BYTES_MAX = 512  # of an attribute's name and value each
TAIL_BYTES = 100
LEFT_OUT = "…"  # the kind of the statement that stands for those left out
_ITEM_BYTES = 40  # the framing of a name, a pair or a call
_STATEMENT_BYTES = 200
Item = TypeVar("Item", Relation, Column, Call, tuple[str, str | None])


def fitted(operation: Operation) -> Operation:
    """Return the operation with each part within its bound."""
    return replace(
        operation,
        resource=cut(operation.resource, RESOURCE_BYTES_MAX, 1_024),
        attributes=_attributes(operation.attributes),
        statements=_statements(operation.statements),
    )


def cut(text: str, bytes_max: int, tail_bytes: int = TAIL_BYTES) -> str:
    """Return a text of at most so many bytes of UTF-8: head, SHA-256 and tail of a longer one."""
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return text
    mark = f"…sha256:{hashlib.sha256(data).hexdigest()},{len(data)} bytes…"
    head = data[: bytes_max - tail_bytes - len(mark.encode())].decode("utf-8", "ignore")
    return head + mark + data[-tail_bytes:].decode("utf-8", "ignore")


def _attributes(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    kept: list[tuple[str, str]] = []
    left = ATTRIBUTES_BYTES_MAX
    for name, value in pairs:
        pair = cut(name, VALUE_BYTES_MAX), cut(value, VALUE_BYTES_MAX)
        left -= _size(*pair)
        if left < 0:
            kept.append((LEFT_OUT, f"and {len(pairs) - len(kept)} more"))
            break
        kept.append(pair)
    return tuple(kept)


def _statements(statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Return the first with the names that fit, and those behind it that fit whole."""
    kept: list[Statement] = []
    left = STATEMENTS_BYTES_MAX
    for number, statement in enumerate(statements):
        one, left = _statement(statement, left)
        if number and (one != statement or left < _STATEMENT_BYTES):
            kept.append(_summary(statements[number:]))
            break
        kept.append(one)
    return tuple(kept)


def _summary(rest: Sequence[Statement]) -> Statement:
    """Return one statement that says what those left out may do together."""
    effects: frozenset[Effect] = frozenset().union(*(one.effects for one in rest))
    called = {call.effect for one in rest for call in one.calls}
    return Statement(
        LEFT_OUT,
        effects | called,
        unbounded=any(one.unbounded for one in rest),
        returns_rows=any(one.returns_rows for one in rest),
        why=f"and {len(rest)} statements more",
    )


def _statement(one: Statement, left: int) -> tuple[Statement, int]:
    """Return a statement whose names fit into so many bytes, and what is left of them."""
    kind, why, prepared = (cut(text, VALUE_BYTES_MAX) for text in (one.kind, one.why, one.prepared))
    left -= _STATEMENT_BYTES + _size(kind, why, prepared)
    reads, left = _items(one.reads, left)
    writes, left = _items(one.writes, left)
    calls, left = _items(one.calls, left)
    written, left = _items(one.columns_written, left)
    read, left = _items(one.columns_read, left)
    settings, left = _items(one.settings, left)
    some = (reads, writes, calls, written, read, settings)
    every = (one.reads, one.writes, one.calls, one.columns_written, one.columns_read, one.settings)
    gone = sum(map(len, every)) - sum(map(len, some))
    return (
        replace(
            one,
            kind=kind,
            reads=reads,
            writes=writes,
            calls=calls,
            columns_written=written,
            columns_read=read,
            settings=settings,
            prepared=prepared,
            why=f"{why}{'; ' if why else ''}{gone} names are left out" if gone else why,
        ),
        left,
    )


def _items(items: tuple[Item, ...], left: int) -> tuple[tuple[Item, ...], int]:
    kept: list[Item] = []
    for item in items:
        size = _size(*_texts(item))
        if size > left:
            break
        left -= size
        kept.append(item)
    return tuple(kept), left


def _texts(item: Relation | Column | Call | tuple[str, str | None]) -> tuple[str, ...]:
    match item:
        case Relation(schema, name) | Call(schema, name, _):
            return schema, name
        case Column(table, name):
            return table, name
        case (name, value):
            return name, value or ""


def _size(*texts: str) -> int:
    return _ITEM_BYTES + sum(len(text.encode("utf-8", "replace")) for text in texts)
