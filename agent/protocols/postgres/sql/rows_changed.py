"""Rules for SELECT, INSERT, UPDATE, DELETE, MERGE, COPY: what is read, written, and how much."""

from collections.abc import Iterable

from agent.model.sql import Column, Effect
from agent.protocols.postgres.sql.conditions import always_true
from agent.protocols.postgres.sql.expressions import set_config
from agent.protocols.postgres.sql.facts import (
    Facts,
    Node,
    qualified,
    relation_of,
    sources,
    strings,
)
from agent.protocols.postgres.sql.scope import Around, depends, names_of
from agent.protocols.postgres.sql.walk import Rule

_RELATION = frozenset({"relation"})


def select(facts: Facts, node: Node) -> frozenset[str]:
    """A query: its stars, its locks, and INTO, which makes a table."""
    found = list(sources(node.get("fromClause", []), facts.names))
    if _has_star(node.get("targetList", [])):
        for source in found:
            facts.columns_read[Column(source.get("relname", ""), "*")] = None
    if node.get("lockingClause"):
        facts.effects.add(Effect.WRITE)  # a read-only transaction refuses it (25006)
        for source in found:
            facts.write(source)
    into = node.get("intoClause")
    if into:
        facts.effects.add(Effect.DDL)
        facts.write(into["rel"])
    done = frozenset({"intoClause", "lockingClause"})
    return done | {"targetList"} if _sets_if_known(facts, node) else done


_SHAPE = frozenset({"targetList", "fromClause", "whereClause", "limitOption", "op"})


def _sets_if_known(facts: Facts, node: Node) -> bool:
    """SELECT set_config(name, 'v', false) FROM pg_settings WHERE name = 'n': so asks pg_dump."""
    targets, tables = node.get("targetList", []), node.get("fromClause", [])
    if not _SHAPE.issuperset(node) or len(targets) != 1 or len(tables) != 1:
        return False
    call = targets[0].get("ResTarget", {}).get("val", {}).get("FuncCall", {})
    schema, function = qualified(strings(call.get("funcname", [])))
    arguments = call.get("args", [])
    source = tables[0].get("RangeVar", {})
    where = node.get("whereClause", {}).get("A_Expr", {})
    wanted = (
        function == "set_config"
        and schema in {"", "pg_catalog"}
        and len(arguments) == 3
        and source.get("relname") == "pg_settings"
        and source.get("schemaname", "pg_catalog") == "pg_catalog"
        and "alias" not in source
        and where.get("kind") == "AEXPR_OP"
        and strings(where.get("name", [])) == ("=",)
        and all(_is_name(item) for item in (arguments[0], where.get("lexpr", {})))
        and "A_Const" in where.get("rexpr", {})
    )
    if wanted:
        set_config(facts, schema, [where["rexpr"], *arguments[1:]])
    return wanted


def _is_name(node: Node) -> bool:
    return strings(node.get("ColumnRef", {}).get("fields", [])) == ("name",)


def _has_star(targets: Iterable[Node]) -> bool:
    for target in targets:
        fields = target.get("ResTarget", {}).get("val", {}).get("ColumnRef", {}).get("fields", ())
        if len(fields) == 1 and "A_Star" in fields[0]:
            return True
    return False


def _target(facts: Facts, node: Node) -> str:
    """Note the relation that is changed, and what RETURNING gives of it; return its name."""
    relation = node["relation"]
    facts.write(relation)
    table = relation_of(relation).name
    returning = node.get("returningClause")
    if returning:
        facts.returns_rows = True
        facts.reads[relation_of(relation)] = None
        named = [option.get("ReturningOption", {}) for option in returning.get("options", [])]
        for alias in ("old", "new", *(option.get("value", "") for option in named)):
            facts.aliases.setdefault(alias, {})[table] = None
        if _has_star(returning.get("exprs", [])):
            facts.columns_read[Column(table, "*")] = None
            others = [*node.get("fromClause", []), *node.get("usingClause", [])]
            for source in sources([*others, node.get("sourceRelation", {})], facts.names):
                facts.columns_read[Column(source.get("relname", ""), "*")] = None
    if relation.get("relname") == "pg_settings":  # a view whose rule calls set_config
        facts.settings.append(("?", "?"))
    if _catalog(relation):
        facts.effects.add(Effect.ADMIN)
    return table


def _catalog(relation: Node) -> bool:
    schema = relation.get("schemaname", "")
    name = relation.get("relname", "")
    return schema in {"pg_catalog", "pg_toast"} or (not schema and name.startswith("pg_"))


