"""Compiled permission: what one run may do at one target."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.credential import Shape
from agent.model.ids import LoopName, RuleId, RunId, TargetName
from agent.model.verdict import Mode


class Durability(StrEnum):
    """Where an intent record must be before the operation's first byte goes upstream."""

    DISK = "disk"  # on stable storage: fdatasync returned
    PROCESS = "process"  # in the page cache: survives any death of ours, not a power cut


class UpstreamTls(StrEnum):
    """How the upstream proves itself."""

    VERIFY_FULL = "verify-full"
    NONE = "none"  # clear text; injection then needs allow_cleartext


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


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule. methods empty means any; path patterns as policy/patterns.py compiles."""

    rule_id: RuleId
    effect: str  # "allow" | "deny"
    mode: Mode
    methods: frozenset[str]
    paths: tuple[str, ...]  # glob patterns, canonical paths; empty means any


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission of a run at a target, of one policy revision."""

    run_id: RunId
    loop: LoopName
    target: Target
    revision: str  # hex SHA-256 of the policy's canonical form
    rules: tuple[Rule, ...]
    expires_ms: int  # Unix milliseconds; 0: with the run
