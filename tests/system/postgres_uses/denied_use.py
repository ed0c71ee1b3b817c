"""Each driver is denied something, and its session goes on. Run as a loop of narrow rules.

Prints one line a step: OK what came, or NO with the SQLSTATE and whether the words are ours.
"""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, LiteralString

import asyncpg
import pg8000.dbapi
import pg8000.native
import psycopg
import sqlalchemy as sa

HOST = os.environ["PGHOST"]
DROP: LiteralString = "DROP TABLE orders"
CARD: LiteralString = "SELECT card FROM customers"
CHANGE: LiteralString = "UPDATE customers SET name = 'x' WHERE id = 1"
ALL: LiteralString = "DELETE FROM refunds"  # unbounded
ONE: LiteralString = "UPDATE orders SET state = 'paid' WHERE id = 2"
COUNT: LiteralString = "SELECT count(*) FROM orders"
DENIED: tuple[LiteralString, ...] = (
    DROP, CARD, CHANGE, ALL, "SELECT pg_read_file('/etc/passwd')", "SET ROLE postgres",
    "WITH gone AS (DELETE FROM customers WHERE id = 1 RETURNING id) SELECT * FROM gone",
    "COPY customers TO STDOUT", "COPY customers FROM STDIN", "BEGIN; DROP TABLE orders; COMMIT",
    "SELECT 1; DROP TABLE orders; SELECT 2", "PREPARE x AS DELETE FROM customers", "VACUUM orders",
    "CREATE TEMP TABLE t (a int)", "DO $$ BEGIN DELETE FROM customers; END $$", "nonsense",
)  # fmt: skip


def say(*values: object) -> None:
    """Print at once."""
    print(*values, flush=True)


def state_of(error: Exception) -> str:
    """Return the SQLSTATE that a driver found, and whether all three of our words are there."""
    told: Any = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    match told:
        case psycopg.Error():
            words = (told.diag.message_primary, told.diag.message_detail, told.diag.message_hint)
            state = told.sqlstate
        case asyncpg.PostgresError():
            words, state = (told.message, told.detail, told.hint), told.sqlstate
        case _:  # pg8000 has a dictionary by field
            fields = told.args[0]
            words, state = (fields.get("M"), fields.get("D"), fields.get("H")), fields["C"]
    return f"{state} {str(words[0]).startswith('loopwarden: ')} {all(words)}"


def attempt(function: Callable[[], object]) -> str:
    """Return what came of it."""
    try:
        return f"OK {function()}"
    except (psycopg.Error, pg8000.Error, sa.exc.DBAPIError) as error:
        return f"NO {state_of(error)}"


async def attempt_soon(waiting: Awaitable[object]) -> str:
    """Return what came of it."""
    try:
        return f"OK {await waiting}"
    except (psycopg.Error, asyncpg.PostgresError) as error:
        return f"NO {state_of(error)}"


def by_psycopg() -> None:
    """Simple and extended, prepared, in transactions and savepoints, in pipelines, cursors."""
    with psycopg.connect(autocommit=True) as c:
        for text in DENIED:
            say(text[:40], attempt(partial(c.execute, text)))
            say(c.info.transaction_status.name)
            say(attempt(lambda: c.execute(COUNT).fetchone()))
        say(attempt(lambda: c.execute(CHANGE, prepare=True)))
        say(attempt(lambda: c.execute(ONE).rowcount))
        with c.transaction():
            say(attempt(lambda: c.execute(ONE).rowcount))
            say(attempt(lambda: _savepoint(c)), c.info.transaction_status.name)
            say(attempt(lambda: c.execute(COUNT).fetchone()))
        say(attempt(lambda: _transaction(c)), c.info.transaction_status.name)
        with c.pipeline() as pipeline:
            before = c.execute(COUNT)
            say(attempt(partial(_denied, c, pipeline)))
            after = c.execute(COUNT)
            say(*(attempt(cursor.fetchone) for cursor in (before, after)))
        say(attempt(lambda: c.cursor().executemany(CHANGE + " AND id = %s", [(1,), (2,)])))
        with c.transaction(), c.cursor("named") as cursor:
            say(attempt(lambda: cursor.execute(COUNT).fetchone()))
        say(attempt(lambda: _cursor(c)), attempt(lambda: c.execute(COUNT).fetchone()))


def _denied(c: psycopg.Connection[Any], pipeline: psycopg.Pipeline) -> None:
    """Be denied: psycopg raises it wherever it hears of it, at once or at the next Sync."""
    try:
        c.execute(DROP)
    finally:
        pipeline.sync()


