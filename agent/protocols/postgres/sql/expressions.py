"""Rules for what stands in statements: relations, columns, calls."""

from agent.model.sql import Call, Column, Effect
from agent.protocols.postgres.sql.facts import Facts, Node, qualified, sources, strings
from agent.protocols.postgres.sql.functions import effect_of, returns_row
from agent.protocols.postgres.sql.settings import DYNAMIC
from agent.protocols.postgres.sql.settings import effect_of as effect_of_setting
from agent.protocols.postgres.sql.walk import Rule
from agent.protocols.postgres.sql.words import words

_NOTHING: frozenset[str] = frozenset()
# Types of unnest's and casts' arguments that have no fields for sure; others may be rows.
_SCALARS = words(
    """
text varchar char bpchar name uuid date time timetz timestamp timestamptz interval json jsonb
bytea inet cidr macaddr oid regclass regproc regprocedure regtype regrole regnamespace int2 int4
int8 int integer bigint smallint float4 float8 real numeric decimal bool boolean xml bit money
"""
)


def range_var(facts: Facts, node: Node) -> frozenset[str] | None:
    """A relation is read, unless it is a common table expression."""
    if node.get("relname") in facts.names and "schemaname" not in node:
        alias = (node.get("alias") or {}).get("aliasname") or node["relname"]
        facts.aliases.setdefault(alias, {})[alias] = None
    else:
        facts.read(node)
    return None


def column_ref(facts: Facts, node: Node) -> frozenset[str] | None:
    """A column, a row, or a call in attribute notation: told apart at the end."""
    items = node.get("fields", [])
    parts = strings(items)
    if "A_Star" in items[-1]:
        if parts:
            facts.references[(*parts, "*")] = None
    elif parts:
        facts.references[parts] = None
    return None


def func_call(facts: Facts, node: Node) -> frozenset[str]:
    """A function is called; set_config changes a setting."""
    schema, name = qualified(strings(node.get("funcname", [])))
    if name == "system_user":  # a word of its own since PostgreSQL 16; before, a name as any other
        facts.references[(name,)] = None
    if name == "set_config" and schema in {"", "pg_catalog"}:
        set_config(facts, schema, node.get("args", []))
    else:
        facts.call(schema, name)
    return frozenset({"funcname"})


def set_config(facts: Facts, schema: str, arguments: list[Node]) -> None:
    """Note a call of set_config(name, value, is_local)."""
    named = any("NamedArgExpr" in argument for argument in arguments)
    if len(arguments) != 3 or named:
        setting: tuple[str, str | None] = (DYNAMIC, DYNAMIC)
    else:
        name = constant(arguments[0])
        value = constant(arguments[1])
        setting = ((name or DYNAMIC).lower(), value)
    facts.settings.append(setting)
    effect = effect_of_setting(*setting)
    facts.calls[Call(schema, "set_config", effect)] = None


def constant(node: Node) -> str | None:
    """Return a constant's text; None is NULL, DYNAMIC what is no constant."""
    while "TypeCast" in node:
        node = node["TypeCast"].get("arg", {})
    fields = node.get("A_Const")
    if fields is None:
        return DYNAMIC
    if fields.get("isnull"):
        return None
    for kind, field in (("sval", "sval"), ("fval", "fval"), ("bsval", "bsval")):
        if kind in fields:
            return str(fields[kind].get(field, ""))
    if "ival" in fields:
        return str(fields["ival"].get("ival", 0))
    if "boolval" in fields:
        return "on" if fields["boolval"].get("boolval") else "off"
    return DYNAMIC


def indirection(facts: Facts, node: Node) -> frozenset[str]:
    """`(…).name` is a field of a row, or a call of a function with one argument."""
    base = node.get("arg", {})
    found = strings(node.get("indirection", []))
    row = "RowExpr" in base
    if "FuncCall" in base:
        row = returns_row(*qualified(strings(base["FuncCall"].get("funcname", []))))
    for place, name in enumerate(found):
        if effect_of("", name) is not Effect.UNKNOWN:
            if not (row and place == 0 and effect_of("", name) is Effect.READ):
                facts.call("", name)
        elif not row or place > 0:
            facts.fields[name] = None
    return _NOTHING


