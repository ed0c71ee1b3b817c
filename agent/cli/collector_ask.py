"""The commands that read the store; no server needs to run."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from agent.cli import collector_show as show
from agent.cli.collector_settings import state_dir
from agent.cli.collector_text import Cell, Paint, json_line, moment, out, paint_for, table
from agent.cli.collector_time import parse_moment_ms
from agent.collector import query, schema
from agent.collector.authority import load_signing_key
from agent.collector.store import open_for_reading
from agent.collector.verify import verify
from agent.runtime import clock
from agent.spool.checkpoint import Checkpoint, CheckpointUnreadable, read_checkpoint

FOLLOW_INTERVAL_S = 0.3
Show = Callable[[list[query.Row], Paint], str]


def ask(arguments: argparse.Namespace) -> int:
    """Answer one question; return the exit code.

    Raises:
        StoreError: no store. NotFound: no such session. ValueError: a time that is none.
    """
    engine = open_for_reading(Path(state_dir(arguments)))
    try:
        with engine.connect() as connection:
            command = _COMMANDS[arguments.command]
            return command(connection, arguments, paint_for(sys.stdout))
    finally:
        engine.dispose()


def _hosts(connection: Connection, arguments: argparse.Namespace, paint: Paint) -> int:
    rows = query.hosts(connection, clock.unix_ms())
    return _print(rows, arguments, paint, show.hosts)


def _runs(connection: Connection, arguments: argparse.Namespace, paint: Paint) -> int:
    return _print(query.runs(connection, _filter(arguments)), arguments, paint, show.runs)


def _sessions(connection: Connection, arguments: argparse.Namespace, paint: Paint) -> int:
    if arguments.action == "list":
        rows = query.sessions(connection, _filter(arguments))
        return _print(rows, arguments, paint, show.sessions)
    if arguments.action == "tail":
        return _tail(connection, arguments, paint)
    one = query.session(connection, arguments.session)
    if arguments.json:
        _json([one])
    else:
        out(show.session(one, paint))
    return 0


def _tail(connection: Connection, arguments: argparse.Namespace, paint: Paint) -> int:
    wanted = _filter(arguments)
    after = query.heads(connection)
    try:
        _print_news(_last(connection, after, wanted, arguments.lines), arguments, paint)
        while arguments.follow:
            connection.rollback()  # the next read must see what was written meanwhile
            time.sleep(FOLLOW_INTERVAL_S)
            after = _behind(query.heads(connection), after)
            rows = query.news(connection, after, wanted)
            for row in rows:
                after[row["host_id"]] = max(after[row["host_id"]], row["last_seq"])
            _print_news(rows, arguments, paint)
    except KeyboardInterrupt:
        return 0
    return 0


def _last(
    connection: Connection, heads: dict[str, int], wanted: query.Filter, lines: int
) -> list[query.Row]:
    """Return the newest lines up to the heads, by time."""
    if lines <= 0:
        return []
    rows = query.news(connection, dict.fromkeys(heads, 0), wanted, newest=lines)
    shown = [row for row in rows if row["last_seq"] <= heads[row["host_id"]]]
    return sorted(shown, key=lambda row: row.get("at_ms") or row["opened_ms"])[-lines:]


def _behind(heads: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return where to go on: new hosts from their first record, a store set back from its end."""
    for host_id, seq in heads.items():
        if seq < after.get(host_id, 0):
            sys.stderr.write(f"the store was set back: host {host_id} ends at {seq} now\n")
            after = after | {host_id: seq}
    return dict.fromkeys(heads, 0) | after


def _print_news(rows: list[query.Row], arguments: argparse.Namespace, paint: Paint) -> None:
    if arguments.json:
        _json(rows)
    else:
        for row in rows:
            out(show.operation_line(row, paint))
    sys.stdout.flush()


def _who(connection: Connection, arguments: argparse.Namespace, paint: Paint) -> int:
    at_ms = parse_moment_ms(arguments.at, clock.unix_ms())
    wanted = query.Filter(
        loop=arguments.loop, run=arguments.run, host=arguments.host, by=arguments.by
    )
    rows = query.who(connection, arguments.target, at_ms, wanted)
    return _print(rows, arguments, paint, show.who)


def _alarms(connection: Connection, arguments: argparse.Namespace, paint: Paint) -> int:
    alarms, hosts = schema.alarms, schema.hosts
    rows = connection.execute(
        select(alarms, hosts.c.name.label("host"))
        .join(hosts, hosts.c.host_id == alarms.c.host_id)
        .order_by(alarms.c.at_ms.desc())
        .limit(query.ROWS_MAX)
    )
    return _print([dict(row) for row in rows.mappings()], arguments, paint, _alarm_table)


def _alarm_table(rows: list[query.Row], paint: Paint) -> str:
    cells = [
        [moment(row["at_ms"]), row["host"], Cell(row["alarm"], "red"), row["detail"]]
        for row in rows
    ]
    return table(("TIME", "HOST", "ALARM", "DETAIL"), cells, paint, width=100)


def _verify(connection: Connection, arguments: argparse.Namespace, paint: Paint) -> int:
    key = load_signing_key(arguments.ca or Path(state_dir(arguments)) / "ca.pem")
    reports = verify(connection, key, [_checkpoint(path) for path in arguments.checkpoint])
    rows = [{**dataclasses.asdict(report), "intact": report.intact} for report in reports]
    _print(rows, arguments, paint, show.verification)
    return 0 if all(report.intact for report in reports) else 1


def _checkpoint(path: Path) -> Checkpoint:
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointUnreadable as error:
        raise ValueError(f"{path}: {error}") from error
    if checkpoint is None:
        raise ValueError(f"{path}: there is no such file")
    return checkpoint


def _filter(arguments: argparse.Namespace) -> query.Filter:
    now_ms = clock.unix_ms()
    return query.Filter(
        loop=arguments.loop,
        run=arguments.run,
        host=arguments.host,
        target=arguments.target,
        verdict=arguments.verdict,
        effect=arguments.effect,
        table=arguments.table,
        text=arguments.text,
        by=arguments.by,
        since_ms=None if arguments.since is None else parse_moment_ms(arguments.since, now_ms),
        until_ms=None if arguments.until is None else parse_moment_ms(arguments.until, now_ms),
        limit=arguments.limit,
    )


def _print(
    rows: list[query.Row], arguments: argparse.Namespace, paint: Paint, as_text: Show
) -> int:
    if arguments.json:
        _json(rows)
    elif rows:
        out(as_text(rows, paint))
    else:
        sys.stderr.write("nothing found\n")
    return 0


def _json(rows: Iterable[Any]) -> None:
    for row in rows:
        out(json_line(row))


_COMMANDS: dict[str, Callable[[Connection, argparse.Namespace, Paint], int]] = {
    "hosts": _hosts,
    "runs": _runs,
    "sessions": _sessions,
    "who": _who,
    "alarms": _alarms,
    "verify": _verify,
}
