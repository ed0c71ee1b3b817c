"""Rules for statements about objects: which relations they touch, and whose power they need."""

from collections.abc import Iterable

from agent.model.sql import Column, Effect, Relation
from agent.protocols.postgres.sql.facts import Facts, Node, qualified, relation_of, strings
from agent.protocols.postgres.sql.session_state import language
from agent.protocols.postgres.sql.walk import Rule
from agent.protocols.postgres.sql.words import words

_NOTHING: frozenset[str] = frozenset()
_ACCESS_SHARE = 1  # lockdefs.h
_RELATIONS = frozenset(
    {"TABLE", "VIEW", "MATVIEW", "SEQUENCE", "FOREIGN_TABLE", "INDEX", "COLUMN", "TYPE"}
)
_OF_A_TABLE = frozenset({"TRIGGER", "POLICY", "RULE", "TABCONSTRAINT", "COLUMN"})
_OF_THE_SERVER = words(
    """
EXTENSION FDW FOREIGN_SERVER EVENT_TRIGGER LANGUAGE ACCESS_METHOD PUBLICATION SUBSCRIPTION
DATABASE TABLESPACE USER_MAPPING FOREIGN_TABLE PARAMETER_ACL
"""
)
_OF_ROLES = frozenset({"ROLE", "POLICY", "DEFACL"})
_ROW_SECURITY = words(
    """
AT_ChangeOwner AT_EnableRowSecurity AT_DisableRowSecurity AT_ForceRowSecurity
AT_NoForceRowSecurity
"""
)


def object_type(node: Node) -> str:
    """Return the object's type without its prefix: "TABLE"."""
    for field in ("removeType", "renameType", "objectType", "objtype"):
        if field in node:
            return str(node[field]).removeprefix("OBJECT_")
    return ""


def owned(facts: Facts, node: Node) -> frozenset[str]:
    """The relation that the statement is about is written."""
    for field in ("relation", "view", "sequence", "table", "typevar", "name"):
        relation = node.get(field)
        if isinstance(relation, dict) and "relname" in relation:
            facts.write(relation)
    _reach(facts, object_type(node))
    return frozenset({"relation", "view", "sequence", "table", "typevar"})


def _reach(facts: Facts, kind: str) -> None:
    if kind in _OF_THE_SERVER:
        facts.effects.add(Effect.ADMIN)
    if kind in _OF_ROLES:
        facts.effects.add(Effect.PRIVILEGE)


