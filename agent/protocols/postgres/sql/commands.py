"""The name of a command, in the words that PostgreSQL's documentation has for it."""

from agent.protocols.postgres.sql.facts import Node
from agent.protocols.postgres.sql.kinds import STATEMENTS
from agent.protocols.postgres.sql.objects import object_type
from agent.protocols.postgres.sql.session_state import analyzes
from agent.protocols.postgres.sql.words import words

_TRANSACTION = {
    "TRANS_STMT_BEGIN": "BEGIN",
    "TRANS_STMT_START": "START TRANSACTION",
    "TRANS_STMT_COMMIT": "COMMIT",
    "TRANS_STMT_ROLLBACK": "ROLLBACK",
    "TRANS_STMT_SAVEPOINT": "SAVEPOINT",
    "TRANS_STMT_RELEASE": "RELEASE",
    "TRANS_STMT_ROLLBACK_TO": "ROLLBACK TO",
    "TRANS_STMT_PREPARE": "PREPARE TRANSACTION",
    "TRANS_STMT_COMMIT_PREPARED": "COMMIT PREPARED",
    "TRANS_STMT_ROLLBACK_PREPARED": "ROLLBACK PREPARED",
}
_OBJECTS = {
    "MATVIEW": "MATERIALIZED VIEW",
    "FDW": "FOREIGN DATA WRAPPER",
    "FOREIGN_SERVER": "SERVER",
    "OPCLASS": "OPERATOR CLASS",
    "OPFAMILY": "OPERATOR FAMILY",
    "TSCONFIGURATION": "TEXT SEARCH CONFIGURATION",
    "TSDICTIONARY": "TEXT SEARCH DICTIONARY",
    "TSPARSER": "TEXT SEARCH PARSER",
    "TSTEMPLATE": "TEXT SEARCH TEMPLATE",
    "STATISTIC_EXT": "STATISTICS",
    "TABCONSTRAINT": "TABLE",
    "DOMCONSTRAINT": "DOMAIN",
    "ATTRIBUTE": "TYPE",
    "LARGEOBJECT": "LARGE OBJECT",
}
# kind: the flag that makes it another command
_FLAGS = {
    "FetchStmt": ("ismove", True, "MOVE"),
    "GrantStmt": ("is_grant", False, "REVOKE"),
    "GrantRoleStmt": ("is_grant", False, "REVOKE"),
    "VacuumStmt": ("is_vacuumcmd", False, "ANALYZE"),
    "DeallocateStmt": ("isall", True, "DEALLOCATE ALL"),
    "CreateFunctionStmt": ("is_procedure", True, "CREATE PROCEDURE"),
}
_OF_OBJECTS = words(
    """
DropStmt RenameStmt AlterObjectDependsStmt AlterObjectSchemaStmt AlterOwnerStmt AlterTableStmt
AlterFunctionStmt AlterTableMoveAllStmt
"""
)


def command(kind: str, node: Node) -> str:
    """Return the command's name."""
    name = STATEMENTS[kind][0] if kind in STATEMENTS else ""
    if kind in _FLAGS:
        flag, wanted, other = _FLAGS[kind]
        return other if bool(node.get(flag)) is wanted else name
    if kind in _OF_OBJECTS:
        what = object_type(node)
        return f"{name.split()[0]} {_OBJECTS.get(what, what.replace('_', ' '))}"
    return _special(kind, node) or name


def _special(kind: str, node: Node) -> str:
    match kind:
        case "TransactionStmt":
            return _TRANSACTION.get(node.get("kind", ""), "")
        case "VariableSetStmt":
            resets = {"VAR_RESET": "RESET", "VAR_RESET_ALL": "RESET ALL"}
            return resets.get(node.get("kind", ""), "")
        case "SelectStmt":
            return "SELECT INTO" if "intoClause" in node else ""
        case "CopyStmt":
            return "COPY FROM" if node.get("is_from") else "COPY TO"
        case "ExplainStmt":
            return "EXPLAIN ANALYZE" if analyzes(node) else ""
        case "DiscardStmt":
            return str(node.get("target", "")).replace("_", " ")
        case "CreateTableAsStmt":
            return "CREATE MATERIALIZED VIEW" if object_type(node) == "MATVIEW" else ""
        case "DefineStmt":
            what = str(node.get("kind", "")).removeprefix("OBJECT_")
            return f"CREATE {_OBJECTS.get(what, what.replace('_', ' '))}"
        case _:
            return ""
