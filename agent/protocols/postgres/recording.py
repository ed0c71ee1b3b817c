"""What is recorded of an operation: its text, values and facts, all bounded.

A text or value over its bound is kept as head, SHA-256 and tail: it is identified by what
is recorded, and what is forwarded is the whole. With literals normalized neither literals nor
values are recorded.
"""

import hashlib
from dataclasses import replace

from agent.model.ids import OperationId
from agent.model.operation import Operation
from agent.model.redaction_sql import redact_sql
from agent.model.sql import Classified, Effect, Statement
from agent.model.verdict import Allow, Deny, Literals
from agent.protocols.postgres.answers import NAME
from agent.protocols.postgres.names import Prepared
from agent.protocols.postgres.requests import Bind

TEXT_BYTES_MAX = 16 * 1024  # of a recorded text in UTF-8
VALUE_CHARS_MAX = 256  # of one recorded value
VALUES_MAX = 64  # recorded values; of all others together the number and a hash
VERB_KINDS_MAX = 8  # commands named in a verb
_HEAD, _TAIL = 150, 50
_TEXT_TAIL = 1024
_PURE = frozenset({Effect.READ})
# they may change what names stand for; "" was not parsed
_WILD = frozenset(
    {"PREPARE", "DEALLOCATE", "DEALLOCATE ALL", "DISCARD ALL", "DECLARE", "CLOSE", ""}
)


def bounded_text(text: str) -> str:
    """Return a query's text for a record."""
    if len(text) * 4 <= TEXT_BYTES_MAX:
        return text
    data = text.encode()
    if len(data) <= TEXT_BYTES_MAX:
        return text
    digest = hashlib.sha256(data).hexdigest()
    head = data[: TEXT_BYTES_MAX - _TEXT_TAIL - 128].decode("utf-8", "ignore")
    return (
        f"{head}…sha256:{digest},{len(data)} bytes…{data[-_TEXT_TAIL:].decode('utf-8', 'ignore')}"
    )


def bounded_value(value: bytes, *, binary: bool) -> str:
    """Return one bound value for a record: text as it is, binary in hexadecimal."""
    if len(value) <= VALUE_CHARS_MAX:
        text = f"\\x{value.hex()}" if binary else value.decode("utf-8", "backslashreplace")
        if len(text) <= VALUE_CHARS_MAX:
            return text
    digest = hashlib.sha256(value).hexdigest()
    if binary:
        head, tail = f"\\x{value[: _HEAD // 2].hex()}", value[-_TAIL // 2 :].hex()
    else:
        head = value[:_HEAD].decode("utf-8", "backslashreplace")[:_HEAD]
        tail = value[-_TAIL:].decode("utf-8", "backslashreplace")[-_TAIL:]
    return f"{head}…sha256:{digest},{len(value)} bytes…{tail}"


def bound_values(bind: Bind) -> tuple[tuple[str, str], ...]:
    """Return a Bind's values as attributes: $1, $2 …; a NULL is named, so that no text is one."""
    formats, values = bind.formats, bind.values
    several = len(formats) > 1
    found: list[tuple[str, str]] = []
    for at, value in enumerate(values[:VALUES_MAX]):
        if value is None:
            found.append((f"${at + 1} is null", ""))
            continue
        code = 0
        if formats:
            code = formats[at] if several and at < len(formats) else formats[0]
        found.append((f"${at + 1}", bounded_value(value, binary=code != 0)))
    if len(values) > VALUES_MAX:
        digest = hashlib.sha256()
        for value in values[VALUES_MAX:]:
            length = -1 if value is None else len(value)
            digest.update(length.to_bytes(4, "big", signed=True) + (value or b""))
        more = f"{len(values) - VALUES_MAX} values, sha256:{digest.hexdigest()}"
        found.append((f"${VALUES_MAX + 1} and on", more))
    return tuple(found)


def verb_of(statements: tuple[Statement, ...]) -> str:
    """Return the commands of a text: "SELECT", "BEGIN; UPDATE"; "" when nobody knows them."""
    kinds = [statement.kind or "?" for statement in statements[:VERB_KINDS_MAX]]
    if len(statements) > VERB_KINDS_MAX:
        kinds.append("…")
    verb = "; ".join(kinds)
    return "" if verb == "?" else verb


def prepare(text: str, classified: Classified, statements: tuple[Statement, ...]) -> Prepared:
    """Return a statement with what is asked of it more than once."""
    return Prepared(
        text,
        classified,
        statements,
        verb_of(classified.statements),
        bounded_text(redact_sql(text)),  # first: a cut could leave half of a literal
        may_copy=any(map(_may_copy, classified.statements)),
        pure=len(statements) == 1 and _pure(statements[0]),
        wild=any(statement.kind in _WILD for statement in classified.statements),
        returns_rows=any(map(_returns_rows, statements)),
    )


def _may_copy(statement: Statement) -> bool:
    return (
        not statement.kind
        or statement.kind.startswith("COPY")
        or Effect.UNKNOWN in statement.effects
    )


def _returns_rows(statement: Statement) -> bool:
    return statement.returns_rows or Effect.UNKNOWN in statement.effects


def _pure(statement: Statement) -> bool:
    return statement.effects == _PURE and all(
        call.effect is Effect.READ for call in statement.calls
    )


def operation_of(
    operation_id: OperationId, prepared: Prepared, attributes: tuple[tuple[str, str], ...]
) -> Operation:
    """Return what is judged: a statement with its values."""
    return Operation(
        operation_id, NAME, prepared.verb, prepared.shown, attributes, prepared.statements
    )


def as_recorded(operation: Operation, verdict: Allow | Deny, prepared: Prepared) -> Operation:
    """Return an operation as the rule wants it recorded, with what was decided on."""
    if verdict.statements is not None:
        operation = replace(operation, statements=verdict.statements)
    if verdict.literals is Literals.KEEP:
        return operation
    kept = tuple(pair for pair in operation.attributes if not pair[0].startswith("$"))
    shown = bounded_text(prepared.classified.normalized)
    return replace(operation, resource=shown, attributes=kept)
