"""SQL sessions of providers: verified, bounded in time and rows, never a secret in an error.

A server of another name, or of a CA that is not the target's, gets nothing: TLS is up and verified
before the login begins; without TLS a server gets SCRAM's proof alone (`sql_login`). asyncpg reads
neither ~/.pgpass nor service files here: all is given.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from typing import NoReturn

import asyncpg

from agent.broker.files import Untrusted, read_public
from agent.broker.sql_login import PlainLogins
from agent.credentials.spec import (
    SQL_CONNECT_S,
    SQL_ROWS_MAX,
    SQL_STATEMENT_S,
    CredentialError,
    SqlRefused,
    SqlServer,
)
from agent.masking.scrubber import Scrubber
from agent.model.secret import Secret

CA_BYTES_MAX = 1 << 20
CLOSE_S = 1.0
ERROR_CHARACTERS_MAX = 200
SETTINGS = {
    "search_path": "pg_catalog",
    "client_min_messages": "warning",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO",
    # the server ends by itself what we could not tell it to end
    "lock_timeout": str(int(SQL_STATEMENT_S * 500)),
    "statement_timeout": str(int(SQL_STATEMENT_S * 1000)),
    "idle_in_transaction_session_timeout": str(int(SQL_STATEMENT_S * 1000)),
}
# the server may be ready soon: too many connections, starting, stopping, failing over
_SOON = frozenset({"53300", "57P01", "57P02", "57P03", "55P03", "40001", "40P01", "25006"})
_SQLSTATE = re.compile(r"[0-9A-Z]{5}", re.ASCII)

# what a statement on a connection that is gone or half gone may raise
_GONE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


class Sql:
    """All sessions of the broker; see Client.sql."""

    def __init__(self) -> None:
        self._alone: dict[tuple[str, int], asyncio.Lock] = {}  # as many as the policy has servers

    @contextlib.asynccontextmanager
    async def session(self, server: SqlServer, password: Secret) -> AsyncIterator["Session"]:
        """Connect and, at the end, disconnect.

        Raises:
            CredentialError: see Client.sql.
        """
        context = _context(server)
        connection = await _connect(server, password, context)
        alone = self._alone.setdefault((server.host, server.port), asyncio.Lock())
        session = Session(connection, alone, password)
        try:
            yield session
        finally:
            await session.close()


class Session:
    """See SqlSession."""

    def __init__(
        self, connection: "asyncpg.Connection", alone: asyncio.Lock, password: Secret
    ) -> None:
        self._connection = connection
        self._alone = alone
        self._password = password
        self._warnings: list[str] = []
        self._broken = False
        connection.add_log_listener(self._noted)

    @property
    def version(self) -> int:
        """See SqlSession."""
        major: int = self._connection.get_server_version().major
        return major

    async def execute(self, text: str) -> tuple[str, ...]:
        """See SqlSession.

        Raises:
            CredentialError: see SqlSession.
        """
        self._warnings.clear()
        async with self._bounded():
            await self._connection.execute(text)
        return tuple(self._warnings)

    async def fetch(self, text: str, *arguments: str | int) -> tuple[tuple[object, ...], ...]:
        """See SqlSession.

        Raises:
            CredentialError: see SqlSession.
        """
        # S608: the text is a provider's own, never a loop's; values are arguments
        limited = f"SELECT * FROM ({text}) AS bounded LIMIT {SQL_ROWS_MAX + 1}"  # noqa: S608
        async with self._bounded():
            rows = await self._connection.fetch(limited, *arguments)
            if len(rows) > SQL_ROWS_MAX:
                raise CredentialError(f"an answer of more than {SQL_ROWS_MAX} rows")
            return tuple(tuple(row) for row in rows)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """See SqlSession.

        Raises:
            CredentialError: it could not begin or commit.
        """
        async with self._alone:
            try:
                await self.execute("BEGIN")
                yield
                await self.execute("COMMIT")
            except CredentialError:
                if not self._broken:
                    await self.execute("ROLLBACK")
                raise
            except BaseException:
                self._broken = True  # the server rolls back when the connection is gone
                raise

    async def close(self) -> None:
        """Disconnect; a session in doubt at once, without a word."""
        if not self._broken:
            with contextlib.suppress(*_GONE):
                await self._connection.close(timeout=CLOSE_S)
        self._connection.terminate()

    def _noted(self, _connection: object, message: "asyncpg.PostgresLogMessage") -> None:
        if len(self._warnings) < SQL_ROWS_MAX:
            self._warnings.append(str(message.sqlstate))

    @contextlib.asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(SQL_STATEMENT_S):
                yield
        except asyncpg.PostgresError as error:
            if self._connection.is_closed():
                self._broken = True
            _refused("the server refuses it", error, self._password)
        except TimeoutError:
            self._broken = True
            text = f"the server did not answer within {SQL_STATEMENT_S:.0f} s"
            raise CredentialError(text, transient=True) from None
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            # the second of asyncpg: a connection that died under a statement that was cut off
            self._broken = True
            kind = type(error).__name__
            raise CredentialError(f"connection lost ({kind})", transient=True) from None
        except asyncio.CancelledError:
            self._broken = True
            raise


class _Named(ssl.SSLContext):
    """A context that verifies one name, whatever address was dialled."""

    name: str

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - as ssl.SSLContext has it
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See ssl.SSLContext.wrap_bio."""
        del server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, self.name, session)


