"""Records → rows that can be queried. Projected rows can be made again from the records."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf.message import Message
from sqlalchemy import Connection, bindparam, or_, update

from agent.collector import schema, statements
from agent.collector.store import insert_new
from agent.pb import audit_pb2 as pb

TEXT_CHARACTERS_MAX = 4_096  # of one projected field; the record itself is kept whole
TAIL_CHARACTERS = 512  # of it, kept from the end
INT64_MAX = (1 << 63) - 1
RESOURCE_CHARACTERS_MAX = 16_384  # of a query's text, which a host bounds as well
JSON_COLUMNS = frozenset(
    ("initiator", "argv", "process", "ancestors", "attributes", "statements", "result")
)
Row = dict[str, Any]
_UNKNOWN = "unknown"


@dataclass(slots=True)
class Projection:
    """Rows of one batch of one host, in the order in which they must be applied."""

    host_id: str
    inserts: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    finished: list[Row] = field(default_factory=list)
    closed: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    lease_states: list[Row] = field(default_factory=list)

    def add(self, record: pb.Record) -> None:
        """Take one record; an event that this version does not know is only stored."""
        kind = record.WhichOneof("event")
        if kind is not None and (project := _PROJECT.get(kind)) is not None:
            project(self, record, getattr(record, kind))

    def row(self, table: str, **values: Any) -> None:
        """Add a row of the host's own."""
        self.inserts[table].append({"host_id": self.host_id, **_bounded(values)})

    def write(self, connection: Connection) -> None:
        """Apply all rows in the caller's transaction."""
        for name, rows in self.inserts.items():
            insert_new(connection, schema.metadata.tables[name], rows)
        for statement, rows in (
            (_FINISH, self.finished),
            (_CLOSE, self.closed),
            (_END, self.ended),
            (_LEASE, self.lease_states),
        ):
            if rows:
                connection.execute(statement, [_bounded(row) for row in rows])


def _bounded(values: Row) -> Row:
    """Cut text and numbers to what every store takes; NUL is not text in PostgreSQL."""
    for name, value in values.items():
        if isinstance(value, str) and name not in JSON_COLUMNS:
            most = RESOURCE_CHARACTERS_MAX if name == "resource" else TEXT_CHARACTERS_MAX
            values[name] = bounded(value, most).replace("\0", "\N{REPLACEMENT CHARACTER}")
        elif isinstance(value, int) and value > INT64_MAX:
            values[name] = INT64_MAX
    return values


