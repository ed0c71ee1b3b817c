"""Rules for settings, transactions, prepared statements, EXPLAIN, and code that is run."""

from typing import Final

from agent.model.sql import Effect
from agent.protocols.postgres.sql.expressions import constant
from agent.protocols.postgres.sql.facts import Facts, Node
from agent.protocols.postgres.sql.settings import DYNAMIC, EVERY, effect_of
from agent.protocols.postgres.sql.walk import Rule

# The whole `why` of a statement that is UNKNOWN for nothing but this: who knows what the name
# stands for may put that statement's effects in place of UNKNOWN.
RUNS_PREPARED: Final = "it runs a prepared statement"
# Languages whose functions the server confines; in others code is the server's own user.
TRUSTED = frozenset({"sql", "plpgsql", "plperl", "pltcl"})
_NOTHING: frozenset[str] = frozenset()
_OFF = frozenset({"off", "false", "0"})
_TWO_PHASE = frozenset(
    {"TRANS_STMT_PREPARE", "TRANS_STMT_COMMIT_PREPARED", "TRANS_STMT_ROLLBACK_PREPARED"}
)


def changed(node: Node) -> list[tuple[str, str | None]]:
    """Return the settings that a VariableSetStmt changes."""
    kind = node.get("kind")
    name = node.get("name", "").lower()
    arguments = node.get("args", [])
    if kind == "VAR_RESET_ALL":
        return [(EVERY, None)]
    if kind in {"VAR_RESET", "VAR_SET_DEFAULT"}:
        return [(name, None)]
    if kind == "VAR_SET_CURRENT":  # of a function: the value at its making
        return [(name, DYNAMIC)]
    if kind == "VAR_SET_VALUE":
        return [(name, ", ".join(constant(item) or DYNAMIC for item in arguments))]
    if name == "transaction snapshot":
        return [("transaction_snapshot", constant(arguments[0]) if arguments else DYNAMIC)]
    if name in {"transaction", "session characteristics"}:
        prefix = "" if name == "transaction" else "default_"
        return [(prefix + setting, value) for setting, value in _modes(arguments)]
    return [(DYNAMIC, DYNAMIC)]


def _modes(items: list[Node]) -> list[tuple[str, str | None]]:
    """Transaction modes: isolation level, read only, deferrable."""
    found: list[tuple[str, str | None]] = []
    for item in items:
        element = item.get("DefElem", {})
        name = element.get("defname", DYNAMIC)
        value = constant(element.get("arg", {}))
        if name in {"transaction_read_only", "transaction_deferrable"}:
            value = {"1": "on", "0": "off"}.get(value or "", DYNAMIC)
        found.append((name, value))
    return found


def variable_set(facts: Facts, node: Node) -> frozenset[str] | None:
    """SET and RESET."""
    for setting in changed(node):
        facts.settings.append(setting)
        facts.effects.add(effect_of(*setting))
    return frozenset({"args"})


def stored_set(facts: Facts, node: Node) -> frozenset[str]:
    """ALTER SYSTEM, ROLE, DATABASE … SET: for sessions to come."""
    facts.settings.extend(changed(node.get("setstmt", {})))
    return frozenset({"setstmt"})


def discard(facts: Facts, node: Node) -> frozenset[str]:
    """DISCARD ALL resets every setting."""
    if node.get("target") == "DISCARD_ALL":
        facts.settings.append((EVERY, None))
    return _NOTHING


def transaction(facts: Facts, node: Node) -> frozenset[str]:
    """BEGIN with modes; two-phase commit outlives the session."""
    facts.settings.extend(_modes(node.get("options", [])))
    if node.get("kind") in _TWO_PHASE:
        facts.effects.add(Effect.WRITE)
    return frozenset({"options"})


def prepare(facts: Facts, node: Node) -> frozenset[str]:
    """PREPARE, DEALLOCATE, EXECUTE: the relay knows what the name stands for."""
    facts.prepared = node.get("name", "")
    return _NOTHING


def cursor(facts: Facts, node: Node) -> frozenset[str]:
    """DECLARE, CLOSE: a cursor is a portal, as Bind makes them; "" is CLOSE ALL."""
    facts.prepared = node.get("portalname", "")
    return _NOTHING


def execute(facts: Facts, node: Node) -> frozenset[str]:
    """EXECUTE by itself says nothing of what it runs."""
    facts.unknown(RUNS_PREPARED)
    facts.returns_rows = True
    return prepare(facts, node)


def explain(facts: Facts, node: Node) -> frozenset[str]:
    """EXPLAIN plans; with ANALYZE it runs."""
    facts.planned = not analyzes(node)
    return frozenset({"options"})


def analyzes(node: Node) -> bool:
    """Whether an EXPLAIN runs what it explains."""
    for option in node.get("options", []):
        element = option.get("DefElem", {})
        if element.get("defname", "").lower() == "analyze":
            argument = element.get("arg")
            if not argument or _word(argument) not in _OFF:
                return True
    return False


def _word(node: Node) -> str:
    for kind, field in (("String", "sval"), ("Boolean", "boolval"), ("Integer", "ival")):
        if kind in node:
            value = node[kind].get(field, 0)
            return str(value).lower()
    return DYNAMIC


def do(facts: Facts, node: Node) -> frozenset[str] | None:
    """DO runs code."""
    facts.unknown("DO runs code that is not SQL")
    language(facts, node.get("args", []))
    return None


def language(facts: Facts, options: list[Node]) -> None:
    """Code in a language that the server does not confine reaches the server."""
    for option in options:
        element = option.get("DefElem", {})
        if element.get("defname") == "language":
            name = element.get("arg", {}).get("String", {}).get("sval", DYNAMIC)
            if name.lower() not in TRUSTED:
                facts.effects.add(Effect.ADMIN)


def rows(facts: Facts, node: Node) -> frozenset[str]:
    """FETCH, SHOW and CALL give rows; MOVE does not."""
    facts.returns_rows |= not node.get("ismove")
    return _NOTHING


SESSION_STATE: dict[str, Rule] = {
    "VariableSetStmt": variable_set,
    "AlterSystemStmt": stored_set,
    "AlterRoleSetStmt": stored_set,
    "AlterDatabaseSetStmt": stored_set,
    "DiscardStmt": discard,
    "TransactionStmt": transaction,
    "PrepareStmt": prepare,
    "DeallocateStmt": prepare,
    "DeclareCursorStmt": cursor,
    "ClosePortalStmt": cursor,
    "ExecuteStmt": execute,
    "ExplainStmt": explain,
    "DoStmt": do,
    "FetchStmt": rows,
    "CallStmt": rows,
    "VariableShowStmt": rows,
}
