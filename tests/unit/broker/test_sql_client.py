"""SQL sessions of providers: who is talked to, what is bounded, and what rogue servers get."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from agent.broker.sql_client import Session, Sql
from agent.credentials.spec import SQL_ROWS_MAX, CredentialError, SqlRefused, SqlServer
from agent.model.secret import Secret
from tests.servers.certificates import Authority
from tests.servers.postgres import ADMIN_PASSWORD, Postgres, postgres_server
from tests.servers.postgres import PASSWORD as APP_PASSWORD

pytestmark = [
    pytest.mark.servers,
    # a driver's transport that was closed as the test's event loop ended is collected afterwards
    pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
PASSWORD = Secret(ADMIN_PASSWORD.encode())
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@pytest.fixture(scope="module")
def running() -> Iterator[Postgres]:
    """A server."""
    with postgres_server(Authority(), plain=True) as server:
        yield server


def where(server: Postgres) -> SqlServer:
    """Return the server as the target of a policy says it."""
    return SqlServer(
        server.address, server.port, server.name, str(server.ca),
        "loopwarden_admin", "orders", "label-of-ours",
    )  # fmt: skip


async def using(server: SqlServer, password: Secret = PASSWORD) -> list[tuple[object, ...]]:
    """Connect, and return what one query says."""
    async with Sql().session(server, password) as session:
        return list(await session.fetch("SELECT 1"))


def refused(server: SqlServer, password: Secret = PASSWORD) -> CredentialError:
    """Return why a session can't be had."""
    with pytest.raises(CredentialError) as caught:
        asyncio.run(using(server, password))
    assert ADMIN_PASSWORD not in str(caught.value)
    assert caught.value.nothing_made
    return caught.value


