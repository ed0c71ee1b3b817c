"""Compiled permission: what one run may do at one target."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.credential import Shape
from agent.model.ids import LoopName, RuleId, RunId, TargetName
from agent.model.sql import Effect
from agent.model.verdict import Literals, Mode


class Durability(StrEnum):
    """Where an intent record must be before the operation's first byte goes upstream."""

    DISK = "disk"  # on stable storage: fdatasync returned
    PROCESS = "process"  # in the page cache: survives any death of ours, not a power cut


class UpstreamTls(StrEnum):
    """How the upstream proves itself."""

    VERIFY_FULL = "verify-full"
    NONE = "none"  # clear text; injection then needs allow_cleartext


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """What a target of protocol postgres has beside the common."""

    database: str = ""  # the one that every session gets; "" leaves it to the loop
    databases: tuple[str, ...] = ()  # those a loop may ask for; empty: any, if database is ""
    read_only: bool = False  # sessions start, and stay, default_transaction_read_only
    settings: tuple[tuple[str, str], ...] = ()  # sent at startup: search_path, statement_timeout
    functions: tuple[tuple[str, Effect], ...] = ()  # "schema.name" or "name" → what it does
    auth: tuple[str, ...] = ()  # logins that the upstream may ask for; empty: by the credential


@dataclass(frozen=True, slots=True)
class AwsOptions:
    """What requests to a target are signed for (SigV4's credential scope)."""

    service: str
    region: str


@dataclass(frozen=True, slots=True)
class Target:
    """A named upstream. One canonical form serves credential, policy, dial and record.

    host is a lower-case A-label without trailing dot, or an IP literal. dial is where
    we connect. ca_pem "" means the system's roots.
    """

    name: TargetName
    protocol: str
    host: str
    port: int
    tls: UpstreamTls
    ca_pem: str  # "" means the system's roots
    dial_host: str
    dial_port: int
    allow_cleartext: bool
    durability: Durability
    synthetic4: str  # "" when the host is an IP literal
    synthetic6: str
    shape: Shape | None  # None: no credential is injected
    postgres: PostgresOptions | None = None  # of protocol postgres: always there
    aws: AwsOptions | None = None  # of shape aws-keys: always there


@dataclass(frozen=True, slots=True)
class SqlMatch:
    """What a rule says of statements. Empty means any; globs are as policy/sql.py reads them."""

    effects: frozenset[Effect] = frozenset()
    tables: tuple[str, ...] = ()  # "schema.name" or "name"
    schemas: tuple[str, ...] = ()  # of the same tables
    columns: tuple[str, ...] = ()  # "table.column" or "column"
    functions: tuple[str, ...] = ()
    unbounded: bool | None = None
    max_rows: int = 0  # of an allow rule, for each result; 0: no limit
    literals: Literals = Literals.KEEP


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule. methods empty means any; path patterns as policy/patterns.py compiles."""

    rule_id: RuleId
    effect: str  # "allow" | "deny"
    mode: Mode
    methods: frozenset[str]
    paths: tuple[str, ...]  # glob patterns, canonical paths; empty means any
    sql: SqlMatch | None = None  # of a rule for a target that speaks SQL


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission of a run at a target, of one policy revision."""

    run_id: RunId
    loop: LoopName
    target: Target
    revision: str  # hex SHA-256 of the policy's canonical form
    rules: tuple[Rule, ...]
    expires_ms: int  # Unix milliseconds; 0: with the run
