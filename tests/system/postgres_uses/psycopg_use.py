"""psycopg 3 in every way that it speaks to a server. Prints what it sees: direct and through alike.

Connection parameters come from the environment, as libpq takes them.
"""

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
from psycopg import pq, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

USES: list[Callable[[], None]] = []
TABLE: LiteralString = """
    CREATE TEMP TABLE things (
        id int PRIMARY KEY, name text, price numeric, made timestamptz, raw bytea, data jsonb,
        tags text[]
    )
"""
INSERT: LiteralString = "INSERT INTO things VALUES (%s, %s, %s, %s, %s, %s, %s)"
DIVIDED: LiteralString = "SELECT 1 / %s"
SLEEP: LiteralString = "SELECT pg_sleep(60)"
ASLEEP: LiteralString = (
    "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
)


def use(function: Callable[[], None]) -> Callable[[], None]:
    """Run it when its turn comes."""
    USES.append(function)
    return function


def say(*values: object) -> None:
    """Print at once: what came before an end is seen."""
    print(*values, flush=True)


def thing(number: int) -> tuple[object, ...]:
    """Return a row with a value of most kinds."""
    return (
        number, f"näme '{number}' \\ %", Decimal(number) / 7,
        datetime(2024, 1, 1, 0, 0, number % 60, tzinfo=UTC), bytes([number % 256]) * 5,
        Jsonb({"n": number, "deep": [None, True, "…"]}), ["a", None, 'quote "d"', f"{number}"],
    )  # fmt: skip


def failing(what: str, function: Callable[[], object]) -> None:
    """Say how it fails."""
    try:
        say(what, "gave", function())
    except psycopg.Error as error:
        diagnosis = error.diag
        say(what, type(error).__name__, error.sqlstate, diagnosis.message_primary,
            diagnosis.statement_position, diagnosis.constraint_name)  # fmt: skip


def connect(**words: Any) -> psycopg.Connection[Any]:
    """Connect as the environment says."""
    return psycopg.connect(**words)


@use
def rows_of_every_kind() -> None:
    """Text and binary, in and out, prepared or not."""
    with connect() as connection:
        connection.execute(TABLE)
        for number in range(3):
            connection.execute(INSERT, thing(number))
        for binary in (False, True):
            for prepare in (False, True):
                cursor = connection.cursor(binary=binary)
                cursor.execute("SELECT * FROM things WHERE id < %s", (9,), prepare=prepare)
                say(binary, prepare, cursor.statusmessage, cursor.fetchall())
        named = connection.cursor(row_factory=dict_row)
        say(named.execute("SELECT 1 AS one, NULL AS none, '' AS empty").fetchall())
        say(connection.execute("SELECT").rowcount, connection.execute("").statusmessage)
        several = connection.execute("SELECT 1; SELECT 2, 'b'; CREATE TEMP TABLE t (a int)")
        say(several.statusmessage, several.nextset(), several.nextset(), several.nextset())


@use
def prepared_by_itself() -> None:
    """The sixth time a statement is prepared; DEALLOCATE as many come."""
    with connect(autocommit=True) as connection:
        connection.prepared_max = 3
        for number in range(12):
            text = sql.SQL("SELECT {}::int + %s").format(number % 5)
            say([connection.execute(text, (step,)).fetchone() for step in range(7)])
        say(connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone())
        connection.execute("DEALLOCATE ALL")
        say(connection.execute("SELECT %s::text", ("after",)).fetchone())


@use
def transactions() -> None:
    """Blocks in blocks, an error in one, isolation, and the status after each."""
    with connect() as connection:
        connection.execute(TABLE)
        say(connection.info.transaction_status.name)
        with connection.transaction():
            connection.execute(INSERT, thing(1))
            failing("duplicate", lambda: _nested(connection))
            say(connection.info.transaction_status.name)
        say(connection.execute("SELECT count(*) FROM things").fetchone())
        failing("syntax", lambda: connection.execute("SELEC 1"))
        say(connection.info.transaction_status.name)
        failing("aborted", lambda: connection.execute("SELECT 1"))
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.read_only = True
        failing("write", lambda: connection.execute("CREATE TABLE nowhere (a int)"))
        connection.rollback()
        say(connection.execute("SHOW transaction_isolation").fetchone())


