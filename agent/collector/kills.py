"""Kills: a person ends a run or a lease of any host from here. Asked in the store, told by streams.

A kill is told to its host by whichever server holds the host's stream, at once or when it connects,
again after each connection until the host has said how it ended. What it did is kept.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, insert, select, update

from agent.collector import schema
from agent.collector.query import NotFound

WAITING_MAX = 1_000  # kills that no host has answered, read at once
DETAIL_CHARACTERS_MAX = 2_000
NAME_CHARACTERS_MAX = 64
MEANT_MAX = 3  # ids that a part of one is told to be of
# what a host says of one; all but "cut" are final
STATES = frozenset({"cut", "confirmed", "unconfirmed", "failed", "unknown"})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A kill that its host has not answered."""

    kill_id: str
    host_id: str
    name: str


def find_host(connection: Connection, name: str, host: str | None) -> str:
    """Return the id of the host that has this run or lease, or of the named host.

    Raises:
        NotFound: nothing here has that id, or the host is unknown.
    """
    hosts, runs, leases = schema.hosts, schema.runs, schema.leases
    if host is not None:
        named = connection.scalar(select(hosts.c.host_id).where(hosts.c.name == host))
        if named is None:
            raise NotFound(f"no host {host!r} is enrolled")
        return str(named)
    having: set[str] = set()
    for column in (runs.c.run_id, leases.c.lease_id):
        having |= set(connection.scalars(select(column.table.c.host_id).where(column == name)))
    if len(having) > 1:  # one of them lies, and would have the kill sent to itself
        names = connection.scalars(select(hosts.c.name).where(hosts.c.host_id.in_(having)))
        raise NotFound(f"several hosts told of {name!r} ({', '.join(sorted(names))}): use --host")
    if having:
        return having.pop()
    meant = _whole(connection, name)
    if meant:
        raise NotFound(f"write the whole id of what is to end; {name!r} is a part of {meant}")
    raise NotFound(f"no run or lease {name!r} is known here; name its host with --host to try")


def _whole(connection: Connection, part: str) -> str:
    """Return the ids that a text may be short for: tables show the end of an id alone."""
    found: list[str] = []
    for column in (schema.runs.c.run_id, schema.leases.c.lease_id):
        like = column.startswith(part, autoescape=True) | column.endswith(part, autoescape=True)
        found += connection.scalars(select(column).where(like).limit(MEANT_MAX)) if part else ()
    return " or ".join(found[:MEANT_MAX])


def ask(
    connection: Connection, kill_id: str, host_id: str, name: str, by: str, now_ms: int
) -> None:
    """Keep that a person asked for a kill."""
    connection.execute(
        insert(schema.kills).values(
            kill_id=kill_id,
            host_id=host_id,
            name=name[:NAME_CHARACTERS_MAX],
            asked_ms=now_ms,
            asked_by=by,
            state="asked",
            detail="",
        )
    )


def state_of(connection: Connection, kill_id: str) -> tuple[str, str]:
    """Return how far it came, and the host's words."""
    kills = schema.kills
    row = connection.execute(
        select(kills.c.state, kills.c.detail).where(kills.c.kill_id == kill_id)
    ).one()
    return str(row.state), str(row.detail)


def waiting(engine: Engine) -> list[Waiting]:
    """Return the kills that are not done, oldest first."""
    kills = schema.kills
    with engine.connect() as connection:
        rows = connection.execute(
            select(kills.c.kill_id, kills.c.host_id, kills.c.name)
            .where(kills.c.done_ms.is_(None))
            .order_by(kills.c.asked_ms)
            .limit(WAITING_MAX)
        )
        return [Waiting(row.kill_id, row.host_id, row.name) for row in rows]


def told(engine: Engine, host_id: str, kill_id: str, state: str, detail: str, now_ms: int) -> None:
    """Keep what a host says of a kill of its own; after its last word, nothing more."""
    if state not in STATES:
        return
    kills = schema.kills
    final = None if state == "cut" else now_ms
    with engine.begin() as connection:
        connection.execute(
            update(kills)
            .where(
                kills.c.kill_id == kill_id,
                kills.c.host_id == host_id,
                kills.c.done_ms.is_(None),
            )
            .values(
                state=state, detail=detail[:DETAIL_CHARACTERS_MAX], told_ms=now_ms, done_ms=final
            )
        )
