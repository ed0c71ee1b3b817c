"""Every node of the raw grammar: which say nothing by themselves, which statement does what.

A node that is in no table makes its statement UNKNOWN. tests/unit/protocols/postgres/sql/
test_kinds.py holds the tables against the list of nodes that libpg_query's package has.
"""

from collections.abc import Mapping
from types import MappingProxyType

from agent.model.sql import Effect
from agent.protocols.postgres.sql.words import words

# Nodes whose meaning is that of what stands in them.
NEUTRAL = words(
    """
Alias A_ArrayExpr A_Expr A_Indices AccessPriv ATAlterConstraint BitString BoolExpr Boolean
BooleanTest CaseExpr CaseWhen CoalesceExpr CollateClause ColumnDef CommonTableExpr Constraint
CreateOpClassItem CTECycleClause CTESearchClause CurrentOfExpr DefElem Float FunctionParameter
GroupingFunc GroupingSet IndexElem InferClause Integer IntoClause JoinExpr JsonAggConstructor
JsonArgument JsonArrayAgg JsonArrayConstructor JsonArrayQueryConstructor JsonBehavior JsonFormat
JsonFuncExpr JsonIsPredicate JsonKeyValue JsonObjectAgg JsonObjectConstructor JsonOutput
JsonParseExpr JsonReturning JsonScalarExpr JsonSerializeExpr JsonTable JsonTableColumn
JsonTablePathSpec JsonValueExpr List MergeSupportFunc MergeWhenClause MinMaxExpr MultiAssignRef
NamedArgExpr NullTest ObjectWithArgs OnConflictClause ParamRef PartitionBoundSpec PartitionElem
PartitionRangeDatum PartitionSpec PublicationObjSpec PublicationTable RangeTableFunc
RangeTableFuncCol ReturningClause ReturningOption ReturnStmt RoleSpec RowExpr
SetToDefault SortBy SQLValueFunction StatsElem String SubLink TableLikeClause TriggerTransition
TypeCast TypeName VacuumRelation WindowDef WithClause XmlExpr XmlSerialize PartitionCmd
LockingClause ResTarget RangeSubselect RangeFunction AlterTableCmd
"""
)

# They have nothing in them that could matter.
LEAVES = frozenset({"A_Const", "A_Star", "ParamRef", "SetToDefault", "SQLValueFunction", "String"})

# The kinds of fields that hold a node without its name around it.
FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "action": "GrantStmt", "alias": "Alias", "authrole": "RoleSpec", "base": "CreateStmt",
        "bound": "PartitionBoundSpec", "boolval": "Boolean", "bsval": "BitString",
        "collClause": "CollateClause", "constrrel": "RangeVar", "constructor": "JsonAggConstructor",
        "context_item": "JsonValueExpr", "cycle_clause": "CTECycleClause", "extname": "String",
        "format": "JsonFormat", "func": "ObjectWithArgs", "fromsql": "ObjectWithArgs",
        "funccall": "FuncCall", "fval": "Float", "grantor": "RoleSpec",
        "identitySequence": "RangeVar", "infer": "InferClause", "into": "IntoClause",
        "intoClause": "IntoClause", "ival": "Integer", "join_using_alias": "Alias",
        "larg": "SelectStmt", "newowner": "RoleSpec", "newrole": "RoleSpec",
        "on_empty": "JsonBehavior", "on_error": "JsonBehavior",
        "onConflictClause": "OnConflictClause", "opername": "ObjectWithArgs",
        "output": "JsonOutput", "over": "WindowDef", "owner": "RoleSpec",
        "partbound": "PartitionBoundSpec", "partspec": "PartitionSpec",
        "pathspec": "JsonTablePathSpec", "pktable": "RangeVar", "pubtable": "PublicationTable",
        "rarg": "SelectStmt", "rel": "RangeVar", "relation": "RangeVar",
        "returning": "JsonReturning", "returningClause": "ReturningClause",
        "role": "RoleSpec", "search_clause": "CTESearchClause", "sequence": "RangeVar",
        "setstmt": "VariableSetStmt", "sval": "String", "table": "RangeVar",
        "tosql": "ObjectWithArgs", "user": "RoleSpec", "view": "RangeVar", "typevar": "RangeVar",
        "withClause": "WithClause",
        "argType": "TypeName", "coltype": "TypeName", "datatype": "TypeName",
        "ofTypename": "TypeName", "returnType": "TypeName", "sourcetype": "TypeName",
        "storedtype": "TypeName", "targettype": "TypeName", "type_name": "TypeName",
        "typeName": "TypeName",
        "expr": "JsonValueExpr", "key": "JsonValueExpr", "val": "JsonValueExpr",
        "value": "JsonValueExpr", "arg": "JsonKeyValue", "name": "RangeVar",
    }
)  # fmt: skip

