"""Whose rows a condition speaks of: those of the table that is changed, or of what is beside it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.model.sql import Relation
from agent.protocols.postgres.sql.facts import Node, strings

# what makes an expression depend on the row
_OF_A_ROW = ("ColumnRef", "CurrentOfExpr")


@dataclass(frozen=True, slots=True)
class Around:
    """Where a condition stands: the table that is changed, and the names of what is beside it.

    name: by which the table's columns are qualified.
    """

    table: Relation
    name: str
    beside: frozenset[str] = frozenset()


def depends(node: object) -> bool:
    """Whether a column of some row is in it."""
    stack: list[object] = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            if any(kind in current for kind in _OF_A_ROW):
                return True
            stack.extend(current.values())
        elif isinstance(current, list):
            stack.extend(current)
    return False


def names_of(sources: Iterable[Node]) -> Iterator[str]:
    """Yield the names by which columns of these sources (FROM, USING) are qualified.

    A table without an alias has another one with its schema, ".t" where it is written without.
    """
    stack = list(sources)
    while stack:
        for kind, fields in stack.pop().items():
            if kind == "JoinExpr":
                stack += [fields.get("larg", {}), fields.get("rarg", {})]
            elif kind == "RangeTableSample":
                stack.append(fields.get("relation", {}))
            elif kind == "RangeFunction":
                yield from _functions(fields)
            alias = fields.get("alias") or {}
            yield alias.get("aliasname") or fields.get("relname", "")
            if kind == "RangeVar" and not alias:
                yield f"{fields.get('schemaname', '')}.{fields.get('relname', '')}"
            if "join_using_alias" in fields:
                yield fields["join_using_alias"].get("aliasname", "")


def _functions(fields: Node) -> Iterator[str]:
    for item in fields.get("functions", ()):
        for call in item.get("List", {}).get("items", ()):
            yield from strings(call.get("FuncCall", {}).get("funcname", []))[-1:]


def differs(node: object, beside: frozenset[str]) -> bool:
    """Whether it may differ from row to row: what is of another source does not.

    A name without qualifier is the table's, but within a query of its own that has a FROM.
    """
    stack: list[tuple[object, frozenset[str], bool]] = [(node, beside, False)]
    while stack:
        current, others, within = stack.pop()
        if isinstance(current, dict):
            if "CurrentOfExpr" in current:
                return True
            if "ColumnRef" in current:
                if _is_own(current["ColumnRef"].get("fields", []), others, within=within):
                    return True
                continue
            if "fromClause" in current:
                others, within = others.union(names_of(current["fromClause"])), True
            stack.extend((value, others, within) for value in current.values())
        elif isinstance(current, list):
            stack.extend((value, others, within) for value in current)
    return False


def _is_own(fields: list[Node], others: frozenset[str], *, within: bool) -> bool:
    parts = strings(fields)
    if len(fields) < 2:
        return not within
    *schema, name = parts if len(parts) < len(fields) else parts[:-1]  # a star is no string
    if schema:  # which may be the one where a table that is written without was found
        return others.isdisjoint((f"{schema[-1]}.{name}", f".{name}"))
    return name not in others
