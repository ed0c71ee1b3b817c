"""Opening the store, and writing to it. A transaction that committed is on stable storage."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import NullPool

from agent.collector import schema
from agent.collector.upgrade import upgrade
from agent.spool.format import GENESIS

FILE_NAME = "collector.sqlite3"
BUSY_TIMEOUT_S = 10.0


class StoreError(Exception):
    """The store can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a host's chain stands."""

    seq: int
    hash: bytes


def store_url(state_dir: Path) -> str:
    """Return the default store's URL."""
    return f"sqlite:///{state_dir / FILE_NAME}"


def open_store(url: str) -> Engine:
    """Open the store; create its tables when it is new, bring it up when it is older.

    Raises:
        StoreError: it was made by a later version, or by one that is too old.
    """
    engine = create_engine(url, connect_args=_arguments(url))
    if engine.dialect.name == "sqlite":
        _be_private(engine.url.database)
        event.listen(engine, "connect", _be_durable)
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        version = connection.scalar(select(func.max(schema.meta.c.schema_version)))
        if version is None:
            connection.execute(insert(schema.meta).values(schema_version=schema.SCHEMA_VERSION))
        elif version != schema.SCHEMA_VERSION and not upgrade(connection, version):
            raise _other_version(version)
    return engine


def _other_version(version: int | None) -> StoreError:
    needed = schema.SCHEMA_VERSION
    return StoreError(f"the store has schema {version}, this program needs {needed}")


def open_for_reading(state_dir: Path) -> Engine:
    """Open an existing store for queries; a server may be writing to it.

    One that we may not write to (an auditor's copy) is read as it is; nothing is made beside it.

    Raises:
        StoreError: there is none, or it is of another version.
    """
    path = state_dir / FILE_NAME
    if not path.exists():
        raise StoreError(f"there is no collector's store in {state_dir}: see --state-dir")
    if os.access(path, os.W_OK, effective_ids=True):
        return open_store(store_url(state_dir))
    path.open("rb").close()  # says why it can't be read, which SQLite does not
    changing = any(path.with_name(f"{FILE_NAME}{end}").exists() for end in ("-wal", "-shm"))
    options = "mode=ro" if changing else "mode=ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?{options}"
    engine = create_engine(
        "sqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(uri, uri=True)
    )
    with engine.connect() as connection:
        version = connection.scalar(select(func.max(schema.meta.c.schema_version)))
    if version != schema.SCHEMA_VERSION:
        raise _other_version(version)
    return engine


def _arguments(url: str) -> dict[str, Any]:
    return {"timeout": BUSY_TIMEOUT_S} if url.startswith("sqlite") else {}


def _be_private(path: str | None) -> None:
    """Make the file, when it is new, readable by its owner only; SQLite's others follow it."""
    if path and path != ":memory:":
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _be_durable(connection: sqlite3.Connection, _record: object) -> None:
    """WAL with synchronous=FULL: a commit returns when it is on stable storage."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def insert_new(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows; one whose key exists already is left as it is."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)
    else:
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)


def snapshot(connection: Connection) -> None:
    """Let all that is read from now on, until the connection's rollback, be of one moment."""
    if connection.in_transaction():
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")  # the driver itself begins with the first write only
    else:
        connection.execution_options(isolation_level="REPEATABLE READ")


def head_of(connection: Connection, host_id: str) -> Head | None:
    """Return the head of a host's chain, None for a host that is not enrolled."""
    row = connection.execute(
        select(schema.hosts.c.seq, schema.hosts.c.hash).where(schema.hosts.c.host_id == host_id)
    ).one_or_none()
    return None if row is None else Head(row.seq, row.hash)


def add_host(
    connection: Connection, host_id: str, name: str, certificate_serial: str, now_ms: int
) -> None:
    """Add an enrolled host with an empty chain."""
    connection.execute(
        insert(schema.hosts).values(
            host_id=host_id,
            name=name,
            certificate_serial=certificate_serial,
            enrolled_ms=now_ms,
            hash=GENESIS,
        )
    )