def test_a_session_is_tls_and_bounded_by_the_server_too(running: Postgres) -> None:
    """TLS, our label, a search_path that nobody can put a name in, and the server's own limits."""

    async def run() -> None:
        async with Sql().session(where(running), PASSWORD) as session:
            assert session.version >= 14
            [[tls]] = await session.fetch(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            )
            assert tls is True
            for name, value in (
                ("application_name", "label-of-ours"),
                ("search_path", "pg_catalog"),
                ("statement_timeout", "10s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "10s"),
            ):
                assert await session.fetch("SELECT current_setting($1)", name) == ((value,),)

    asyncio.run(run())


def test_the_server_is_verified(running: Postgres) -> None:
    """Another name, another CA, no CA file, a wrong password: each is told apart."""
    server = where(running)
    assert "is not other.internal" in str(refused(replace(server, name="other.internal")))
    assert not refused(replace(server, name="other.internal")).transient
    assert "self-signed" in str(refused(replace(server, ca="")))
    assert "CA file" in str(refused(replace(server, ca="/dev/null")))
    assert "CA file" in str(refused(replace(server, ca="/nonexistent")))
    error = refused(server, Secret(b"wrong"))
    assert isinstance(error, SqlRefused)
    assert error.code == "28P01"
    assert "not UTF-8" in str(refused(server, Secret(b"\xff")))


def test_without_tls_scram_alone_is_answered(running: Postgres) -> None:
    """Where the operator says so: SCRAM works; md5 and cleartext do within TLS alone."""
    plain = replace(where(running), name="", ca="")
    assert asyncio.run(using(plain)) == [(1,)]
    app = Secret(APP_PASSWORD.encode())
    assert asyncio.run(using(replace(plain, user="app_scram"), app)) == [(1,)]
    for user, words in (("app_md5", "an MD5"), ("app_password", "the password in clear")):
        assert words in str(refused(replace(plain, user=user), app))
        assert asyncio.run(using(replace(where(running), user=user), app)) == [(1,)]


def test_rows_are_bounded(running: Postgres) -> None:
    """SQL_ROWS_MAX rows are an answer, one more is an error; the session stays usable."""

    async def run() -> None:
        async with Sql().session(where(running), PASSWORD) as session:
            many = await session.fetch("SELECT generate_series(1, $1::int)", SQL_ROWS_MAX)
            assert len(many) == SQL_ROWS_MAX
            with pytest.raises(CredentialError, match=f"more than {SQL_ROWS_MAX} rows"):
                await session.fetch("SELECT generate_series(1, $1::int)", SQL_ROWS_MAX + 1)
            assert await session.fetch("SELECT 1") == ((1,),)

    asyncio.run(run())


def test_a_refusal_has_the_code_and_the_message_alone(running: Postgres) -> None:
    """DETAIL and HINT may quote values: they are left out."""

    async def run() -> None:
        async with Sql().session(where(running), PASSWORD) as session:
            with pytest.raises(SqlRefused, match="division by zero") as caught:
                await session.execute("SELECT 1/0")
            assert caught.value.code == "22012"
            raising = "DO $$BEGIN RAISE 'shown' USING DETAIL = 'hidden', HINT = 'hidden'; END$$"
            with pytest.raises(SqlRefused) as caught:
                await session.execute(raising)
            assert "shown" in str(caught.value)
            assert "hidden" not in str(caught.value)
            warnings = await session.execute("DO $$BEGIN RAISE WARNING 'w'; END$$")
            assert warnings == ("01000",)
            assert await session.execute("SELECT 1") == ()

    asyncio.run(run())


def test_a_transaction_is_all_or_nothing(running: Postgres) -> None:
    """What is refused inside undoes all of it; so does an error of ours; the session goes on."""

    async def count(session: Session) -> object:
        return (await session.fetch("SELECT count(*) FROM pg_tables WHERE tablename = 'lwt'"))[0][0]

    async def make(session: Session, then: str) -> None:
        async with session.transaction():
            await session.execute("CREATE TABLE public.lwt (n int)")
            if not then:
                raise CredentialError("ours")
            await session.execute(then)

    async def run() -> None:
        async with Sql().session(where(running), PASSWORD) as session:
            for then in ("SELECT 1/0", ""):
                with pytest.raises(CredentialError):
                    await make(session, then)
                assert await count(session) == 0
            await make(session, "SELECT 1")
            assert await count(session) == 1
            await session.execute("DROP TABLE public.lwt")

    asyncio.run(run())


def test_transactions_of_one_broker_take_turns(running: Postgres) -> None:
    """The second begins when the first is over."""
    order: list[str] = []

    async def one(sql: Sql, name: str, begun: asyncio.Event, first: asyncio.Event) -> None:
        async with sql.session(where(running), PASSWORD) as session:
            await first.wait()
            async with session.transaction():
                begun.set()
                order.append(f"{name} in")
                await session.execute("SELECT pg_sleep(0.05)")
                order.append(f"{name} out")

    async def run() -> None:
        sql, begun, now = Sql(), asyncio.Event(), asyncio.Event()
        now.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(one(sql, "a", begun, now))
            group.create_task(one(sql, "b", asyncio.Event(), begun))

    asyncio.run(run())
    assert order == ["a in", "a out", "b in", "b out"]


def test_a_lost_connection_may_pass(running: Postgres) -> None:
    """An end of the session by the server is an error that may pass, not a wrong answer."""

    async def run() -> None:
        async with Sql().session(where(running), PASSWORD) as session:
            [[pid]] = await session.fetch("SELECT pg_backend_pid()")
            await asyncio.to_thread(running.ask, f"SELECT pg_terminate_backend({pid}, 5000)")
            with pytest.raises(CredentialError) as caught:
                await session.execute("SELECT 1")
            assert caught.value.transient

    asyncio.run(run())


@contextlib.contextmanager
def rogue(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[bytes]]]:
    """Serve one connection: read the first message, answer, and keep what else arrives."""
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(60)
                got.append(peer.recv(8))
                answer(peer)
                while data := peer.recv(65536):
                    got.append(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], got
    finally:
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"N", id="no TLS"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"X", id="nonsense"),
        pytest.param(b"SR\0\0\0\x08\0\0\0\x03", id="a login before TLS"),
        pytest.param(b"E\0\0\0\x10SERROR\0C1\0\0", id="an error before TLS"),
        pytest.param(b"S\x16\x03\x01\0\x05hello", id="no TLS record"),
    ],
)
def test_a_rogue_server_gets_no_login(running: Postgres, answer: bytes) -> None:
    """Before TLS is up and verified, no name and no password goes out, whatever it says."""

    def speak(peer: socket.socket) -> None:
        peer.sendall(answer)
        peer.shutdown(socket.SHUT_WR)

    with rogue(speak) as (port, got):
        refused(replace(where(running), host="127.0.0.1", port=port))
    assert got[0] == SSL_REQUEST
    sent = b"".join(got)
    assert b"loopwarden" not in sent
    assert b"orders\x00" not in sent