_R, _W, _D = Effect.READ, Effect.WRITE, Effect.DDL
_P, _S, _A = Effect.PRIVILEGE, Effect.SESSION, Effect.ADMIN

# The command's name and what it does by itself. What stands in it, and what `statements` finds
# in its fields, comes on top.
STATEMENTS: Mapping[str, tuple[str, frozenset[Effect]]] = MappingProxyType(
    {
        kind: (command, frozenset(effects))
        for kind, command, effects in (
            ("SelectStmt", "SELECT", {_R}),
            ("InsertStmt", "INSERT", {_W}),
            ("UpdateStmt", "UPDATE", {_W}),
            ("DeleteStmt", "DELETE", {_W}),
            ("MergeStmt", "MERGE", {_W}),
            ("CopyStmt", "COPY", set[Effect]()),
            ("VariableShowStmt", "SHOW", {_R}),
            ("FetchStmt", "FETCH", {_R}),
            ("ExplainStmt", "EXPLAIN", {_R}),
            # the session
            ("TransactionStmt", "TRANSACTION", {_S}),
            ("VariableSetStmt", "SET", {_S}),
            ("DeclareCursorStmt", "DECLARE", {_S}),
            ("ClosePortalStmt", "CLOSE", {_S}),
            ("PrepareStmt", "PREPARE", {_S}),
            ("DeallocateStmt", "DEALLOCATE", {_S}),
            ("DiscardStmt", "DISCARD", {_S}),
            ("ConstraintsSetStmt", "SET CONSTRAINTS", {_S}),
            ("ListenStmt", "LISTEN", {_S}),
            ("UnlistenStmt", "UNLISTEN", {_S}),
            ("NotifyStmt", "NOTIFY", {_W}),  # other sessions get it
            ("LockStmt", "LOCK TABLE", set[Effect]()),
            # what it runs stands elsewhere
            ("ExecuteStmt", "EXECUTE", {Effect.UNKNOWN}),
            ("DoStmt", "DO", {Effect.UNKNOWN}),
            ("CallStmt", "CALL", {_S}),  # a procedure may end the transaction; its call counts
            # objects
            ("TruncateStmt", "TRUNCATE TABLE", {_D}),
            ("CreateStmt", "CREATE TABLE", {_D}),
            ("CreateTableAsStmt", "CREATE TABLE AS", {_D}),
            ("CreateSchemaStmt", "CREATE SCHEMA", {_D}),
            ("CreateSeqStmt", "CREATE SEQUENCE", {_D}),
            ("CreateDomainStmt", "CREATE DOMAIN", {_D}),
            ("CreateEnumStmt", "CREATE TYPE", {_D}),
            ("CreateRangeStmt", "CREATE TYPE", {_D}),
            ("CompositeTypeStmt", "CREATE TYPE", {_D}),
            ("CreateStatsStmt", "CREATE STATISTICS", {_D}),
            ("CreateTrigStmt", "CREATE TRIGGER", {_D}),
            ("CreateFunctionStmt", "CREATE FUNCTION", {_D}),
            ("CreateCastStmt", "CREATE CAST", {_D}),
            ("CreateConversionStmt", "CREATE CONVERSION", {_D}),
            ("CreateTransformStmt", "CREATE TRANSFORM", {_D}),
            ("CreateOpClassStmt", "CREATE OPERATOR CLASS", {_D}),
            ("CreateOpFamilyStmt", "CREATE OPERATOR FAMILY", {_D}),
            ("DefineStmt", "CREATE", {_D}),
            ("IndexStmt", "CREATE INDEX", {_D}),
            ("ViewStmt", "CREATE VIEW", {_D}),
            ("RuleStmt", "CREATE RULE", {_D}),
            ("AlterTableStmt", "ALTER TABLE", {_D}),
            ("AlterTableMoveAllStmt", "ALTER TABLE", {_D}),
            ("AlterDomainStmt", "ALTER DOMAIN", {_D}),
            ("AlterEnumStmt", "ALTER TYPE", {_D}),
            ("AlterTypeStmt", "ALTER TYPE", {_D}),
            ("AlterSeqStmt", "ALTER SEQUENCE", {_D}),
            ("AlterStatsStmt", "ALTER STATISTICS", {_D}),
            ("AlterCollationStmt", "ALTER COLLATION", {_D}),
            ("AlterFunctionStmt", "ALTER FUNCTION", {_D}),
            ("AlterOperatorStmt", "ALTER OPERATOR", {_D}),
            ("AlterOpFamilyStmt", "ALTER OPERATOR FAMILY", {_D}),
            ("AlterTSDictionaryStmt", "ALTER TEXT SEARCH DICTIONARY", {_D}),
            ("AlterTSConfigurationStmt", "ALTER TEXT SEARCH CONFIGURATION", {_D}),
            ("AlterObjectDependsStmt", "ALTER", {_D}),
            ("AlterObjectSchemaStmt", "ALTER", {_D}),
            ("RenameStmt", "ALTER", {_D}),
            ("ReplicaIdentityStmt", "ALTER TABLE", {_D}),
            ("DropStmt", "DROP", {_D}),
            ("CommentStmt", "COMMENT", {_D}),
            # upkeep: new files, new statistics, no new rows
            ("VacuumStmt", "VACUUM", {_D}),
            ("ClusterStmt", "CLUSTER", {_D}),
            ("ReindexStmt", "REINDEX", {_D}),
            ("RefreshMatViewStmt", "REFRESH MATERIALIZED VIEW", {_D}),
            # who may do what
            ("GrantStmt", "GRANT", {_P}),
            ("GrantRoleStmt", "GRANT", {_P}),
            ("AlterDefaultPrivilegesStmt", "ALTER DEFAULT PRIVILEGES", {_P}),
            ("CreateRoleStmt", "CREATE ROLE", {_P}),
            ("AlterRoleStmt", "ALTER ROLE", {_P}),
            ("AlterRoleSetStmt", "ALTER ROLE", {_P, _A}),
            ("DropRoleStmt", "DROP ROLE", {_P}),
            ("CreatePolicyStmt", "CREATE POLICY", {_P, _D}),
            ("AlterPolicyStmt", "ALTER POLICY", {_P, _D}),
            ("AlterOwnerStmt", "ALTER", {_P, _D}),
            ("ReassignOwnedStmt", "REASSIGN OWNED", {_P, _D}),
            ("DropOwnedStmt", "DROP OWNED", {_P, _D}),
            ("SecLabelStmt", "SECURITY LABEL", {_P, _A}),
            # the server, its files and programs, other servers
            ("AlterSystemStmt", "ALTER SYSTEM", {_A}),
            ("AlterDatabaseSetStmt", "ALTER DATABASE", {_A}),
            ("AlterDatabaseStmt", "ALTER DATABASE", {_A}),
            ("AlterDatabaseRefreshCollStmt", "ALTER DATABASE", {_A}),
            ("CreatedbStmt", "CREATE DATABASE", {_A, _D}),
            ("DropdbStmt", "DROP DATABASE", {_A, _D}),
            ("CheckPointStmt", "CHECKPOINT", {_A}),
            ("LoadStmt", "LOAD", {_A}),
            ("CreateTableSpaceStmt", "CREATE TABLESPACE", {_A, _D}),
            ("DropTableSpaceStmt", "DROP TABLESPACE", {_A, _D}),
            ("AlterTableSpaceOptionsStmt", "ALTER TABLESPACE", {_A, _D}),
            ("CreateExtensionStmt", "CREATE EXTENSION", {_A, _D}),
            ("AlterExtensionStmt", "ALTER EXTENSION", {_A, _D}),
            ("AlterExtensionContentsStmt", "ALTER EXTENSION", {_A, _D}),
            ("CreateFdwStmt", "CREATE FOREIGN DATA WRAPPER", {_A, _D}),
            ("AlterFdwStmt", "ALTER FOREIGN DATA WRAPPER", {_A, _D}),
            ("CreateForeignServerStmt", "CREATE SERVER", {_A, _D}),
            ("AlterForeignServerStmt", "ALTER SERVER", {_A, _D}),
            ("CreateForeignTableStmt", "CREATE FOREIGN TABLE", {_A, _D}),
            ("CreateUserMappingStmt", "CREATE USER MAPPING", {_A, _P}),
            ("AlterUserMappingStmt", "ALTER USER MAPPING", {_A, _P}),
            ("DropUserMappingStmt", "DROP USER MAPPING", {_A, _P}),
            ("ImportForeignSchemaStmt", "IMPORT FOREIGN SCHEMA", {_A, _D}),
            ("CreateAmStmt", "CREATE ACCESS METHOD", {_A, _D}),
            ("CreateEventTrigStmt", "CREATE EVENT TRIGGER", {_A, _D}),
            ("AlterEventTrigStmt", "ALTER EVENT TRIGGER", {_A, _D}),
            ("CreatePLangStmt", "CREATE LANGUAGE", {_A, _D}),
            ("CreatePublicationStmt", "CREATE PUBLICATION", {_A, _D}),
            ("AlterPublicationStmt", "ALTER PUBLICATION", {_A, _D}),
            ("CreateSubscriptionStmt", "CREATE SUBSCRIPTION", {_A, _D}),
            ("AlterSubscriptionStmt", "ALTER SUBSCRIPTION", {_A, _D}),
            ("DropSubscriptionStmt", "DROP SUBSCRIPTION", {_A, _D}),
        )
    }
)
