"""Whether a WHERE could be false for some row: a DELETE with `WHERE 1=1` has no bound.

What names no column of the table that is changed is a constant to every row of it, whatever it
calls, is bound to or asks of other tables, and counts as true unless it is plainly false. Beyond
that the usual tautologies are known, no more.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from agent.model.sql import Relation
from agent.protocols.postgres.sql.facts import Node, relation_of, strings
from agent.protocols.postgres.sql.scope import Around, differs
from agent.protocols.postgres.sql.words import words

_NEVER_NULL = frozenset({"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"})
_TESTS = frozenset({"NullTest", "BooleanTest"})  # true or false, whatever they test
_REFLEXIVE = frozenset({"=", "<=", ">=", "~~", "@>", "<@"})
_ANY_TEXT = frozenset({"", ".*", "^", "$", "^.*", ".*$", "^.*$"})  # regular expressions
_PLACES = words("location list_start list_end rexpr_list_start rexpr_list_end")
_EVERY_ROW = words("targetList fromClause whereClause sortClause limitOption op")
# for each of the first an expression is true, or for the second
_OPERATORS = {"=": "<>", "<": ">=", ">": "<=", "~~": "!~~", "~~*": "!~~*", "BETWEEN": "NOT BETWEEN"}
_TURNED = {
    "AEXPR_OP": "AEXPR_OP",
    "AEXPR_IN": "AEXPR_IN",
    "AEXPR_LIKE": "AEXPR_LIKE",
    "AEXPR_ILIKE": "AEXPR_ILIKE",
    "AEXPR_BETWEEN": "AEXPR_NOT_BETWEEN",
}
_TESTED = {
    "IS_NULL": "IS_NOT_NULL",
    "IS_TRUE": "IS_NOT_TRUE",
    "IS_FALSE": "IS_NOT_FALSE",
    "IS_UNKNOWN": "IS_NOT_UNKNOWN",
}


def always_true(node: Node | None, around: Around) -> bool:
    """Whether this condition (None: there is none) holds for every row, as far as text tells."""
    if not node:
        return True
    if not differs(node, around.beside):
        return _folded(node) is not False
    kind, fields = next(iter(node.items()))
    rule = _RULES.get(kind)
    return rule is not None and rule(fields, around)


def _folded(node: Node) -> bool | None:
    """Return the value of a plain constant condition; None if that takes more."""
    kind, fields = next(iter(node.items()))
    if kind == "A_Const":
        return _constant(fields)
    if kind == "TypeCast":
        return _folded(fields["arg"])
    if kind == "BoolExpr":
        values = [_folded(item) for item in fields.get("args", ())]
        if fields.get("boolop") == "NOT_EXPR":
            return None if values[0] is None else not values[0]
        if fields.get("boolop") == "AND_EXPR":
            return False if False in values else (True if None not in values else None)
        return True if True in values else (False if None not in values else None)
    if kind == "A_Expr" and fields.get("kind") == "AEXPR_OP":
        return _compared(fields)
    return None


def _constant(fields: Node) -> bool | None:
    if fields.get("isnull"):
        return False
    if "boolval" in fields:
        return bool(fields["boolval"].get("boolval"))
    if "sval" in fields:
        text = fields["sval"].get("sval", "").strip().lower()
        falses = {"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"}
        return text not in falses
    return None


def _compared(fields: Node) -> bool | None:
    left, right = fields.get("lexpr"), fields.get("rexpr")
    if not left or not right or "A_Const" not in left or "A_Const" not in right:
        return None
    first, second = _literal(left["A_Const"]), _literal(right["A_Const"])
    if first is None or second is None or first[0] != second[0]:
        return None  # '1' = 1 is true
    match fields["name"][0].get("String", {}).get("sval"):
        case "=":
            return first == second
        case "<>" | "!=":
            return first != second
        case _:
            return None


def _literal(fields: Node) -> tuple[str, object] | None:
    if "ival" in fields:
        return "i", fields["ival"].get("ival", 0)
    if "sval" in fields:
        return "s", fields["sval"].get("sval", "")
    return None


def _bool(fields: Node, around: Around) -> bool:
    arms: list[Node] = fields.get("args", [])
    match fields.get("boolop"):
        case "AND_EXPR":
            return all(always_true(arm, around) for arm in arms)
        case "OR_EXPR":
            return any(always_true(arm, around) for arm in arms) or _opposed(arms, around)
        case _:
            return _never(arms[0], around)


def _never(node: Node, around: Around) -> bool:
    """Whether NOT of this is always true."""
    if not differs(node, around.beside):
        return _folded(node) is not True
    kind, fields = next(iter(node.items()))
    if kind == "BoolExpr":
        arms: list[Node] = fields.get("args", [])
        match fields.get("boolop"):
            case "AND_EXPR":
                return any(_never(arm, around) for arm in arms) or _opposed(arms, around)
            case "OR_EXPR":
                return all(_never(arm, around) for arm in arms)
            case _:
                return always_true(arms[0], around)
    if kind == "NullTest" and fields.get("nulltesttype") == "IS_NULL":
        return _null_test({**fields, "nulltesttype": "IS_NOT_NULL"}, around)
    return (
        kind == "A_Expr" and _operator(fields) in {"<>", "<", ">"} and _same_sides(fields, around)
    )


def _opposed(arms: list[Node], around: Around) -> bool:
    """Whether two arms are each other's opposite: x OR NOT x, x IS NULL OR x IS NOT NULL."""
    plain = [_own(arm, around) for arm in arms]
    known = set(map(_written, plain))
    return any(_written(one) in known for arm in plain for one in _opposites(arm))


