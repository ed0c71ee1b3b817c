"""Whether a WHERE could be false for some row: a DELETE with `WHERE 1=1` has no bound.

What names no column is a constant to every row, whatever it calls or is bound to, and counts as
true unless it is plainly false. Beyond that the usual tautologies are known, no more.
"""

from collections.abc import Callable, Iterable

import msgspec

from agent.protocols.postgres.sql.facts import Node

# what makes an expression depend on the row
_OF_A_ROW = ("ColumnRef", "CurrentOfExpr")
_NEVER_NULL = frozenset({"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"})
_REFLEXIVE = frozenset({"=", "<=", ">=", "~~", "@>", "<@"})


def always_true(node: Node | None) -> bool:
    """Whether this condition (None: there is none) holds for every row, as far as text tells."""
    if not node:
        return True
    if not depends(node):
        return _folded(node) is not False
    kind, fields = next(iter(node.items()))
    rule = _RULES.get(kind)
    return rule is not None and rule(fields)


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
    if first is None or second is None:
        return None
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


def _bool(fields: Node) -> bool:
    arms: list[Node] = fields.get("args", [])
    match fields.get("boolop"):
        case "AND_EXPR":
            return all(map(always_true, arms))
        case "OR_EXPR":
            return any(map(always_true, arms)) or _covers(arms)
        case _:
            return _never(arms[0])


def _never(node: Node) -> bool:
    """Whether NOT of this is always true."""
    if not depends(node):
        return _folded(node) is not True
    kind, fields = next(iter(node.items()))
    if kind == "BoolExpr" and fields.get("boolop") == "NOT_EXPR":
        return always_true(fields["args"][0])
    return kind == "A_Expr" and _operator(fields) in {"<>", "<", ">"} and _same_sides(fields)


def _covers(arms: list[Node]) -> bool:
    """Whether two arms are each other's opposite: x OR NOT x, x IS NULL OR x IS NOT NULL."""
    plain = [_bare(arm) for arm in arms]
    known = set(map(_written, plain))
    for arm in plain:
        negated = {"BoolExpr": {"boolop": "NOT_EXPR", "args": [arm]}}
        if _written(negated) in known:
            return True
        test = arm.get("NullTest") if isinstance(arm, dict) else None
        if test and test.get("nulltesttype") == "IS_NULL":
            opposite = {"NullTest": {**test, "nulltesttype": "IS_NOT_NULL"}}
            if _written(opposite) in known:
                return True
    return False


def _written(arm: object) -> bytes:
    return msgspec.json.encode(arm, order="sorted")


def _null_test(fields: Node) -> bool:
    if fields.get("nulltesttype") != "IS_NOT_NULL":
        return False
    names = fields.get("arg", {}).get("ColumnRef", {}).get("fields", ())
    return bool(names) and names[-1].get("String", {}).get("sval") in _NEVER_NULL


def _boolean_test(fields: Node) -> bool:
    match fields.get("booltesttype"):
        case "IS_TRUE" | "IS_NOT_FALSE" | "IS_NOT_UNKNOWN":
            return always_true(fields["arg"])
        case "IS_FALSE" | "IS_NOT_TRUE":
            return _never(fields["arg"])
        case _:
            return False


def _expression(fields: Node) -> bool:
    right = fields.get("rexpr", {})
    match fields.get("kind"):
        case "AEXPR_OP":
            return _operator(fields) in _REFLEXIVE and _same_sides(fields)
        case "AEXPR_NOT_DISTINCT":
            return _same_sides(fields)
        case "AEXPR_IN" | "AEXPR_BETWEEN" | "AEXPR_BETWEEN_SYM":
            items = right.get("List", {}).get("items", [])
            left = _bare(fields.get("lexpr"))
            found = [_bare(item) == left for item in items]
            negated = _operator(fields) == "<>"
            between = fields.get("kind") != "AEXPR_IN"
            return bool(found) and not negated and (all(found) if between else any(found))
        case "AEXPR_LIKE" | "AEXPR_ILIKE":
            pattern = right.get("A_Const", {}).get("sval", {}).get("sval", "")
            return _operator(fields) in {"~~", "~~*"} and bool(pattern) and not pattern.strip("%")
        case _:
            return False


def _operator(fields: Node) -> str:
    return "".join(item.get("String", {}).get("sval", "") for item in fields.get("name", [])[-1:])


def _same_sides(fields: Node) -> bool:
    return _bare(fields.get("lexpr")) == _bare(fields.get("rexpr"))


def _bare(value: object) -> object:
    """The same tree without the places in the text."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if key != "location"}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return value


def _cast(fields: Node) -> bool:
    return always_true(fields.get("arg"))


def _coalesced(fields: Node) -> bool:
    arms: Iterable[Node] = fields.get("args", ())
    return all(map(always_true, arms))


_RULES: dict[str, Callable[[Node], bool]] = {
    "BoolExpr": _bool,
    "NullTest": _null_test,
    "BooleanTest": _boolean_test,
    "A_Expr": _expression,
    "TypeCast": _cast,
    "CoalesceExpr": _coalesced,
}