def range_function(facts: Facts, node: Node) -> frozenset[str]:
    """A function in FROM: remember what its alias may be asked for."""
    alias = node.get("alias") or {}
    functions = node.get("functions", [])
    if node.get("ordinality") or node.get("coldeflist") or len(functions) != 1:
        return _NOTHING  # it gives a row of no named type, which no function takes
    call = functions[0].get("List", {}).get("items", [{}])[0]
    fields = call.get("FuncCall")
    if fields is not None:
        schema, name = qualified(strings(fields.get("funcname", [])))
        known = effect_of(schema, name) is not Effect.UNKNOWN
        if returns_row(schema, name) or not known or _of_rows(name, fields):
            return _NOTHING
    else:
        name = ""
    called = alias.get("aliasname") or name
    allowed = {called, name, *strings(alias.get("colnames", []))}
    before = facts.functions.get(called, allowed)  # of the same alias, in another place
    facts.functions[called] = frozenset(allowed & before)
    return _NOTHING


def _of_rows(name: str, fields: Node) -> bool:
    """Whether it is unnest of something that may be rows."""
    if name != "unnest":
        return False
    for argument in fields.get("args", []):
        names = strings(argument.get("TypeCast", {}).get("typeName", {}).get("names", []))
        if names and names[0] != "pg_catalog" and names[-1] not in _SCALARS:
            return True
    return False


def table_sample(facts: Facts, node: Node) -> frozenset[str]:
    """TABLESAMPLE calls its method's function."""
    facts.call(*qualified(strings(node.get("method", []))))
    return frozenset({"method"})


def join(facts: Facts, node: Node) -> frozenset[str]:
    """USING names columns of both sides, NATURAL any of them; an alias stands for both sides."""
    for name in strings(node.get("usingClause", [])):
        facts.columns_read[Column("", name)] = None
    alias = node.get("alias") or {}
    natural = bool(node.get("isNatural"))
    if alias or natural:
        for source in sources([{"JoinExpr": node}], facts.names):
            table = source.get("relname", "")
            if alias:
                facts.aliases.setdefault(alias.get("aliasname", ""), {})[table] = None
            if natural or alias.get("colnames"):
                facts.columns_read[Column(table, "*")] = None
    return frozenset({"usingClause"})


# SQL/JSON came with PostgreSQL 16 and 17: before, these are names of functions as any other, also
# of functions that somebody made. Forms that no older server parses are left out.
_SINCE = {
    "JsonObjectConstructor": ("json_object", 16),
    "JsonArrayConstructor": ("json_array", 16),
    "JsonArrayAgg": ("json_arrayagg", 16),
    "JsonParseExpr": ("json", 17),
    "JsonScalarExpr": ("json_scalar", 17),
    "JsonSerializeExpr": ("json_serialize", 17),
    "MergeSupportFunc": ("merge_action", 17),
    "JSON_EXISTS_OP": ("json_exists", 17),
    "JSON_QUERY_OP": ("json_query", 17),
    "JSON_VALUE_OP": ("json_value", 17),
}


def _word_since(kind: str) -> Rule:
    """Return the rule for a word of the grammar that older servers take for a function's name."""
    name, since = _SINCE[kind]

    def rule(facts: Facts, node: Node) -> frozenset[str]:
        if "output" not in node:  # RETURNING: no older server parses that
            facts.call("", name, since)
        return _NOTHING

    return rule


def json_func(facts: Facts, node: Node) -> frozenset[str]:
    """JSON_EXISTS, JSON_QUERY, JSON_VALUE."""
    if node.get("op") in _SINCE and "output" not in node:
        facts.call("", *_SINCE[node["op"]])
    return _NOTHING


EXPRESSIONS: dict[str, Rule] = {
    **{kind: _word_since(kind) for kind in _SINCE if not kind.endswith("_OP")},
    "JsonFuncExpr": json_func,
    "RangeVar": range_var,
    "ColumnRef": column_ref,
    "FuncCall": func_call,
    "A_Indirection": indirection,
    "RangeFunction": range_function,
    "RangeTableSample": table_sample,
    "JoinExpr": join,
}