def _opposites(arm: object) -> Iterator[Node]:
    yield {"BoolExpr": {"boolop": "NOT_EXPR", "args": [arm]}}
    if not isinstance(arm, dict):
        return
    kind, fields = next(iter(arm.items()))
    for key in ("nulltesttype", "booltesttype"):
        if kind in _TESTS and (other := _TESTED.get(fields.get(key, ""))):
            yield {kind: {**fields, key: other}}
    if kind == "A_Expr" and len(fields.get("name", ())) == 1:
        turned = _TURNED.get(fields.get("kind", ""))
        operator = _OPERATORS.get(_operator(fields))
        if turned and operator:
            yield {kind: {**fields, "kind": turned, "name": [{"String": {"sval": operator}}]}}


def _written(arm: object) -> bytes:
    return msgspec.json.encode(arm, order="sorted")


def _null_test(fields: Node, around: Around) -> bool:
    if fields.get("nulltesttype") != "IS_NOT_NULL":
        return False
    tested = fields.get("arg", {})
    names = tested.get("ColumnRef", {}).get("fields", ())
    if names:
        return names[-1].get("String", {}).get("sval") in _NEVER_NULL
    return not _TESTS.isdisjoint(tested) or always_true(tested, around)


def _boolean_test(fields: Node, around: Around) -> bool:
    match fields.get("booltesttype"):
        case "IS_TRUE" | "IS_NOT_FALSE" | "IS_NOT_UNKNOWN":
            return always_true(fields["arg"], around)
        case "IS_FALSE" | "IS_NOT_TRUE":
            return _never(fields["arg"], around)
        case _:
            return False


def _expression(fields: Node, around: Around) -> bool:
    right = fields.get("rexpr", {})
    match fields.get("kind"):
        case "AEXPR_OP":
            return _compares_alike(fields, around)
        case "AEXPR_NOT_DISTINCT":
            return _same_sides(fields, around)
        case "AEXPR_OP_ANY":
            items = right.get("A_ArrayExpr", {}).get("elements", [])
            return _operator(fields) in _REFLEXIVE and _has_left(fields, items, around)
        case "AEXPR_IN" | "AEXPR_BETWEEN" | "AEXPR_BETWEEN_SYM":
            items = right.get("List", {}).get("items", [])
            if fields.get("kind") == "AEXPR_IN":
                return _operator(fields) != "<>" and _has_left(fields, items, around)
            left = _own(fields.get("lexpr"), around)
            return bool(items) and all(_own(item, around) == left for item in items)
        case "AEXPR_LIKE" | "AEXPR_ILIKE":
            pattern = _text(right)
            return _operator(fields) in {"~~", "~~*"} and bool(pattern) and not pattern.strip("%")
        case _:
            return False