def bounded(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Return the text, or head, hash and tail of one that is longer."""
    if len(text) <= characters_max:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    mark = f"…[{len(text)} characters, sha256 {digest}]…"
    head = characters_max - TAIL_CHARACTERS - len(mark)
    return text[:head] + mark + text[-TAIL_CHARACTERS:]


def _json(value: object) -> str:
    """Return JSON that is never cut: a record bounds it, and its texts are bounded here."""
    return msgspec.json.encode(_bounded_leaves(value)).decode()


def _bounded_leaves(value: object) -> object:
    if isinstance(value, str):
        return bounded(value)
    if isinstance(value, dict):
        return {key: _bounded_leaves(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded_leaves(one) for one in value]
    return value


def _process(process: pb.Process) -> Row:
    return {
        "pid": process.pid,
        "start_ns": process.start_ns,
        "uid": process.uid,
        "comm": process.comm,
        "exe": process.exe,
        "argv": list(process.argv)[:64],
    }


def _run_started(to: Projection, record: pb.Record, event: pb.RunStarted) -> None:
    by = event.initiator
    to.row(
        "runs",
        run_id=event.run_id,
        loop=event.loop,
        tier=event.tier,
        cgroup_path=event.cgroup_path,
        initiator=_json(_initiator(by)),
        by_user=by.user,
        by_subject=by.token.subject,
        argv=_json(list(event.argv)),
        started_ms=event.started_ms or record.unix_ms,
    )


def _initiator(by: pb.Initiator) -> Row:
    token = None
    if by.HasField("token"):
        claims = {claim.name: claim.value for claim in by.token.claims}
        token = {"issuer": by.token.issuer, "subject": by.token.subject, "claims": claims}
    return {
        "uid": by.uid,
        "user": by.user,
        "pid": by.pid,
        "exe": by.exe,
        "tty": by.tty,
        "unit": by.unit,
        "service": by.service,
        "invocation": by.invocation,
        "container": by.container,
        "parents": [
            {"pid": one.pid, "uid": one.uid, "comm": one.comm, "exe": one.exe} for one in by.parents
        ],
        "token": token,
    }


def _run_ended(to: Projection, record: pb.Record, event: pb.RunEnded) -> None:
    to.ended.append(
        {
            "key_host": to.host_id,
            "key": event.run_id,
            "ended_ms": record.unix_ms,
            "end_reason": event.reason,
        }
    )


def _session_opened(to: Projection, record: pb.Record, event: pb.SessionOpened) -> None:
    one = event.attribution
    host = one.destination.address
    address = f"[{host}]" if ":" in host else host
    to.row(
        "sessions",
        session_id=one.session_id,
        run_id=one.run_id,
        loop=event.loop,
        target=event.target,
        last_seq=record.seq,
        opened_ms=record.unix_ms,
        closed_ms=None,
        reason="",
        detail="",
        evidence=one.evidence,
        tier=one.tier,
        destination=f"{address}:{one.destination.port}",
        pid=one.process.pid,
        exe=one.process.exe,
        process=_json(_process(one.process)),
        ancestors=_json([_process(process) for process in one.ancestors[:32]]),
    )


def _session_refused(to: Projection, record: pb.Record, event: pb.SessionRefused) -> None:
    to.row(
        "sessions",
        session_id=event.session_id,
        run_id="",
        loop="",
        target="",
        last_seq=record.seq,
        opened_ms=record.unix_ms,
        closed_ms=record.unix_ms,
        reason=event.reason,
        detail=event.detail,
        evidence="",
        tier="",
        destination="",
        pid=0,
        exe="",
        process="{}",
        ancestors="[]",
    )


def _operation(record: pb.Record, event: pb.OperationIntended | pb.OperationDenied) -> Row:
    one = event.operation
    return {
        "operation_id": one.operation_id,
        "session_id": event.session_id,
        "run_id": event.run_id,
        "loop": event.loop,
        "target": event.target,
        "seq": record.seq,
        "last_seq": record.seq,
        "at_ms": record.unix_ms,
        "protocol": one.protocol,
        "verb": one.verb,
        "resource": one.resource,
        "attributes": _json([(pair.name, pair.value) for pair in one.attributes]),
        "rule": event.rule,
        "statements": _json([statements.document(each) for each in one.statements]),
        "effects": statements.effects_text(one.statements),
        "rows": 0,
        "result": "[]",
    }


def _relations(to: Projection, one: pb.Operation) -> None:
    for row in statements.relations(one.statements):
        to.row("relations", operation_id=one.operation_id, **row)


def _operation_intended(to: Projection, record: pb.Record, event: pb.OperationIntended) -> None:
    to.row(
        "operations",
        **_operation(record, event),
        verdict="allow",
        lease_id=event.lease_id,
        durability=event.durability,
        outcome=None,
        reason="",
        explanation="",
        status="",
    )
    _relations(to, event.operation)


def _operation_denied(to: Projection, record: pb.Record, event: pb.OperationDenied) -> None:
    to.row(
        "operations",
        **_operation(record, event),
        verdict="deny",
        lease_id="",
        durability="",
        outcome="denied",
        reason=event.reason,
        explanation=event.explanation,
        status=event.status,
    )
    _relations(to, event.operation)
    # an intent of the same operation may be there: it was recorded too late to be of use
    to.finished.append(
        {
            "key_host": to.host_id,
            "key": event.operation.operation_id,
            "last_seq": record.seq,
            "new_outcome": "denied",
            "reason": event.reason,
            "status": event.status,
            "request_bytes": 0,
            "response_bytes": 0,
            "duration_ns": 0,
            "upstream": "",
            "rows": 0,
            "result": "[]",
        }
    )


def _operation_finished(to: Projection, record: pb.Record, event: pb.OperationFinished) -> None:
    to.finished.append(
        {
            "key_host": to.host_id,
            "key": event.operation_id,
            "last_seq": record.seq,
            "new_outcome": event.outcome,
            "reason": event.reason,
            "status": event.status,
            "request_bytes": event.request_bytes,
            "response_bytes": event.response_bytes,
            "duration_ns": event.duration_ns,
            "upstream": event.upstream,
            "rows": event.rows,
            "result": _json([(pair.name, pair.value) for pair in event.attributes]),
        }
    )


def _session_closed(to: Projection, record: pb.Record, event: pb.SessionClosed) -> None:
    to.closed.append(
        {
            "key_host": to.host_id,
            "key": event.session_id,
            "last_seq": record.seq,
            "closed_ms": record.unix_ms,
            "reason": event.reason,
            "operations": event.operations,
            "downstream_bytes": event.downstream_bytes,
            "upstream_bytes": event.upstream_bytes,
            "duration_ns": event.duration_ns,
        }
    )


def _lease_changed(to: Projection, record: pb.Record, event: pb.LeaseChanged) -> None:
    to.row(
        "leases",
        lease_id=event.lease_id,
        run_id=event.run_id,
        target=event.target,
        provider=event.provider,
        state=event.state,
        began_ms=record.unix_ms,
        ended_ms=None,
    )
    ended = record.unix_ms if event.state in {"revoked", "expired", "forgotten"} else None
    to.lease_states.append(
        {"key_host": to.host_id, "key": event.lease_id, "state": event.state, "ended_ms": ended}
    )


def _alarmed(to: Projection, record: pb.Record, event: pb.Alarmed) -> None:
    to.row(
        "alarms",
        seq=record.seq,
        at_ms=record.unix_ms,
        alarm=event.alarm,
        detail=event.detail,
        run_id=event.run_id,
    )


_PROJECT: dict[str, Any] = {
    "run_started": _run_started,
    "run_ended": _run_ended,
    "session_opened": _session_opened,
    "session_refused": _session_refused,
    "operation_intended": _operation_intended,
    "operation_denied": _operation_denied,
    "operation_finished": _operation_finished,
    "session_closed": _session_closed,
    "lease_changed": _lease_changed,
    "alarmed": _alarmed,
}
Event = Message


def _mine(table: str, key: str) -> tuple[Any, ...]:
    columns = schema.metadata.tables[table].c
    return (columns["host_id"] == bindparam("key_host"), columns[key] == bindparam("key"))


# an outcome is final, unless it is `unknown` and the real one comes after all
_FINISH = (
    update(schema.operations)
    .where(
        *_mine("operations", "operation_id"),
        or_(
            schema.operations.c.outcome.is_(None),
            schema.operations.c.outcome == _UNKNOWN,
        ),
    )
    .values(
        outcome=bindparam("new_outcome"),
        **{
            name: bindparam(name)
            for name in (
                "last_seq",
                "reason",
                "status",
                "request_bytes",
                "response_bytes",
                "duration_ns",
                "upstream",
                "rows",
                "result",
            )
        },
    )
)
_CLOSE = (
    update(schema.sessions)
    .where(*_mine("sessions", "session_id"))
    .values(
        **{
            name: bindparam(name)
            for name in (
                "last_seq",
                "closed_ms",
                "reason",
                "operations",
                "downstream_bytes",
                "upstream_bytes",
                "duration_ns",
            )
        }
    )
)
_END = (
    update(schema.runs)
    .where(*_mine("runs", "run_id"))
    .values(ended_ms=bindparam("ended_ms"), end_reason=bindparam("end_reason"))
)
_LEASE = (
    update(schema.leases)
    .where(*_mine("leases", "lease_id"))
    .values(state=bindparam("state"), ended_ms=bindparam("ended_ms"))
)