def _savepoint(c: psycopg.Connection[Any]) -> None:
    with c.transaction():
        c.execute(CARD)


def _transaction(c: psycopg.Connection[Any]) -> None:
    with c.transaction():
        c.execute(ONE)
        c.execute(DROP)


def _cursor(c: psycopg.Connection[Any]) -> None:
    with c.transaction(), c.cursor("named") as cursor:
        cursor.execute(CARD)


def by_pg8000() -> None:
    """Its own interface and that of PEP 249."""
    context = ssl.create_default_context()
    native = pg8000.native.Connection("any", host=HOST, database="orders", ssl_context=context)
    for text in DENIED:
        say(text[:40], attempt(partial(native.run, text)))
        say(attempt(lambda: native.run(COUNT)))
    say(attempt(lambda: native.run("SELECT card FROM customers WHERE id = :id", id=1)))
    say(attempt(lambda: native.run("SELECT name FROM customers WHERE id = :id", id=1)))
    native.run("BEGIN")
    say(attempt(lambda: native.run(DROP)), attempt(lambda: native.run(COUNT)))
    native.run("ROLLBACK")
    say(attempt(lambda: native.run(COUNT)))
    native.close()
    classic = pg8000.dbapi.connect("any", host=HOST, database="orders", ssl_context=context)
    cursor = classic.cursor()
    say(attempt(lambda: cursor.execute(CHANGE)))
    classic.rollback()
    cursor.execute(COUNT)
    say(cursor.fetchall())
    classic.close()


async def by_asyncpg() -> None:
    """Pools, prepared statements, batches, cursors, COPY."""
    words = {"host": HOST, "user": "any", "database": "orders", "ssl": "require"}
    async with asyncpg.create_pool(**words, min_size=2, max_size=2) as pool, pool.acquire() as c:
        for text in DENIED:
            say(text[:40], await attempt_soon(c.execute(text)))
            say(await attempt_soon(c.fetchval(COUNT)))
        say(await attempt_soon(c.prepare(CARD)), await attempt_soon(c.fetchval(CARD)))
        say(await attempt_soon(c.executemany(CHANGE + " AND id = $1", [(n,) for n in range(99)])))
        good = await c.prepare("SELECT state FROM orders WHERE id = $1")
        say(await attempt_soon(good.fetchval(5)))
        say(await attempt_soon(_block(c)), c.is_in_transaction())
        async with c.transaction():
            say(await attempt_soon(c.execute(ONE)), await attempt_soon(_block(c)))
            say(await attempt_soon(c.fetchval(COUNT)))
        say(await attempt_soon(c.copy_from_table("customers", output=os.devnull)))
        say(await attempt_soon(c.copy_records_to_table("customers", records=[(1, "a")])))
        say(await attempt_soon(c.fetchval(COUNT)))


async def _block(c: Any) -> None:
    async with c.transaction():
        await c.execute(ONE)
        await c.execute(CARD)


async def by_psycopg_async() -> None:
    """The same connection after a denial, by asyncio."""
    async with await psycopg.AsyncConnection.connect(autocommit=True) as c:
        say(await attempt_soon(c.execute(DROP)), await attempt_soon(_fetch(c)))
        async with c.pipeline() as pipeline:
            one = await c.execute(COUNT)
            await c.execute(CARD)
            say(await attempt_soon(pipeline.sync()))
            say(await attempt_soon(one.fetchone()))
        say(await attempt_soon(_fetch(c)))


async def _fetch(c: psycopg.AsyncConnection[Any]) -> object:
    return await (await c.execute(COUNT)).fetchone()


def by_sqlalchemy() -> None:
    """An engine whose connections go back into its pool."""
    engine = sa.create_engine("postgresql+psycopg://")
    for _ in range(2):
        with engine.connect() as connection:
            say(attempt(partial(connection.execute, sa.text(DROP))))
            connection.rollback()
            say(attempt(partial(connection.scalar, sa.text(COUNT))))
    say(engine.pool.status().split(" Current")[0])
    engine.dispose()


if __name__ == "__main__":
    say("--- psycopg")
    by_psycopg()
    say("--- psycopg, asyncio")
    asyncio.run(by_psycopg_async())
    say("--- pg8000")
    by_pg8000()
    say("--- asyncpg")
    asyncio.run(by_asyncpg())
    say("--- sqlalchemy")
    by_sqlalchemy()
