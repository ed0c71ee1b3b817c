"""From text to what it does: limits, the server's own parser, one walk a statement."""

from collections.abc import Mapping
from typing import Final

import msgspec

from agent.model.sql import Classified, Effect, Statement, unknown
from agent.protocols.postgres.sql import library
from agent.protocols.postgres.sql.columns import resolve
from agent.protocols.postgres.sql.commands import command
from agent.protocols.postgres.sql.definitions import DEFINITIONS
from agent.protocols.postgres.sql.expressions import EXPRESSIONS
from agent.protocols.postgres.sql.facts import Facts, Node
from agent.protocols.postgres.sql.nesting import too_deep
from agent.protocols.postgres.sql.normal import normalized
from agent.protocols.postgres.sql.objects import OBJECTS
from agent.protocols.postgres.sql.rows_changed import ROWS_CHANGED
from agent.protocols.postgres.sql.session_state import SESSION_STATE
from agent.protocols.postgres.sql.walk import NESTING_MAX, Rule, TooDeep, walk
from agent.protocols.postgres.sql.words import words

# Longer text is UNKNOWN: an INSERT of that length takes one second of CPU time here, a list of
# different columns three, one of calls five, which is all that a child gets (runtime.expendable).
CLASSIFY_BYTES_MAX: Final = 1 << 20
STATEMENTS_MAX: Final = 10_000

# statements that may name a prepared one or a cursor themselves, and not in a function's body
_NAMING = words(
    """
PrepareStmt ExecuteStmt DeallocateStmt ExplainStmt CreateTableAsStmt DeclareCursorStmt
ClosePortalStmt
"""
)

RULES: Mapping[str, Rule] = {
    **EXPRESSIONS,
    **ROWS_CHANGED,
    **SESSION_STATE,
    **OBJECTS,
    **DEFINITIONS,
}
_DEEP = f"it nests deeper than {NESTING_MAX} levels of the syntax tree"
_CHAINED = "it has longer chains of operators, joins or comments than are classified"


def classify(text: str) -> Classified:
    """Say what each statement of the text does.

    The text is what the server gets with client_encoding UTF8 and standard_conforming_strings
    on; with other settings it may mean something else. It never raises: what is too long, too
    deep or no SQL of this grammar is UNKNOWN, with the reason. Text without a statement has none.
    """
    try:
        sql = text.encode()
    except UnicodeEncodeError:
        return unknown("it is not valid UTF-8")
    if b"\0" in sql:
        return unknown("it has a zero byte")
    if len(sql) > CLASSIFY_BYTES_MAX:
        return unknown(f"it is longer than the {CLASSIFY_BYTES_MAX} bytes that are classified")
    if too_deep(text):
        return unknown(_CHAINED)
    try:
        tree = library.parse(sql)
    except library.Refused:
        return unknown(f"it does not parse as {library.GRAMMAR} (libpg_query)")
    try:
        return _classified(text, sql, msgspec.json.decode(tree).get("stmts", []))
    except (TooDeep, RecursionError):
        return unknown(_DEEP)


def _classified(text: str, sql: bytes, raw: list[Node]) -> Classified:
    if len(raw) > STATEMENTS_MAX:
        return unknown(f"it has more than {STATEMENTS_MAX} statements")
    # a statement without a tree would be one that the grammar's JSON cannot say
    nodes: list[tuple[str, Node]] = [
        next(iter(item.get("stmt", {}).items()), ("", {})) for item in raw
    ]
    statements = tuple(_statement(kind, node) for kind, node in nodes)
    since = max((call.since for one in statements for call in one.calls), default=0)
    return Classified(statements, normalized(text, sql, [kind for kind, _ in nodes]), since)


def _statement(kind: str, node: Node) -> Statement:
    facts = Facts()
    walk(facts, RULES, kind, node)
    resolve(facts)
    _rows(facts, kind, node)
    if kind == "ExplainStmt" and facts.planned:
        _plan(facts)
    return Statement(
        kind=command(kind, node),
        effects=frozenset(facts.effects or {Effect.UNKNOWN}),
        reads=tuple(facts.reads),
        writes=tuple(facts.writes),
        columns_read=tuple(facts.columns_read),
        columns_written=tuple(facts.columns_written),
        calls=tuple(facts.calls),
        unbounded=facts.unbounded,
        returns_rows=facts.returns_rows,
        why="; ".join(facts.whys),
        prepared=facts.prepared if kind in _NAMING else "",
        settings=tuple(facts.settings),
        makes=tuple(facts.makes),
    )


def _rows(facts: Facts, kind: str, node: Node) -> None:
    """Whether rows come back is the outermost statement's to say."""
    if kind == "SelectStmt":
        facts.returns_rows = "intoClause" not in node
    elif kind in {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"}:
        facts.returns_rows = "returningClause" in node
    elif kind == "ExplainStmt":
        facts.returns_rows = True
    elif kind in {"PrepareStmt", "DeclareCursorStmt", "CopyStmt", "CreateTableAsStmt", "RuleStmt"}:
        facts.returns_rows = False


def _plan(facts: Facts) -> None:
    """Nothing of what a plain EXPLAIN explains is done; it is read about."""
    kept = {Effect.READ, Effect.UNKNOWN} if facts.whys else {Effect.READ}
    facts.effects &= kept
    facts.effects.add(Effect.READ)
    facts.reads |= facts.writes
    facts.writes = {}
    facts.columns_written = {}
    facts.unbounded = False