def create_table(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE TABLE: rows of one that it is a partition of may come to it."""
    for parent in node.get("inhRelations", []):
        table = parent.get("RangeVar", {}).get("relname", "")
        facts.columns_read[Column(table, "*")] = None
    return owned(facts, node)


def index(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE INDEX: its columns are named by no expression, and a unique one tells of values."""
    table = relation_of(node.get("relation", {})).name
    facts.columns_read[Column(table, "*")] = None
    return owned(facts, node)


def statistics(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE STATISTICS: likewise."""
    for item in node.get("relations", []):
        facts.columns_read[Column(item.get("RangeVar", {}).get("relname", ""), "*")] = None
    return _NOTHING


def constraint(facts: Facts, node: Node) -> frozenset[str]:
    """REFERENCES: whether a value is there is told by what the constraint lets in."""
    if "pktable" in node:
        table = relation_of(node["pktable"]).name
        for name in strings(node.get("pk_attrs", [])) or ("*",):
            facts.columns_read[Column(table, name)] = None
    return _NOTHING


def published(facts: Facts, node: Node) -> frozenset[str]:
    """A table of a publication, all of it or some columns."""
    table = relation_of(node.get("relation", {})).name
    for name in strings(node.get("columns", [])) or ("*",):
        facts.columns_read[Column(table, name)] = None
    return _NOTHING


def partition(facts: Facts, node: Node) -> frozenset[str]:
    """ATTACH and DETACH change the partition, too; all its columns are its parent's, or were."""
    owned(facts, node)
    facts.columns_written[Column(node.get("name", {}).get("relname", ""), "*")] = None
    return frozenset({"name"})


def truncate(facts: Facts, node: Node) -> frozenset[str]:
    """TRUNCATE removes all rows."""
    facts.unbounded = True
    return several(facts, node)


def several(facts: Facts, node: Node) -> frozenset[str]:
    """TRUNCATE, LOCK, GRANT: lists of relations."""
    for field in ("relations", "objects"):
        for item in node.get(field, []):
            if "RangeVar" in item:
                facts.write(item["RangeVar"])
    if node.get("targtype") == "ACL_TARGET_OBJECT":
        _reach(facts, object_type(node))
    return frozenset({"relations", "objects"})


def lock(facts: Facts, node: Node) -> frozenset[str]:
    """LOCK TABLE in the mode that a SELECT takes by itself is a read: pg_dump does it."""
    if node.get("mode") == _ACCESS_SHARE:
        facts.effects.add(Effect.READ)
        return _NOTHING
    facts.effects.add(Effect.WRITE)
    return several(facts, node)


def drop(facts: Facts, node: Node) -> frozenset[str]:
    """DROP: what it is decides who may."""
    kind = object_type(node)
    _reach(facts, kind)
    for item in node.get("objects", []):
        _named(facts, kind, item)
    return _NOTHING


def described(facts: Facts, node: Node) -> frozenset[str]:
    """COMMENT, SECURITY LABEL."""
    _reach(facts, object_type(node))
    _named(facts, object_type(node), node.get("object", {}))
    return _NOTHING


def _named(facts: Facts, kind: str, item: Node) -> None:
    parts = strings(item.get("List", {}).get("items", []))
    if kind in _OF_A_TABLE:
        if kind == "COLUMN" and len(parts) > 1:
            facts.columns_written[Column(parts[-2], parts[-1])] = None
        parts = parts[:-1]
    elif kind not in _RELATIONS:
        return
    if parts:
        facts.writes[Relation(*qualified(parts))] = None


def alter_table(facts: Facts, node: Node) -> frozenset[str]:
    """ALTER TABLE: owner and row security are privileges."""
    table = relation_of(node.get("relation", {})).name
    for item in node.get("cmds", []):
        command = item.get("AlterTableCmd", {})
        if command.get("subtype") in _ROW_SECURITY:
            facts.effects.add(Effect.PRIVILEGE)
        about = "Column" in command.get("subtype", "") and "name" in command
        # INHERIT beside it, say: another table then shows all columns of this one
        facts.columns_written[Column(table, command["name"] if about else "*")] = None
    return owned(facts, node)


def schema(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE SCHEMA … AUTHORIZATION gives it away."""
    if "authrole" in node:
        facts.effects.add(Effect.PRIVILEGE)
    return _NOTHING


def function(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE and ALTER FUNCTION: its language, and whose rights it runs with."""
    options = [*node.get("options", []), *node.get("actions", [])]
    language(facts, options)
    for option in options:
        element = option.get("DefElem", {})
        definer = element.get("arg", {}).get("Boolean", {}).get("boolval")
        if element.get("defname") == "security" and definer:
            facts.effects.add(Effect.PRIVILEGE)
    return _NOTHING


def rule(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE RULE: what its actions do counts as done."""
    table = relation_of(node.get("relation", {})).name
    for alias in ("old", "new"):
        facts.aliases.setdefault(alias, {})[table] = None
    return owned(facts, node)


def into(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE TABLE AS."""
    facts.write(node["into"]["rel"])
    return frozenset({"into"})


def reindex(facts: Facts, node: Node) -> frozenset[str]:
    """REINDEX SYSTEM and DATABASE reach everything."""
    if node.get("kind") in {"REINDEX_OBJECT_SYSTEM", "REINDEX_OBJECT_DATABASE"}:
        facts.effects.add(Effect.ADMIN)
    return owned(facts, node)


def _all(kinds: Iterable[str], chosen: Rule) -> dict[str, Rule]:
    return dict.fromkeys(kinds, chosen)


OBJECTS: dict[str, Rule] = {
    **_all(
        [
            "AlterObjectDependsStmt",
            "AlterOwnerStmt",
            "ClusterStmt",
            "RefreshMatViewStmt",
            "ViewStmt",
            "CreateSeqStmt",
            "AlterSeqStmt",
            "CreatePolicyStmt",
            "AlterPolicyStmt",
            "CompositeTypeStmt",
            "VacuumRelation",
        ],
        owned,
    ),
    "CreateStmt": create_table,
    "IndexStmt": index,
    "CreateStatsStmt": statistics,
    "Constraint": constraint,
    "PublicationTable": published,
    "PartitionCmd": partition,
    "TruncateStmt": truncate,
    "LockStmt": lock,
    "GrantStmt": several,
    "DropStmt": drop,
    "CommentStmt": described,
    "SecLabelStmt": described,
    "AlterTableStmt": alter_table,
    "CreateSchemaStmt": schema,
    "AlterFunctionStmt": function,
    "RuleStmt": rule,
    "CreateTableAsStmt": into,
    "ReindexStmt": reindex,
}
