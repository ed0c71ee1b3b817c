"""The policy as authored, after checks: what `parse_policy` returns."""

from dataclasses import dataclass

from agent.model.credential import Shape
from agent.model.grant import Durability, PostgresOptions, UpstreamTls
from agent.model.ids import LoopName, TargetName
from agent.model.sql import Effect
from agent.model.verdict import Literals, Mode
from agent.policy.errors import Problem


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where a target's credential comes from, and its shape. It never holds the secret.

    settings are the provider's own, as (key, value) in the order of keys. A value that is a list
    or a mapping in the policy is JSON text.
    """

    provider: str
    settings: tuple[tuple[str, str], ...]
    shape: Shape
    name: str  # of the header or query parameter; "" for other shapes
    user: str  # of basic, password or client-certificate; "" for other shapes
    ttl_s: int = 0  # how long one lease lasts; 0: as the provider does
    max_ttl_s: int = 0  # how long renewals may take it


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """A named upstream. host is canonical: lower-case A-label or IP literal."""

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
    credential: CredentialSource | None
    postgres: PostgresOptions | None = None  # of protocol postgres: always there


@dataclass(frozen=True, slots=True)
class User:
    """Who may start: this user, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Uid:
    """Who may start: this user, by number."""

    uid: int


@dataclass(frozen=True, slots=True)
class Group:
    """Who may start: members of this group, by name, as the kernel holds them."""

    name: str


Who = User | Uid | Group


@dataclass(frozen=True, slots=True)
class SqlRulePolicy:
    """What a rule says of statements. None means any; an empty tuple as in RulePolicy."""

    effects: tuple[Effect, ...] | None
    tables: tuple[str, ...] | None
    schemas: tuple[str, ...] | None
    columns: tuple[str, ...] | None
    functions: tuple[str, ...] | None
    unbounded: bool | None
    max_rows: int  # 0: no limit
    literals: Literals


@dataclass(frozen=True, slots=True)
class RulePolicy:
    """One rule. None means any; an empty tuple means nothing may match (see compile)."""

    target: TargetName
    effect: str  # "allow" | "deny"
    mode: Mode
    methods: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    sql: SqlRulePolicy | None = None  # of a rule for a target that speaks SQL


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """A named job. Root may start every loop; who says who else may."""

    name: LoopName
    who: tuple[Who, ...]
    max_duration_s: int  # 0: no limit
    adopt_joiners: bool
    rules: tuple[RulePolicy, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """All files together. revision is the hex SHA-256 of the canonical form."""

    targets: dict[TargetName, TargetPolicy]
    loops: dict[LoopName, LoopPolicy]
    revision: str
    warnings: tuple[Problem, ...]
