"""Audit events → serialised Records: by the generated code, and by hand where it is hot."""

from collections.abc import Callable, Sequence
from typing import Any

from agent.model import audit
from agent.model.flow import Attribution, Process
from agent.model.loop import Initiator
from agent.model.operation import Operation
from agent.model.redaction_sql import redact_sql
from agent.model.sql import Statement
from agent.pb import audit_pb2 as pb
from agent.reporter import wire

Fields = dict[str, Any]


def _process(process: Process) -> pb.Process:
    return pb.Process(
        pid=process.pid,
        start_ns=process.start_ns,
        uid=process.uid,
        comm=process.comm,
        exe=process.exe,
        argv=process.argv,
        argv_truncated=process.argv_truncated,
    )


def _attribution(one: Attribution) -> pb.Attribution:
    return pb.Attribution(
        session_id=one.session_id,
        run_id=one.run_id,
        tag=one.tag,
        cgroup_id=one.cgroup_id,
        evidence=one.evidence,
        tier=one.tier,
        destination=pb.Endpoint(address=one.destination.address, port=one.destination.port),
        socket_cookie=one.socket_cookie,
        netns_cookie=one.netns_cookie,
        connect_ns=one.connect_ns,
        process=_process(one.process),
        ancestors=[_process(process) for process in one.ancestors],
    )


def _operation(one: Operation) -> pb.Operation:
    return pb.Operation(
        operation_id=one.operation_id,
        protocol=one.protocol,
        verb=one.verb,
        resource=redact_sql(one.resource) if one.statements else one.resource,
        attributes=[
            pb.Operation.Attribute(name=name, value=value) for name, value in one.attributes
        ],
        statements=map(_statement, one.statements),
    )


def _statement(one: Statement) -> pb.Statement:
    kinds = pb.Statement
    return pb.Statement(
        kind=one.kind,
        effects=sorted(one.effects),
        reads=[kinds.Relation(schema=each.schema, name=each.name) for each in one.reads],
        writes=[kinds.Relation(schema=each.schema, name=each.name) for each in one.writes],
        columns_read=[kinds.Column(table=each.table, name=each.name) for each in one.columns_read],
        columns_written=[
            kinds.Column(table=each.table, name=each.name) for each in one.columns_written
        ],
        calls=[
            kinds.Call(schema=each.schema, name=each.name, effect=each.effect) for each in one.calls
        ],
        unbounded=one.unbounded,
        returns_rows=one.returns_rows,
        why=one.why,
        prepared=one.prepared,
        settings=[
            kinds.Setting(name=name, value=value or "", initial=value is None)
            for name, value in one.settings
        ],
    )


def _initiator(by: Initiator) -> pb.Initiator:
    token = None
    if by.token is not None:
        claims = [pb.TokenIdentity.Claim(name=name, value=value) for name, value in by.token.claims]
        token = pb.TokenIdentity(issuer=by.token.issuer, subject=by.token.subject, claims=claims)
    return pb.Initiator(
        uid=by.uid,
        user=by.user,
        pid=by.pid,
        exe=by.exe,
        tty=by.tty,
        unit=by.unit,
        service=by.service,
        invocation=by.invocation,
        container=by.container,
        parents=[
            pb.Parent(pid=one.pid, uid=one.uid, comm=one.comm, exe=one.exe) for one in by.parents
        ],
        token=token,
    )


def _run_started(event: audit.RunStarted) -> Fields:
    run = event.run
    return {
        "run_started": pb.RunStarted(
            run_id=run.run_id,
            loop=run.loop,
            tag=run.tag,
            cgroup_id=run.cgroup_id,
            cgroup_path=run.cgroup_path,
            tier=run.tier,
            adopt_joiners=run.adopt_joiners,
            initiator=_initiator(run.initiator),
            argv=run.argv,
            started_ms=run.started_ms,
        )
    }


def _run_ended(event: audit.RunEnded) -> Fields:
    return {"run_ended": pb.RunEnded(run_id=event.run_id, reason=event.reason)}