def _written(facts: Facts, table: str, targets: Iterable[Node]) -> None:
    for target in targets:
        name = target.get("ResTarget", {}).get("name")
        if name:
            facts.columns_written[Column(table, name)] = None


def insert(facts: Facts, node: Node) -> frozenset[str]:
    """INSERT, with what ON CONFLICT would do."""
    table = _target(facts, node)
    if "cols" in node:
        _written(facts, table, node["cols"])
    elif "selectStmt" in node:
        facts.columns_written[Column(table, "*")] = None
    conflict = node.get("onConflictClause")
    if conflict:
        facts.aliases.setdefault("excluded", {})[table] = None
        _written(facts, table, conflict.get("targetList", []))
        _arbiter(facts, table, conflict.get("infer", {}))
        if "infer" in conflict:
            facts.reads[relation_of(node["relation"])] = None
    return _RELATION


def _arbiter(facts: Facts, table: str, infer: Node) -> None:
    """What ON CONFLICT compares tells of rows that are there; a constraint may be on any column."""
    if "conname" in infer:
        facts.columns_read[Column(table, "*")] = None
    for item in infer.get("indexElems", []):
        name = item.get("IndexElem", {}).get("name")
        if name:
            facts.columns_read[Column(table, name)] = None


def _depends_on_rows(facts: Facts, node: Node, *fields: str) -> None:
    """A change that looks at rows, to find them or to make new ones, reads its target."""
    if any(depends(node.get(field, {})) for field in fields):
        facts.reads[relation_of(node["relation"])] = None


def _around(node: Node, sources: Iterable[Node]) -> Around:
    relation = node["relation"]
    name = next(names_of([{"RangeVar": relation}]))
    return Around(relation_of(relation), name, frozenset(names_of(sources)))


def update(facts: Facts, node: Node) -> frozenset[str]:
    """UPDATE."""
    table = _target(facts, node)
    _written(facts, table, node.get("targetList", []))
    _depends_on_rows(facts, node, "whereClause", "targetList")
    around = _around(node, node.get("fromClause", []))
    facts.unbounded |= always_true(node.get("whereClause"), around)
    return _RELATION


def delete(facts: Facts, node: Node) -> frozenset[str]:
    """DELETE."""
    _target(facts, node)
    _depends_on_rows(facts, node, "whereClause")
    around = _around(node, node.get("usingClause", []))
    facts.unbounded |= always_true(node.get("whereClause"), around)
    return _RELATION


def merge(facts: Facts, node: Node) -> frozenset[str]:
    """MERGE: each arm may have a condition; rows matched by a constant have none."""
    table = _target(facts, node)
    _depends_on_rows(facts, node, "joinCondition", "mergeWhenClauses")
    around = _around(node, [node.get("sourceRelation", {})])
    everything = always_true(node.get("joinCondition"), around)
    for arm in node.get("mergeWhenClauses", []):
        clause = arm["MergeWhenClause"]
        command = clause.get("commandType")
        targets = clause.get("targetList", [])
        if command == "CMD_INSERT" and not targets:
            facts.columns_written[Column(table, "*")] = None
        _written(facts, table, targets)
        every = always_true(clause.get("condition"), around)
        if command in {"CMD_UPDATE", "CMD_DELETE"} and every:
            by_source = clause.get("matchKind") == "MERGE_WHEN_NOT_MATCHED_BY_SOURCE"
            facts.unbounded |= everything or by_source
    return _RELATION


def copy(facts: Facts, node: Node) -> frozenset[str]:
    """COPY: which way, and whether a file or a program of the server is at the other end."""
    into = bool(node.get("is_from"))
    if node.get("is_program") or node.get("filename"):
        facts.effects.add(Effect.ADMIN)
    facts.effects.add(Effect.WRITE if into else Effect.READ)
    relation = node.get("relation")
    if relation:
        table = relation_of(relation).name
        chosen = strings(node.get("attlist", [])) or ("*",)
        columns = {Column(table, name): None for name in chosen}
        if into:
            facts.write(relation)
            facts.columns_written.update(columns)
            if relation.get("relname") == "pg_settings":
                facts.settings.append(("?", "?"))
            if _catalog(relation):
                facts.effects.add(Effect.ADMIN)
        else:
            facts.read(relation)
            facts.columns_read.update(columns)
    return frozenset({"relation", "attlist"})


ROWS_CHANGED: dict[str, Rule] = {
    "SelectStmt": select,
    "InsertStmt": insert,
    "UpdateStmt": update,
    "DeleteStmt": delete,
    "MergeStmt": merge,
    "CopyStmt": copy,
}