def _nested(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        connection.execute(INSERT, thing(2))
        connection.execute(INSERT, thing(1))


@use
def two_phases() -> None:
    """PREPARE TRANSACTION, which the server may not be configured for: the same answer."""
    with connect() as connection:
        transaction = connection.xid(42, "gtrid", "bqual")
        connection.tpc_begin(transaction)
        connection.execute("SELECT 1")
        failing("two-phase", connection.tpc_prepare)
        failing("rollback", connection.tpc_rollback)
    with connect() as connection:
        say(connection.tpc_recover())


@use
def pipelines() -> None:
    """Many in flight, an error in the middle, and what comes behind it."""
    with connect(autocommit=True) as connection:
        connection.execute(TABLE)
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT %s::int * 2", (n,)) for n in range(300)]
            pipeline.sync()
            say(sum(cursor.fetchone()[0] for cursor in cursors))
        failing("pipeline", lambda: _fail_in_pipeline(connection))
        say(connection.execute("SELECT 'usable'").fetchone())
        cursor = connection.cursor()
        cursor.executemany(INSERT, [thing(n) for n in range(500)])
        say(cursor.rowcount)
        failing("executemany", lambda: cursor.executemany(
            INSERT, [thing(n) for n in (600, 601, 1, 602)]))  # fmt: skip
        say(connection.execute("SELECT count(*) FROM things WHERE id >= 600").fetchone())
        cursor.executemany("SELECT %s::int", [(n,) for n in range(3)], returning=True)
        say([found.fetchall() for found in cursor.results()])


def _fail_in_pipeline(connection: psycopg.Connection[Any]) -> None:
    logging.disable()  # psycopg warns of objects by their addresses
    with connection.pipeline() as pipeline:  # which of its calls raises is a matter of time
        connection.execute("SELECT 'before'")
        connection.execute(DIVIDED, (0,))
        connection.execute("SELECT 'behind'")
        pipeline.sync()
        connection.execute("SELECT 'after the sync'")


@use
def server_side_cursors() -> None:
    """Named cursors: forward, scrolled, kept beyond a transaction; rows in pieces."""
    with connect() as connection:
        with connection.cursor("forward") as cursor:
            cursor.itersize = 7
            cursor.execute("SELECT n FROM generate_series(1, 30) n")
            say(sum(row[0] for row in cursor), cursor.fetchone())
        with connection.cursor("scroll", scrollable=True) as cursor:
            cursor.execute("SELECT n FROM generate_series(1, %s) n", (100,))
            cursor.scroll(50)
            say(cursor.fetchmany(3))
            cursor.scroll(-20)
            say(cursor.fetchone())
        held = connection.cursor("held", withhold=True)
        held.execute("SELECT n FROM generate_series(1, 5) n")
        connection.commit()
        say(held.fetchall())
        held.close()
        connection.commit()
        streamed = connection.cursor().stream("SELECT n FROM generate_series(1, 1000) n")
        say(sum(row[0] for row in streamed))
        chunks = connection.cursor().stream("SELECT n FROM generate_series(1, 1000) n", size=64)
        say(sum(row[0] for row in chunks))
        left = connection.cursor().stream("SELECT n FROM generate_series(1, 10000000) n")
        say(next(left)[0])
        left.close()
        say(connection.info.transaction_status.name)


@use
def copies() -> None:
    """COPY in and out, text, CSV and binary, given up by either side."""
    with connect(autocommit=True) as connection:
        connection.execute(TABLE)
        cursor = connection.cursor()
        with cursor.copy("COPY things FROM STDIN") as copy:
            for number in range(1000):
                copy.write_row(thing(number))
        say(cursor.rowcount, cursor.statusmessage)
        for words in ("", "(FORMAT csv, HEADER)", "(FORMAT binary)"):
            with cursor.copy(f"COPY things TO STDOUT {words}") as copy:
                data = b"".join(bytes(piece) for piece in copy)
            say(words, len(data), hashlib.sha256(data).hexdigest(), cursor.statusmessage)
            connection.execute("TRUNCATE things")
            with cursor.copy(f"COPY things FROM STDIN {words}") as copy:
                for at in range(0, len(data), 10_007):
                    copy.write(data[at : at + 10_007])
            say(connection.execute("SELECT count(*), sum(price) FROM things").fetchone())
        failing("bad data", lambda: _copy(cursor, b"x\ty\n"))
        failing("given up", lambda: _copy(cursor, b"7000\t", fail=True))
        failing("left", lambda: _leave_copy(cursor))  # psycopg cancels
        say(connection.execute("SELECT count(*) FROM things").fetchone())


def _copy(cursor: psycopg.Cursor[Any], data: bytes, *, fail: bool = False) -> None:
    with cursor.copy("COPY things FROM STDIN") as copy:
        copy.write(data)
        if fail:
            raise psycopg.DataError("the client gives up")


def _leave_copy(cursor: psycopg.Cursor[Any]) -> None:
    many: LiteralString = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"
    with cursor.copy(f"COPY ({many}) TO STDOUT") as copy:
        say(len(next(iter(copy))))
        raise psycopg.DataError("it has seen enough")


@use
def notifications() -> None:
    """LISTEN and NOTIFY over two sessions, and notices."""
    with connect(autocommit=True) as one, connect(autocommit=True) as two:
        said: list[str | None] = []
        one.add_notice_handler(lambda notice: said.append(notice.message_primary))
        one.execute("DO $$ BEGIN RAISE NOTICE 'told %', 1; RAISE WARNING 'beware'; END $$")
        one.execute("DROP TABLE IF EXISTS not_there")
        say(said)
        one.execute("LISTEN news")
        two.execute("SELECT pg_notify('news', %s)", ("x" * 7000,))
        two.execute("NOTIFY news, 'second'")
        found = [(n.channel, len(n.payload)) for n in one.notifies(timeout=60, stop_after=2)]
        say(found)
        one.execute("NOTIFY news, 'own'")
        say([n.payload for n in one.notifies(timeout=60, stop_after=1)])
        one.execute("UNLISTEN *")


@use
def cancels() -> None:
    """A running query is cancelled by the old way and the safe way, and the session goes on."""
    with connect(autocommit=True) as connection:
        for cancel in (connection.cancel, connection.cancel_safe):
            other = threading.Thread(target=_when_asleep, args=(cancel,))
            other.start()
            failing("cancelled", lambda: connection.execute(SLEEP))
            other.join()
            say(connection.execute("SELECT 'goes on'").fetchone())
        connection.execute("SET statement_timeout = '100ms'")
        failing("too slow", lambda: connection.execute("SELECT pg_sleep(20)"))


def _when_asleep(act: Callable[[], None]) -> None:
    """Do it when the server has begun to sleep: a cancel that comes before means nothing."""
    with connect(autocommit=True) as other:
        while not other.execute(ASLEEP).fetchone():
            pass
    act()


@use
def big_values() -> None:
    """Values of megabytes, both ways; more parameters than most; many columns."""
    with connect(autocommit=True) as connection:
        raw = hashlib.sha256(b"seed").digest() * (1 << 17)  # 4 MiB
        for binary in (False, True):
            found = connection.execute("SELECT %b::bytea, length(%s)", (raw, "ü" * (1 << 20)),
                                       binary=binary).fetchone()  # fmt: skip
            assert found
            say(hashlib.sha256(bytes(found[0])).hexdigest(), found[1])
        found = connection.execute("SELECT repeat('y', 30000000)").fetchone()
        assert found
        say(len(found[0]))
        many: Any = "SELECT 4999 IN (" + ", ".join(["%s::int"] * 5000) + ")"
        say(connection.execute(many, list(range(5000))).fetchone())
        wide: Any = "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(1600))
        cursor = connection.execute(wide)
        say(len(cursor.description or ()), sum(cursor.fetchone() or ()))


@use
def the_connection_itself() -> None:
    """What libpq knows of the session and the server."""
    with connect(autocommit=True) as connection:
        info = connection.info
        say(info.server_version, info.user, info.dbname, info.encoding, info.status.name)
        for name in ("server_version", "server_encoding", "client_encoding", "is_superuser",
                     "session_authorization", "DateStyle", "IntervalStyle", "TimeZone",
                     "integer_datetimes", "standard_conforming_strings", "in_hot_standby",
                     "default_transaction_read_only"):  # fmt: skip
            say(name, info.parameter_status(name))
        connection.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German, DMY'")
        say(info.timezone, info.parameter_status("DateStyle"))
        say(connection.execute("SELECT '2024-02-01 10:00Z'::timestamptz::text").fetchone())
        say(info.backend_pid > 0, connection.pgconn.ssl_in_use)  # no password was used through us
        say(connection.pgconn.protocol_version, connection.broken, connection.closed)
    failing("no database", lambda: connect(dbname="not_there"))
    with connect(options="-c statement_timeout=12s -c search_path=a,b") as connection:
        say(connection.execute("SHOW statement_timeout").fetchone())
        say(connection.execute("SHOW search_path").fetchone())


@use
def the_plain_libpq() -> None:
    """Single-row mode, describe and close of statements and portals, a function's fast path."""
    with connect(autocommit=True) as connection:
        raw = connection.pgconn
        say(raw.prepare(b"named", b"SELECT $1::int AS a, 'x'::text AS b").status)
        described = raw.describe_prepared(b"named")
        say(described.nparams, described.nfields, described.fname(1), described.ftype(0))
        found = raw.exec_prepared(b"named", [b"5"])
        say(found.status, found.get_value(0, 0))
        say(pq.ExecStatus(raw.close_prepared(b"named").status).name)
        gone = raw.exec_prepared(b"named", [b"5"])
        say(gone.status, gone.error_field(pq.DiagnosticField.SQLSTATE))
        raw.exec_(b"BEGIN; DECLARE c CURSOR FOR SELECT 7")
        say(raw.describe_portal(b"c").nfields)
        say(raw.exec_(b"FETCH c; CLOSE c; COMMIT").status)


@use
def asynchronous() -> None:
    """The same by asyncio: several at once on several sessions, a pipeline, COPY, cancel."""
    asyncio.run(_asynchronous())


async def _asynchronous() -> None:
    connections = [await psycopg.AsyncConnection.connect(autocommit=True) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_worker(c, n)) for n, c in enumerate(connections)]
    say([task.result() for task in tasks])
    first = connections[0]
    async with first.pipeline():
        cursors = [await first.execute("SELECT %s::int", (n,)) for n in range(50)]
    say([(await cursor.fetchone()) for cursor in cursors][-1])
    sleeping = asyncio.create_task(first.execute(SLEEP))
    while not await (await connections[1].execute(ASLEEP)).fetchone():
        pass
    sleeping.cancel()
    try:
        await sleeping
    except (asyncio.CancelledError, psycopg.Error) as error:
        say("cancelled", type(error).__name__)
    say(await (await first.execute("SELECT 'goes on'")).fetchone())
    for connection in connections:
        await connection.close()


async def _worker(connection: psycopg.AsyncConnection[Any], number: int) -> tuple[int, int]:
    total = 0
    for step in range(50):
        row = await (await connection.execute("SELECT %s::int", (number * step,))).fetchone()
        total += row[0] if row else 0
    await connection.execute("CREATE TEMP TABLE t (a int)")
    async with connection.cursor().copy("COPY t FROM STDIN") as copy:
        for step in range(100):
            await copy.write_row((step,))
    row = await (await connection.execute("SELECT count(*) FROM t")).fetchone()
    return total, row[0] if row else 0


if __name__ == "__main__":
    for each in USES:
        say(f"--- {each.__name__}")
        each()
