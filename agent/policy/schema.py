"""The policy as authored, after checks: what `parse_policy` returns."""

from dataclasses import dataclass, field

from agent.model.credential import Shape
from agent.model.grant import AwsOptions, Durability, PostgresOptions, UpstreamTls
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
    aws: AwsOptions | None = None  # of shape aws-keys: always there


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


@dataclass(frozen=True, slots=True)
class Unit:
    """Who may start: processes of this systemd unit (of the system, not of a user's manager)."""

    name: str


@dataclass(frozen=True, slots=True)
class Container:
    """Who may start: processes of a container of this runtime. "" means any."""

    runtime: str
    id: str  # or how it begins
    parent: str  # the cgroup above the container's
    pod: str  # its uid, without dashes


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that a token must have: one of these values. An empty tuple matches nothing."""

    name: str
    values: tuple[str | bool, ...]  # `*` of a text is any characters


@dataclass(frozen=True, slots=True)
class Token:
    """Who may start: bearers of a token of this issuer, for this audience, with these claims."""

    issuer: str  # URL
    audience: str
    claims: tuple[Claim, ...]


Who = User | Uid | Group | Unit | Container | Token


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of identity tokens, and how far it is trusted."""

    url: str  # as `iss` has it
    audience: str  # where an entry of who names none
    ca: str  # path of a PEM file; "" means the system's roots
    algorithms: tuple[str, ...]
    clock_skew_s: int
    max_age_s: int  # of a token, since iat
    refresh_s: int  # its keys are fetched again when they are older
    stale_s: int  # and used so long when they can't be
    reusable: bool  # a token may be shown again, by the same user
    jwks_file: str = ""  # path of its keys; "" means that they are fetched


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of the week; see hours.py. Days count from Monday, minutes from midnight."""

    text: str
    days: tuple[int, ...]
    begin: int
    end: int
    zone: str


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
    max_concurrent: int = 0  # runs that live at once; 0: no limit of its own
    hours: tuple[Hours, ...] | None = None  # in which a run may start; None: at any time


@dataclass(frozen=True, slots=True)
class Policy:
    """All files together. revision is the hex SHA-256 of the canonical form."""

    targets: dict[TargetName, TargetPolicy]
    loops: dict[LoopName, LoopPolicy]
    revision: str
    warnings: tuple[Problem, ...]
    issuers: dict[str, Issuer] = field(default_factory=dict)  # by URL: all that loops name
