"""Questions to the store. All answers are plain rows; ids of hosts come with their names."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, true

from agent.collector import schema
from agent.collector.projection import INT64_MAX, JSON_COLUMNS

Row = dict[str, Any]
ROWS_MAX = 10_000
SILENT_AFTER_MS = 90_000  # three heartbeats
_DENY = "deny"


class NotFound(Exception):
    """Nothing, or more than one thing, has this name."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What to show; None means any. Times are Unix milliseconds, since included, until not."""

    loop: str | None = None
    run: str | None = None  # an id, or its beginning or end
    host: str | None = None  # a name or id
    target: str | None = None
    verdict: str | None = None  # "allow" | "deny"
    effect: str | None = None  # of a query: "read", "write", …
    table: str | None = None  # that a query touches: "name" or "schema.name"
    text: str | None = None  # that a query's text or a request's path holds, in any case
    by: str | None = None  # who started the run: a user, or a token's subject; `*` is any
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int = 100


def hosts(connection: Connection, now_ms: int) -> list[Row]:
    """Return every host with the head of its chain and what is wrong with it.

    A host is silent when nothing came for SILENT_AFTER_MS: even an idle one sends heartbeats.
    """
    table = schema.hosts
    counts = [
        select(func.count())
        .select_from(other)
        .where(other.c.host_id == table.c.host_id)
        .scalar_subquery()
        .label(other.name)
        for other in (schema.alarms, schema.gaps, schema.refusals)
    ]
    columns = [column for column in table.c if column.name != "hash"]
    rows = _rows(connection, select(*columns, *counts).order_by(table.c.name))
    return [{**row, "silent": now_ms - row["seen_ms"] > SILENT_AFTER_MS} for row in rows]


def sessions(connection: Connection, wanted: Filter) -> list[Row]:
    """Return sessions, newest first."""
    table = schema.sessions
    query = (
        _session_query()
        .where(*_session_conditions(wanted))
        .order_by(table.c.opened_ms.desc(), table.c.session_id.desc())
        .limit(min(wanted.limit, ROWS_MAX))
    )
    return _rows(connection, query)


def session(connection: Connection, session_id: str) -> Row:
    """Return one session by its id or a unique beginning or end of it, with all that belongs.

    Raises:
        NotFound: no such session, or several.
    """
    table = schema.sessions
    found = _rows(connection, _session_query().where(_like_id(table.c.session_id, session_id)))
    if len(found) != 1:
        what = "no session" if not found else f"{len(found)} sessions"
        raise NotFound(f"{what} with the id {session_id!r}")
    one = found[0]
    runs = _rows(
        connection,
        select(schema.runs).where(
            schema.runs.c.host_id == one["host_id"], schema.runs.c.run_id == one["run_id"]
        ),
    )
    one["run"] = runs[0] if runs else None
    one["operations_list"] = _rows(
        connection,
        select(schema.operations)
        .where(
            schema.operations.c.host_id == one["host_id"],
            schema.operations.c.session_id == one["session_id"],
        )
        .order_by(schema.operations.c.seq)
        .limit(ROWS_MAX),
    )
    return one


def runs(connection: Connection, wanted: Filter) -> list[Row]:
    """Return runs, newest first; what is asked of operations selects by them."""
    table, ops = schema.runs, schema.operations
    conditions: list[ColumnElement[bool]] = [_on_host(table, wanted.host)]
    if wanted.loop:
        conditions.append(table.c.loop == wanted.loop)
    if wanted.run:
        conditions.append(_like_id(table.c.run_id, wanted.run))
    if wanted.by:
        conditions.append(_is_by(table, wanted.by))
    conditions += _between(table.c.started_ms, wanted)
    mine = and_(ops.c.host_id == table.c.host_id, ops.c.run_id == table.c.run_id)
    if wanted.target:
        conditions.append(exists().where(mine, ops.c.target == wanted.target))
    if selected := list(_selected(wanted)):
        conditions.append(exists().where(mine, *selected))
    total = select(func.count()).where(mine).scalar_subquery().label("operations")
    query = (
        select(table, schema.hosts.c.name.label("host"), total)
        .join(schema.hosts, schema.hosts.c.host_id == table.c.host_id, isouter=True)
        .where(*conditions)
        .order_by(table.c.started_ms.desc())
        .limit(min(wanted.limit, ROWS_MAX))
    )
    return _rows(connection, query)