def _context(server: SqlServer) -> _Named | None:
    """Return what verifies the server: certificate, chain and name (sslmode verify-full)."""
    if not server.name:
        return None
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.name = server.name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if server.ca:
            pem = read_public(server.ca, CA_BYTES_MAX).decode("ascii", "replace")
            context.load_verify_locations(cadata=pem)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except (Untrusted, ssl.SSLError) as error:
        text = f"the CA file {server.ca}: {error}"
        raise CredentialError(text, nothing_made=True) from error
    except OSError as error:
        text = f"the CA file {server.ca}: {error.strerror}"
        raise CredentialError(text, transient=True, nothing_made=True) from error
    return context


async def _connect(
    server: SqlServer, password: Secret, context: _Named | None
) -> "asyncpg.Connection":
    where = f"{server.host}:{server.port}"
    try:
        async with asyncio.timeout(SQL_CONNECT_S):
            return await _log_in(server, password, context)
    except CredentialError:
        raise
    except asyncpg.PostgresError as error:
        _refused(f"{where} refuses the user {server.user}", error, password, nothing_made=True)
    except UnicodeDecodeError:
        text = f"the password of {server.user} is not UTF-8"
        raise CredentialError(text, nothing_made=True) from None
    except TimeoutError:
        text = f"{where} did not answer within {SQL_CONNECT_S:.0f} s"
        raise CredentialError(text, transient=True, nothing_made=True) from None
    except ssl.SSLCertVerificationError as error:
        text = f"{where} is not {server.name}: {error.verify_message}"
        raise CredentialError(text, nothing_made=True) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise CredentialError(f"{where}: {why}", transient=True, nothing_made=True) from None
    except Exception as error:  # noqa: BLE001 - a server's nonsense raises anything
        # asyncpg's own, and what its login raises on nonsense: the text may quote the server
        text = f"{where} does not talk as a PostgreSQL server does ({type(error).__name__})"
        raise CredentialError(text, transient=True, nothing_made=True) from None


async def _log_in(
    server: SqlServer, password: Secret, context: _Named | None
) -> "asyncpg.Connection":
    logins = PlainLogins(asyncio.get_running_loop())
    try:
        return await asyncpg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=password.reveal().decode(),
            database=server.database,
            ssl=context or False,
            timeout=2 * SQL_CONNECT_S,  # the caller's counts
            statement_cache_size=0,
            target_session_attrs="any",
            server_settings={**SETTINGS, "application_name": server.label},
            loop=logins.as_event_loop() if context is None else None,
        )
    except Exception:
        if logins.refused:
            text = f"{server.host}:{server.port} {logins.refused}"
            raise CredentialError(text, nothing_made=True) from None
        raise


def _refused(
    what: str, error: asyncpg.PostgresError, password: Secret, *, nothing_made: bool = False
) -> NoReturn:
    """Raise the server's answer: its message alone, for DETAIL and HINT may quote values."""
    code = str(error.sqlstate or "")
    code = code if _SQLSTATE.fullmatch(code) else ""  # it is the server's to write
    message = _without(password, str(error.args[0] if error.args else ""))[:ERROR_CHARACTERS_MAX]
    refused = SqlRefused(f"{what}: {message} ({code})", code)
    refused.transient = code in _SOON or code.startswith("08")
    refused.nothing_made = nothing_made
    raise refused from None


def _without(password: Secret, message: str) -> str:
    """Return a server's words without the password, which it may have been told within TLS."""
    try:
        scrubber = Scrubber((password,))
    except ValueError:
        return "its words are not shown, for the password is too short to be found in them"
    return scrubber.scrub(message.encode("utf-8", "replace")).decode("utf-8", "replace")
