"""What a PostgreSQL server may ask of a login where nothing is encrypted: SCRAM's proof, no more.

asyncpg answers whatever a server asks for, up to ReadyForQuery. Without TLS anybody on the way may
ask, so that what comes is looked at before asyncpg gets it: a request for the password, or for a
hash of it that can be guessed at leisure, ends the connection, and so does a count of iterations
that would keep this process busy (PostgreSQL documentation, "Message Formats").
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

MESSAGE_BYTES_MAX = 64 * 1024  # of one message before ReadyForQuery → refused
ITERATIONS_MAX = 100_000  # of SCRAM: some 30 ms → refused
_HEADER_BYTES = 5
_SASL_CONTINUE = 11
_MAY_COME = frozenset({0, 10, _SASL_CONTINUE, 12})  # Ok, SASL, SASLContinue, SASLFinal
_ASKED = {3: "the password in clear", 5: "an MD5 of the password"}
_ITERATIONS = re.compile(rb",i=0*([0-9]+)", re.ASCII)


class PlainLogins:
    """Connects for asyncpg, in the event loop's place. `refused`: why it ended a connection."""

    def __init__(self, event_loop: asyncio.AbstractEventLoop) -> None:
        self._event_loop = event_loop
        self.refused = ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._event_loop, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._event_loop  # asyncio looks tasks up by it

    def __hash__(self) -> int:
        return hash(self._event_loop)

    async def create_connection(
        self, make: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """See asyncio's."""
        transport, watched = await self._event_loop.create_connection(
            lambda: _Watched(make(), self._refuse), host, port
        )
        return transport, watched.inner

    def as_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return it as what asyncpg takes."""
        return cast(asyncio.AbstractEventLoop, self)

    def _refuse(self, why: str) -> None:
        self.refused = self.refused or why


class _Watched(asyncio.Protocol):
    """Passes whole messages on up to ReadyForQuery, then bytes as they come."""

    def __init__(self, inner: asyncio.Protocol, refuse: Callable[[str], None]) -> None:
        self.inner = inner
        self._refuse = refuse
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._over:
            self.inner.data_received(data)
            return
        self._held += data
        while not self._over and (message := self._next()):
            self._over = message[:1] == b"Z"
            self.inner.data_received(message)
        if self._over and self._held:
            held, self._held = self._held, b""
            self.inner.data_received(held)

    def _next(self) -> bytes:
        """Take the next whole message that may come, b"" while there is none."""
        held = self._held
        if len(held) < _HEADER_BYTES:
            return b""
        length = int.from_bytes(held[1:_HEADER_BYTES], "big", signed=True)
        if not 4 <= length <= MESSAGE_BYTES_MAX:
            return self._end("sends a message whose length may not be")
        message = held[: 1 + length]
        if len(message) <= length:
            return b""
        if why := _objection(message):
            return self._end(why)
        self._held = held[1 + length :]
        return message

    def _end(self, why: str) -> bytes:
        self._refuse(why)
        self._held = b""
        assert self._transport is not None  # it is what brings data
        self._transport.abort()
        return b""

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


def _objection(message: bytes) -> str:
    """Return what the server does that it may not, "" if it may."""
    if message[:1] != b"R":
        return ""
    code = int.from_bytes(message[_HEADER_BYTES : _HEADER_BYTES + 4], "big")
    if code not in _MAY_COME or len(message) < _HEADER_BYTES + 4:
        return f"asks for {_ASKED.get(code, 'a login that is not SCRAM')}, without TLS"
    if code == _SASL_CONTINUE:
        found = _ITERATIONS.search(message)  # the first, as asyncpg reads it
        digits = b"" if found is None else found[1]
        if not digits or len(digits) > len(str(ITERATIONS_MAX)) or int(digits) > ITERATIONS_MAX:
            return f"asks for more than {ITERATIONS_MAX} iterations of SCRAM"
    return ""
