"""What a walk over one statement's tree collects."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.model.sql import Call, Column, Effect, Relation
from agent.protocols.postgres.sql.functions import effect_of

Node = dict[str, Any]  # of the JSON tree: fields of a node
WHY_BYTES_MAX = 200
# views and tables of pg_catalog with values from other tables' columns
_STATISTICS = frozenset(
    {"pg_statistic", "pg_stats", "pg_statistic_ext_data", "pg_stats_ext", "pg_stats_ext_exprs"}
)
# of pg_catalog; they read what is in a large object, whose number is no name
_LARGE_OBJECTS = frozenset({"lo_get", "loread"})
# what stands in the server's own files: views of functions that are ADMIN
_FILES = frozenset({"pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings", "pg_config"})
# passwords of roles, here or elsewhere, or what verifies them
_PASSWORDS = frozenset({"pg_authid", "pg_shadow", "pg_user_mapping"})


@dataclass(slots=True)
class Facts:
    """Grows during one walk. The dicts are ordered sets."""

    kind: str = ""
    effects: set[Effect] = field(default_factory=set)
    reads: dict[Relation, None] = field(default_factory=dict)
    writes: dict[Relation, None] = field(default_factory=dict)
    columns_read: dict[Column, None] = field(default_factory=dict)
    columns_written: dict[Column, None] = field(default_factory=dict)
    calls: dict[Call, None] = field(default_factory=dict)
    settings: list[tuple[str, str | None]] = field(default_factory=list)
    makes: dict[Relation, None] = field(default_factory=dict)
    unbounded: bool = False
    returns_rows: bool = False
    prepared: str = ""
    planned: bool = False  # EXPLAIN without ANALYZE: nothing of it is done
    whys: dict[str, None] = field(default_factory=dict)
    names: frozenset[str] = frozenset()  # of common table expressions, where the walk is
    # what the text's names stand for
    aliases: dict[str, dict[str, None]] = field(default_factory=dict)
    references: dict[tuple[str, ...], None] = field(default_factory=dict)
    functions: dict[str, frozenset[str]] = field(default_factory=dict)  # of FROM: alias, columns
    fields: dict[str, None] = field(default_factory=dict)  # (…).name where only the server knows

    def unknown(self, why: str) -> None:
        """Nobody can say what the statement does, for this reason."""
        self.effects.add(Effect.UNKNOWN)
        self.whys[why[:WHY_BYTES_MAX]] = None

    def call(self, schema: str, name: str, since: int = 0) -> None:
        """The text calls this function; since: on servers before this version."""
        effect = effect_of(schema, name)
        self.calls[Call(schema, name, effect, since)] = None
        if name in _LARGE_OBJECTS and schema in {"", "pg_catalog"}:
            self.reads[Relation("pg_catalog", "pg_largeobject")] = None

    def read(self, node: Node) -> None:
        """A RangeVar is read."""
        relation = relation_of(node)
        self.reads[relation] = None
        self.name(node, relation.name)
        if relation.schema == "pg_toast" or relation.name.startswith("pg_toast_"):
            self.columns_read[Column("*", "*")] = None  # the large values of some other table
        elif relation.schema in {"", "pg_catalog"}:
            if relation.name in _STATISTICS:
                self.columns_read[Column("*", "*")] = None
            elif relation.name in _PASSWORDS or relation.name in _FILES:
                self.effects.add(Effect.ADMIN)
        if (node.get("alias") or {}).get("colnames"):
            self.columns_read[Column(relation.name, "*")] = None  # its columns have other names

    def write(self, node: Node) -> None:
        """A RangeVar is written, locked, made, altered or removed."""
        relation = relation_of(node)
        self.writes[relation] = None
        self.name(node, relation.name)

    def name(self, node: Node, meaning: str) -> None:
        """Remember what the name or alias of a RangeVar stands for."""
        alias = (node.get("alias") or {}).get("aliasname") or node.get("relname", "")
        self.aliases.setdefault(alias, {})[meaning] = None


def relation_of(node: Node) -> Relation:
    """Return what a RangeVar names."""
    return Relation(node.get("schemaname", ""), node.get("relname", ""))


def sources(items: Iterable[Node], names: frozenset[str]) -> Iterator[Node]:
    """Yield the relations that stand in this FROM itself; names: of common table expressions."""
    stack = list(items)
    while stack:
        item = stack.pop()
        if "RangeVar" in item:
            source = item["RangeVar"]
            if "schemaname" in source or source.get("relname") not in names:
                yield source
        elif "JoinExpr" in item:
            stack += [item["JoinExpr"].get("larg", {}), item["JoinExpr"].get("rarg", {})]
        elif "RangeTableSample" in item:
            stack.append(item["RangeTableSample"].get("relation", {}))


def strings(items: Sequence[Node]) -> tuple[str, ...]:
    """Return the text of the String nodes among these."""
    return tuple(item["String"].get("sval", "") for item in items if "String" in item)


def qualified(names: Sequence[str]) -> tuple[str, str]:
    """Return schema and name of a name in up to three parts."""
    return (names[-2] if len(names) > 1 else "", names[-1] if names else "")
