"""Audit events for tests of what records and stores them."""

import dataclasses
from dataclasses import replace

from agent.model.audit import (
    AuditEvent,
    OperationDenied,
    OperationFinished,
    OperationIntended,
    Outcome,
    RunStarted,
    SessionClosed,
    SessionOpened,
)
from agent.model.flow import Attribution, Endpoint, Evidence, Process, Tier
from agent.model.grant import Durability
from agent.model.ids import (
    CgroupId,
    LeaseId,
    LoopName,
    OperationId,
    RuleId,
    RunId,
    SessionId,
    Tag,
    TargetName,
    encode_ulid,
)
from agent.model.loop import Initiator, Parent, Run, TokenIdentity
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.sql import Call, Column, Effect, Relation, Statement

LOOP = LoopName("nightly")
TARGET = TargetName("github")
DATABASE = TargetName("orders-db")
RULE = RuleId("nightly/0")


def ulid(number: int) -> str:
    """An identifier with this number."""
    return encode_ulid(number.to_bytes(16, "big"))


BEARER = TokenIdentity(
    "https://ci.example", "repo:acme/orders:ref:refs/heads/main", (("repository", "acme/orders"),)
)


def run_started(
    run: int = 1, user: str = "alice", token: TokenIdentity | None = None
) -> RunStarted:
    """A run of the loop."""
    initiator = Initiator(1000, user, 4000, "/usr/bin/loopwarden", "pts/0", "user.slice")
    if token is not None:
        parents = (Parent(3999, 1000, "sh", "/bin/sh"), Parent(1, 0, "systemd", ""))
        initiator = replace(
            initiator, service="ci.service", invocation="0" * 32, container="docker/3f2a",
            parents=parents, token=token,
        )  # fmt: skip
    return RunStarted(
        Run(
            RunId(ulid(run)),
            LOOP,
            Tag(0xFFFF_FFFF_FFFF_FFF1),
            CgroupId(77),
            "/loopwarden.slice/run",
            Tier.LAUNCHED,
            adopt_joiners=False,
            initiator=initiator,
            argv=("python", "job.py"),
            started_ms=1_700_000_000_000,
        )
    )


def process(pid: int, exe: str) -> Process:
    """A process of the tree."""
    return Process(pid, pid * 10, 1000, exe.rpartition("/")[2], exe, (exe, "-x"), False)


def session_opened(
    session: int, run: int = 1, target: str | None = TARGET, worker: str = "proxy@0"
) -> SessionOpened:
    """A session by curl, below sh and python."""
    return SessionOpened(
        Attribution(
            SessionId(ulid(session)),
            RunId(ulid(run)),
            Tag(0xFFFF_FFFF_FFFF_FFF1),
            CgroupId(77),
            Evidence.TAG_AND_CGROUP,
            Tier.LAUNCHED,
            Endpoint("198.18.0.1", 443),
            5,
            6,
            7,
            process(4003, "/usr/bin/curl"),
            (process(4002, "/bin/sh"), process(4001, "/usr/bin/python3")),
        ),
        LOOP,
        None if target is None else TargetName(target),
        worker,
    )


def session_closed(session: int, operations: int = 1) -> SessionClosed:
    """The end of a session."""
    return SessionClosed(
        SessionId(ulid(session)),
        Reason.DOWNSTREAM_CLOSED,
        operations=operations,
        downstream_bytes=2_000,
        upstream_bytes=300,
        duration_ns=5_000_000,
    )


def intended(operation: int, session: int = 1, run: int = 1) -> OperationIntended:
    """An allowed call."""
    return OperationIntended(
        SessionId(ulid(session)),
        RunId(ulid(run)),
        LOOP,
        TARGET,
        Operation(
            OperationId(ulid(operation)), "http1", "GET", f"/v1/{operation}", (("host", "api"),)
        ),
        RULE,
        LeaseId(ulid(900)),
        Durability.DISK,
    )


QUERY = Statement(
    "SELECT",
    frozenset({Effect.READ, Effect.WRITE}),
    reads=(Relation("public", "orders"),),
    writes=(Relation("", "audit_log"),),
    columns_read=(Column("orders", "email"),),
    columns_written=(Column("audit_log", "*"),),
    calls=(Call("app", "report", Effect.UNKNOWN),),
    unbounded=True,
    returns_rows=True,
    why="a function that nobody knows",
    prepared="plan",
    settings=(("work_mem", "64MB"), ("search_path", None)),
)


def queried(operation: int, session: int = 1, *statements: Statement) -> OperationIntended:
    """An allowed query, with a bound value."""
    one = intended(operation, session)
    return dataclasses.replace(
        one,
        target=DATABASE,
        operation=Operation(
            one.operation.operation_id,
            "postgres",
            "SELECT",
            "SELECT email FROM public.orders WHERE id = $1",
            (("$1", "42"),),
            statements or (QUERY,),
        ),
    )


def answered(operation: int, session: int = 1, rows: int = 3, status: str = "") -> AuditEvent:
    """The outcome of a query; status is an SQLSTATE."""
    return dataclasses.replace(
        _finished(operation, session),
        status=status,
        rows=rows,
        attributes=(("command_tag", f"SELECT {rows}"), ("transaction_state", "I")),
    )


def finished(operation: int, session: int = 1, outcome: Outcome = Outcome.ANSWERED) -> AuditEvent:
    """Its outcome."""
    return _finished(operation, session, outcome)


def _finished(
    operation: int, session: int, outcome: Outcome = Outcome.ANSWERED
) -> OperationFinished:
    return OperationFinished(
        SessionId(ulid(session)),
        OperationId(ulid(operation)),
        outcome,
        Reason.DONE,
        status="200",
        request_bytes=0,
        response_bytes=1_024,
        duration_ns=1_234_567,
        upstream="192.0.2.1:443",
    )


def denied(operation: int, session: int = 1, run: int = 1) -> OperationDenied:
    """A call that the policy does not allow."""
    return OperationDenied(
        SessionId(ulid(session)),
        RunId(ulid(run)),
        LOOP,
        TARGET,
        Operation(OperationId(ulid(operation)), "http1", "DELETE", "/v1/secret", ()),
        RuleId("default-deny"),
        Reason.POLICY_DENIED,
        "no rule allows DELETE /v1/secret",
        "403",
    )