def _session_opened(event: audit.SessionOpened) -> Fields:
    return {
        "session_opened": pb.SessionOpened(
            attribution=_attribution(event.attribution),
            loop=event.loop,
            target=event.target or "",
            worker=event.worker,
        )
    }


def _session_refused(event: audit.SessionRefused) -> Fields:
    return {
        "session_refused": pb.SessionRefused(
            session_id=event.flow.session_id, detail=event.flow.detail, reason=event.reason
        )
    }


def _operation_denied(event: audit.OperationDenied) -> Fields:
    return {
        "operation_denied": pb.OperationDenied(
            session_id=event.session_id,
            run_id=event.run_id,
            loop=event.loop,
            target=event.target or "",
            operation=_operation(event.operation),
            rule=event.rule,
            reason=event.reason,
            explanation=event.explanation,
            status=event.status,
        )
    }


def _session_closed(event: audit.SessionClosed) -> Fields:
    return {
        "session_closed": pb.SessionClosed(
            session_id=event.session_id,
            reason=event.reason,
            operations=event.operations,
            downstream_bytes=event.downstream_bytes,
            upstream_bytes=event.upstream_bytes,
            duration_ns=event.duration_ns,
        )
    }


def _lease_changed(event: audit.LeaseChanged) -> Fields:
    return {
        "lease_changed": pb.LeaseChanged(
            lease_id=event.lease_id,
            run_id=event.run_id,
            target=event.target,
            provider=event.provider,
            state=event.state,
        )
    }


def _alarmed(event: audit.Alarmed) -> Fields:
    return {
        "alarmed": pb.Alarmed(alarm=event.alarm, detail=event.detail, run_id=event.run_id or "")
    }


def _heartbeat(event: audit.Heartbeat) -> Fields:
    return {"heartbeat": pb.Heartbeat(uptime_s=event.uptime_s)}


_FIELDS: dict[type, Callable[[Any], Fields]] = {
    audit.RunStarted: _run_started,
    audit.RunEnded: _run_ended,
    audit.SessionOpened: _session_opened,
    audit.SessionRefused: _session_refused,
    audit.OperationDenied: _operation_denied,
    audit.SessionClosed: _session_closed,
    audit.LeaseChanged: _lease_changed,
    audit.Alarmed: _alarmed,
    audit.Heartbeat: _heartbeat,
}


# the hot kinds, with their fields' numbers in Record
_HOT: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    audit.OperationIntended: (pb.Record.OPERATION_INTENDED_FIELD_NUMBER, wire.operation_intended),
    audit.OperationFinished: (pb.Record.OPERATION_FINISHED_FIELD_NUMBER, wire.operation_finished),
}


class Stamp:
    """What the records of one turn of the event loop have in common."""

    __slots__ = ("boot_id", "head", "monotonic_ns", "unix_ms")

    def __init__(self, boot_id: str, unix_ms: int, monotonic_ns: int) -> None:
        self.boot_id = boot_id
        self.unix_ms = unix_ms
        self.monotonic_ns = monotonic_ns
        self.head = wire.record_head(boot_id, unix_ms, monotonic_ns)


def serialize_records(
    events: Sequence[audit.AuditEvent], first_seq: int, stamp: Stamp, role: str
) -> list[bytes]:
    """Return the bytes that are chained, stored and uploaded, for ever the same.

    Raises:
        ValueError: a field does not fit its wire type (a number out of range, a lone surrogate).
    """
    records = []
    try:
        head = stamp.head + wire.texts(5, role)
        for seq, event in enumerate(events, first_seq):
            hot = _HOT.get(type(event))
            if hot is not None:
                field, serialize = hot
                records.append(wire.record(seq, head, field, serialize(event)))
            else:
                records.append(_serialize(event, seq, stamp, role))
    except UnicodeEncodeError as error:
        raise ValueError("an event with text that is not UTF-8") from error
    return records


def _serialize(event: audit.AuditEvent, seq: int, stamp: Stamp, role: str) -> bytes:
    return pb.Record(
        seq=seq,
        boot_id=stamp.boot_id,
        unix_ms=stamp.unix_ms,
        monotonic_ns=stamp.monotonic_ns,
        role=role,
        **_FIELDS[type(event)](event),
    ).SerializeToString()