def who(connection: Connection, target: str, at_ms: int, wanted: Filter) -> list[Row]:
    """Return the runs that had access to a target at a moment: live sessions, then live leases.

    Of the filter loop, run, host and by count.
    """
    rows = []
    for table, began, ended, via in (
        (schema.sessions, schema.sessions.c.opened_ms, schema.sessions.c.closed_ms, "session"),
        (schema.leases, schema.leases.c.began_ms, schema.leases.c.ended_ms, "lease"),
    ):
        run = schema.runs
        query = (
            select(
                table,
                schema.hosts.c.name.label("host"),
                run.c.loop.label("loop_name"),
                run.c.initiator,
                run.c.argv,
                began.label("since_ms"),
                ended.label("until_ms"),
            )
            .join(schema.hosts, schema.hosts.c.host_id == table.c.host_id, isouter=True)
            .join(
                run,
                and_(run.c.host_id == table.c.host_id, run.c.run_id == table.c.run_id),
                isouter=True,
            )
            .where(table.c.target == target, began <= at_ms, or_(ended.is_(None), ended >= at_ms))
            .where(_on_host(table, wanted.host))
            .where(run.c.loop == wanted.loop if wanted.loop else true())
            .where(_like_id(table.c.run_id, wanted.run) if wanted.run else true())
            .where(_is_by(run, wanted.by) if wanted.by else true())
            .order_by(began)
            .limit(ROWS_MAX)
        )
        rows += [{**row, "via": via} for row in _rows(connection, query)]
    return rows


def news(
    connection: Connection, after: dict[str, int], wanted: Filter, *, newest: int = 0
) -> list[Row]:
    """Return operations that ended, and sessions that ended without any, behind these numbers.

    after maps host ids to the last sequence number that was shown. At most ROWS_MAX of each kind
    and host: the first ones, so that the rest is found behind them; or the newest so many.
    """
    found: list[Row] = []
    for host_id, seq in after.items():
        rows: list[Row] = []
        last = INT64_MAX
        for kind, query, number in _ended(host_id, seq, wanted):
            order = number.desc() if newest else number
            limit = min(newest or ROWS_MAX, ROWS_MAX)
            some = _rows(connection, query.order_by(order).limit(limit))
            if not newest and len(some) == ROWS_MAX:
                last = min(last, some[-1]["last_seq"])  # what is behind comes with the next call
            rows += [{**row, "kind": kind} for row in some]
        found += [row for row in rows if row["last_seq"] <= last]
    return sorted(found, key=lambda row: (row["host_id"], row["last_seq"]))


def _ended(
    host_id: str, seq: int, wanted: Filter
) -> Iterable[tuple[str, Select[Any], ColumnElement[int]]]:
    """Yield kind, query and number column of what ended on a host behind this number."""
    ops, table, run = schema.operations, schema.sessions, schema.runs
    of_session = and_(table.c.host_id == ops.c.host_id, table.c.session_id == ops.c.session_id)
    of_run = and_(run.c.host_id == ops.c.host_id, run.c.run_id == ops.c.run_id)
    host = schema.hosts.c.name.label("host")
    operations = (
        select(ops, table.c.exe, table.c.pid, host, run.c.initiator)
        .join(schema.hosts, schema.hosts.c.host_id == ops.c.host_id)
        .join(table, of_session, isouter=True)
        .join(run, of_run, isouter=True)
        .where(
            ops.c.host_id == host_id,
            ops.c.last_seq > seq,
            ops.c.outcome.is_not(None),
            *_operation_conditions(wanted),
        )
    )
    yield "operation", operations, ops.c.last_seq
    without_any = _session_query().where(
        table.c.host_id == host_id,
        table.c.last_seq > seq,
        table.c.closed_ms.is_not(None),
        ~exists().where(of_session),
        *_session_conditions(wanted),
    )
    yield "session", without_any, table.c.last_seq


def heads(connection: Connection) -> dict[str, int]:
    """Return the last sequence number of each host."""
    query = select(schema.hosts.c.host_id, schema.hosts.c.seq)
    return {row.host_id: row.seq for row in connection.execute(query)}