def _compares_alike(fields: Node, around: Around) -> bool:
    """Whether both sides are the same, or one is true and the other always is."""
    operator, right = _operator(fields), fields.get("rexpr", {})
    if operator in {"~", "~*"}:
        return "A_Const" in right and "sval" in right["A_Const"] and _text(right) in _ANY_TEXT
    if operator not in _REFLEXIVE:
        return False
    if _same_sides(fields, around):
        return True
    sides = (fields.get("lexpr", {}), right)
    return operator == "=" and any(
        _folded(one) is True and always_true(other, around)
        for one, other in (sides, sides[::-1])
        if one and other
    )


def _has_left(fields: Node, items: list[Node], around: Around) -> bool:
    left = _own(fields.get("lexpr"), around)
    return any(_own(item, around) == left for item in items)


def _text(node: Node) -> str:
    return str(node.get("A_Const", {}).get("sval", {}).get("sval", ""))


def _operator(fields: Node) -> str:
    return "".join(item.get("String", {}).get("sval", "") for item in fields.get("name", [])[-1:])


def _same_sides(fields: Node, around: Around) -> bool:
    return _own(fields.get("lexpr"), around) == _own(fields.get("rexpr"), around)


def _own(value: object, around: Around) -> object:
    """The same tree without the places in the text, and the table's columns without its name.

    They keep it where other tables are: without it they may be another's.
    """
    if isinstance(value, list):
        return [_own(item, around) for item in value]
    if not isinstance(value, dict):
        return value
    if "ColumnRef" in value:
        named = value["ColumnRef"].get("fields", [])
        parts = strings(named)
        if len(parts) == len(named) == 2 and parts[0] == around.name and not around.beside:
            named = named[1:]
        return {"ColumnRef": [_own(item, around) for item in named]}
    return {key: _own(item, around) for key, item in value.items() if key not in _PLACES}


def _cast(fields: Node, around: Around) -> bool:
    return always_true(fields.get("arg"), around)


def _coalesced(fields: Node, around: Around) -> bool:
    arms: Iterable[Node] = fields.get("args", ())
    return all(always_true(arm, around) for arm in arms)


def _case(fields: Node, around: Around) -> bool:
    """CASE whose every result is true, if it has an ELSE; or whose first WHEN always is."""
    whens = [item["CaseWhen"] for item in fields.get("args", ())]
    results = [always_true(when.get("result"), around) for when in whens]
    if "arg" not in fields and results[0] and always_true(whens[0].get("expr"), around):
        return True
    return "defresult" in fields and all(results) and always_true(fields["defresult"], around)


def _sub_link(fields: Node, around: Around) -> bool:
    """`id IN (SELECT id FROM t)`, of the very table that is changed."""
    query = fields.get("subselect", {}).get("SelectStmt", {})
    tables, targets = query.get("fromClause", []), query.get("targetList", [])
    if fields.get("subLinkType") != "ANY_SUBLINK" or not _EVERY_ROW.issuperset(query):
        return False
    if len(tables) != 1 or "RangeVar" not in tables[0] or len(targets) != 1:
        return False
    operator = "".join(strings(fields.get("operName", []))) or "="
    asked = strings(fields.get("testexpr", {}).get("ColumnRef", {}).get("fields", []))
    given = targets[0].get("ResTarget", {}).get("val", {}).get("ColumnRef", {}).get("fields", [])
    return (
        operator == "="
        and _may_be(relation_of(tables[0]["RangeVar"]), around.table)
        and bool(asked)
        and asked[-1:] == strings(given)[-1:]
        and always_true(query.get("whereClause"), Around(around.table, around.name))
    )


def _may_be(one: Relation, other: Relation) -> bool:
    return one.name == other.name and (
        one.schema == other.schema or not (one.schema and other.schema)
    )


_RULES: dict[str, Callable[[Node, Around], bool]] = {
    "BoolExpr": _bool,
    "NullTest": _null_test,
    "BooleanTest": _boolean_test,
    "A_Expr": _expression,
    "TypeCast": _cast,
    "CoalesceExpr": _coalesced,
    "CaseExpr": _case,
    "SubLink": _sub_link,
}
