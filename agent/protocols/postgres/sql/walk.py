"""The walk over one statement's tree: every node is seen, in no order, without recursion.

A rule for a node kind says which of its fields it has dealt with; all others are walked. Names
of common table expressions are carried along, each where the server would see it, so that only
they are left out of the relations.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from agent.protocols.postgres.sql.facts import Facts, Node
from agent.protocols.postgres.sql.kinds import FIELDS, LEAVES, NEUTRAL, STATEMENTS

NESTING_MAX: Final = 800  # levels of the JSON tree; an operator or a join takes two
Names = frozenset[str]
Rule = Callable[[Facts, Node], frozenset[str] | None]  # fields done with; None: all

_NOTHING: Names = frozenset()
SPECIAL: Mapping[tuple[str, str], str] = {("CreateOpClassItem", "name"): "ObjectWithArgs"}


class TooDeep(Exception):
    """The tree has more than NESTING_MAX levels."""


def walk(facts: Facts, rules: Mapping[str, Rule], kind: str, node: Node) -> None:
    """Collect the facts of a statement.

    Raises:
        TooDeep: it nests too deeply.
    """
    stack: list[tuple[str, Node, Names, int]] = [(kind, node, frozenset(), 0)]
    while stack:
        kind, node, names, depth = stack.pop()
        if depth > NESTING_MAX:
            raise TooDeep
        if kind in STATEMENTS:
            if "withClause" in node:
                names = _with(node["withClause"], names, depth, stack)
            if not (depth and "valuesLists" in node):  # the rows of an INSERT are no query
                facts.effects |= STATEMENTS[kind][1]
        elif kind not in NEUTRAL and kind not in rules:
            facts.unknown(f"the grammar's node {kind} is not known to the classifier")
        rule = rules.get(kind)
        facts.names = names
        done = _NOTHING if rule is None else rule(facts, node)
        if done is None:
            continue
        for field, value in node.items():
            if field not in done and field != "withClause":
                stack.extend(
                    (child, fields, names, depth + level)
                    for child, fields, level in _children(kind, field, value)
                )


def _children(kind: str, field: str, value: object) -> Iterator[tuple[str, Node, int]]:
    """The nodes in one field, each with its kind and how much deeper in the JSON tree it is."""
    if isinstance(value, list):
        for item in value:
            for child, fields in item.items():
                if child not in LEAVES:
                    yield child, fields, 2
    elif isinstance(value, dict) and value:
        name = next(iter(value))
        if name[0].isupper():
            if name not in LEAVES:
                yield name, value[name], 2
        else:
            typed = SPECIAL.get((kind, field)) or FIELDS.get(field)
            yield typed or f"in {kind}.{field}", value, 1


def _with(
    clause: Node, names: Names, depth: int, stack: list[tuple[str, Node, Names, int]]
) -> Names:
    """Walk the WITH queries, each with the names that it sees; return what all others see."""
    tables = [item["CommonTableExpr"] for item in clause.get("ctes", ())]
    every = names | {table.get("ctename", "") for table in tables}
    seen = every if clause.get("recursive") else names
    for table in tables:
        stack.append(("CommonTableExpr", table, seen, depth + 3))
        seen |= {table.get("ctename", "")}
    return every
