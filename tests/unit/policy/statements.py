"""Statements as a classifier tells them, and grants to decide them by."""

from agent.model.grant import Grant
from agent.model.ids import LoopName, OperationId, RunId, TargetName
from agent.model.operation import Operation
from agent.model.sql import Call, Column, Effect, Relation, Statement
from agent.model.verdict import Allow, Deny
from agent.policy.compile import compile_grant, compile_target
from agent.policy.evaluate import evaluate
from tests.unit.policy.samples import parse

DB = TargetName("db")


def grant(*rules: str, target: str = "") -> Grant:
    """A grant of loop l at target db, by these rules."""
    written = "".join(f"      - {{target: db, {rule}}}\n" for rule in rules) or "      []\n"
    policy = parse(
        f"targets:\n  db: {{protocol: postgres, address: db.example{target}}}\n"
        f"loops:\n  l:\n    rules:\n{written}"
    )
    compiled = compile_target(policy.targets[DB], {})
    return compile_grant(policy, policy.loops[LoopName("l")], compiled, RunId("r"), 0)


def operation(*statements: Statement, text: str = "…") -> Operation:
    """A query of these statements."""
    return Operation(OperationId("o"), "postgres", "query", text, (), statements)


def relation(written: str) -> Relation:
    """Schema and name, or a name alone."""
    schema, _, name = written.rpartition(".")
    return Relation(schema, name)


def column(written: str) -> Column:
    """Table and name, or a name alone."""
    table, _, name = written.rpartition(".")
    return Column(table, name)


def read(*tables: str, columns: tuple[str, ...] = (), calls: tuple[Call, ...] = ()) -> Statement:
    """SELECT from these tables."""
    return Statement(
        "SELECT",
        frozenset({Effect.READ}),
        reads=tuple(map(relation, tables)),
        columns_read=tuple(map(column, columns)),
        calls=calls,
        returns_rows=True,
    )


def write(
    *tables: str, kind: str = "UPDATE", columns: tuple[str, ...] = (), unbounded: bool = False
) -> Statement:
    """UPDATE or DELETE of these tables."""
    return Statement(
        kind,
        frozenset({Effect.WRITE}),
        writes=tuple(map(relation, tables)),
        columns_written=tuple(map(column, columns)),
        unbounded=unbounded,
    )


def ddl(*tables: str, kind: str = "DROP TABLE") -> Statement:
    """DROP of these tables."""
    return Statement(kind, frozenset({Effect.DDL}), writes=tuple(map(relation, tables)))


def call(written: str, effect: Effect = Effect.UNKNOWN) -> Call:
    """A call, of what effect."""
    one = relation(written)
    return Call(one.schema, one.name, effect)


BEGIN = Statement("BEGIN", frozenset({Effect.SESSION}))
COMMIT = Statement("COMMIT", frozenset({Effect.SESSION}))
DO = Statement("DO", frozenset({Effect.UNKNOWN}), why="the body of DO is a program")


READ = "allow: {effects: [read]}"
WRITE = "allow: {effects: [read, write]}"
ALL = "allow: {effects: [read, write, ddl, privilege, session, admin, unknown], unbounded: true}"


def ask(
    rules: list[str], *statements: Statement, text: str = "…", target: str = ""
) -> Allow | Deny:
    """Decide a query of these statements by these rules."""
    return evaluate(grant(*rules, target=target), operation(*statements, text=text))


def allows(rules: list[str], *statements: Statement, target: str = "") -> bool:
    """Whether it is allowed."""
    return isinstance(ask(rules, *statements, target=target), Allow)


def denial(rules: list[str], *statements: Statement, target: str = "") -> Deny:
    """Return the refusal."""
    verdict = ask(rules, *statements, target=target)
    assert isinstance(verdict, Deny)
    return verdict
