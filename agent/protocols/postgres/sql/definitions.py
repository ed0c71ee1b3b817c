"""Rules for statements that give a function to the server, which then runs it unnamed.

An operator, a cast, an aggregate, a type or a trigger calls its functions from texts that do not
name them: so whoever makes one is taken for who calls them. And a function with the name of a
built-in one would be taken for that one, wherever it is called: what makes one is UNKNOWN.
"""

from agent.model.sql import Effect, Relation
from agent.protocols.postgres.sql.facts import Facts, Node, qualified, strings
from agent.protocols.postgres.sql.functions import effect_of
from agent.protocols.postgres.sql.objects import function, object_type, owned
from agent.protocols.postgres.sql.walk import Rule
from agent.protocols.postgres.sql.words import words

_NOTHING: frozenset[str] = frozenset()
_ROUTINES = words("FUNCTION PROCEDURE ROUTINE AGGREGATE")
_FUNCTION_ITEM = 2  # OPCLASS_ITEM_FUNCTION
# the options whose value is a function, of CREATE OPERATOR, AGGREGATE, TYPE and TEXT SEARCH; those
# that take an internal type (restrict, join) can't be made of SQL
_OPTIONS = words(
    """
function procedure
sfunc sfunc1 finalfunc combinefunc serialfunc deserialfunc msfunc minvfunc mfinalfunc
input output receive send typmod_in typmod_out analyze subscript
canonical subtype_diff
init lexize start gettoken end headline lextypes
"""
)


def _called(facts: Facts, names: list[Node]) -> None:
    found = strings(names)
    if found:
        facts.call(*qualified(found))


def _in_options(facts: Facts, options: list[Node]) -> None:
    for option in options:
        element = option.get("DefElem", {})
        if element.get("defname", "").lower() in _OPTIONS:
            value = element.get("arg", {})
            names = value.get("TypeName", {}).get("names") or value.get("List", {}).get("items")
            _called(facts, names or [value])


def defined(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE OPERATOR, AGGREGATE, TYPE, TEXT SEARCH …; ALTER OPERATOR and TYPE."""
    if node.get("kind") == "OBJECT_AGGREGATE":
        _named(facts, *qualified(strings(node.get("defnames", []))))
    for field in ("definition", "options", "params"):
        _in_options(facts, node.get(field, []))
    return _NOTHING


def given(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE CAST, TRANSFORM, CONVERSION, OPERATOR CLASS; ALTER OPERATOR FAMILY."""
    for field in ("func", "fromsql", "tosql"):
        _called(facts, node.get(field, {}).get("objname", []))
    _called(facts, node.get("func_name", []))
    for item in node.get("items", []):
        fields = item.get("CreateOpClassItem", {})
        if fields.get("itemtype") == _FUNCTION_ITEM:
            _called(facts, fields.get("name", {}).get("objname", []))
    return _NOTHING


def trigger(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE TRIGGER: its function runs with whatever changes the table."""
    _called(facts, node.get("funcname", []))
    return owned(facts, node) | {"funcname"}


def _named(facts: Facts, schema: str, name: str) -> None:
    facts.makes[Relation(schema, name)] = None
    if effect_of("", name) is not Effect.UNKNOWN:
        facts.unknown("it makes a function that has the name of a built-in one")


def made(facts: Facts, node: Node) -> frozenset[str]:
    """CREATE FUNCTION and PROCEDURE."""
    _named(facts, *qualified(strings(node.get("funcname", []))))
    return function(facts, node)


def renamed(facts: Facts, node: Node) -> frozenset[str]:
    """ALTER … RENAME and SET SCHEMA."""
    if object_type(node) in _ROUTINES:
        parts = strings(node.get("object", {}).get("ObjectWithArgs", {}).get("objname", []))
        schema, name = qualified(parts)
        _named(facts, node.get("newschema") or schema, node.get("newname") or name)
    return owned(facts, node)


DEFINITIONS: dict[str, Rule] = {
    "DefineStmt": defined,
    "CreateRangeStmt": defined,
    "AlterOperatorStmt": defined,
    "AlterTypeStmt": defined,
    "CreateCastStmt": given,
    "CreateTransformStmt": given,
    "CreateConversionStmt": given,
    "CreateOpClassStmt": given,
    "AlterOpFamilyStmt": given,
    "CreateTrigStmt": trigger,
    "CreateFunctionStmt": made,
    "RenameStmt": renamed,
    "AlterObjectSchemaStmt": renamed,
}