def _session_query() -> Select[Any]:
    table, ops, run = schema.sessions, schema.operations, schema.runs
    mine = and_(ops.c.host_id == table.c.host_id, ops.c.session_id == table.c.session_id)
    seen = select(func.count()).where(mine).scalar_subquery().label("operations_seen")
    denied = (
        select(func.count()).where(mine, ops.c.verdict == _DENY).scalar_subquery().label("denied")
    )
    return (
        select(table, schema.hosts.c.name.label("host"), seen, denied, run.c.initiator)
        .join(schema.hosts, schema.hosts.c.host_id == table.c.host_id, isouter=True)
        .join(
            run,
            and_(run.c.host_id == table.c.host_id, run.c.run_id == table.c.run_id),
            isouter=True,
        )
    )


def _session_conditions(wanted: Filter) -> Iterable[ColumnElement[bool]]:
    table, ops = schema.sessions, schema.operations
    yield _on_host(table, wanted.host)
    yield from _between(table.c.opened_ms, wanted)
    if wanted.loop:
        yield table.c.loop == wanted.loop
    if wanted.run:
        yield _like_id(table.c.run_id, wanted.run)
    if wanted.target:
        yield table.c.target == wanted.target
    if wanted.by:
        yield _started_by(table, wanted.by)
    if selected := list(_selected(wanted)):
        of_session = exists().where(
            ops.c.host_id == table.c.host_id, ops.c.session_id == table.c.session_id, *selected
        )
        refused = and_(table.c.target == "", table.c.closed_ms.is_not(None))
        only_denied = wanted.verdict == _DENY and len(selected) == 1
        yield or_(of_session, refused) if only_denied else of_session


def _selected(wanted: Filter) -> Iterable[ColumnElement[bool]]:
    """Yield what is asked of one operation."""
    ops, names = schema.operations, schema.relations
    if wanted.verdict:
        yield ops.c.verdict == wanted.verdict
    if wanted.effect:
        yield ops.c.effects.contains(f",{wanted.effect},", autoescape=True)
    if wanted.text:
        yield ops.c.resource.icontains(wanted.text, autoescape=True)
    if wanted.table:
        schema_name, _, name = wanted.table.rpartition(".")
        # a text that names no schema may mean any
        of_schema = names.c.schema_name.in_((schema_name, "")) if schema_name else true()
        yield exists().where(
            names.c.host_id == ops.c.host_id,
            names.c.operation_id == ops.c.operation_id,
            names.c.name == name,
            of_schema,
        )


def _operation_conditions(wanted: Filter) -> Iterable[ColumnElement[bool]]:
    ops = schema.operations
    yield _on_host(ops, wanted.host)
    yield from _between(ops.c.at_ms, wanted)
    if wanted.loop:
        yield ops.c.loop == wanted.loop
    if wanted.run:
        yield _like_id(ops.c.run_id, wanted.run)
    if wanted.target:
        yield ops.c.target == wanted.target
    if wanted.by:
        yield _started_by(ops, wanted.by)
    yield from _selected(wanted)


def _started_by(table: Any, by: str) -> ColumnElement[bool]:
    run = schema.runs.alias()
    return exists().where(
        run.c.host_id == table.c.host_id, run.c.run_id == table.c.run_id, _is_by(run, by)
    )


def _is_by(run: Any, by: str) -> ColumnElement[bool]:
    for letter in "/%_":
        by = by.replace(letter, "/" + letter)
    like = by.replace("*", "%")
    subject = run.c.by_subject.like(like, escape="/")
    return or_(run.c.by_user.like(like, escape="/"), and_(subject, run.c.by_subject != ""))


def _between(column: Any, wanted: Filter) -> Iterable[ColumnElement[bool]]:
    if wanted.since_ms is not None:
        yield column >= wanted.since_ms
    if wanted.until_ms is not None:
        yield column < wanted.until_ms


def _on_host(table: Any, host: str | None) -> ColumnElement[bool]:
    if host is None:
        return true()
    named = select(schema.hosts.c.host_id).where(
        or_(schema.hosts.c.name == host, schema.hosts.c.host_id == host)
    )
    found: ColumnElement[bool] = table.c.host_id.in_(named)
    return found


def _like_id(column: Any, part: str) -> ColumnElement[bool]:
    return or_(column.startswith(part, autoescape=True), column.endswith(part, autoescape=True))


def _rows(connection: Connection, query: Select[Any]) -> list[Row]:
    rows = [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        for name in JSON_COLUMNS:
            if isinstance(row.get(name), str):
                row[name] = json.loads(row[name])
    return rows
