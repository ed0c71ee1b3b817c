"""The first bytes of a session: TLS or clear text, and for whom."""

import asyncio
from typing import cast

from agent.ipc.messages import Authorized
from agent.model.ids import OperationId
from agent.model.reason import Reason
from agent.proxy.channel import NOBODY, Channel
from agent.proxy.driver import Driver
from agent.proxy.relays import SPECS
from agent.proxy.services import Services
from agent.proxy.session import Session
from agent.runtime.clock import fresh_ulid
from agent.wire.relay import RelayContext
from agent.wire.side import Side

GREETING_TIMEOUT_S = 10.0  # to the first bytes, and to the end of the TLS handshake


def new_operation_id() -> OperationId:
    """Return a fresh name for an operation."""
    return OperationId(fresh_ulid())


class Greeting(asyncio.Protocol):
    """Reads until it is clear how to go on, then gives the transport to a channel."""

    def __init__(self, services: Services, session: Session, answer: Authorized) -> None:
        self._services = services
        self._answer = answer
        self._event_loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._first = b""
        self.session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = self._event_loop.call_later(
            GREETING_TIMEOUT_S, self.cut, Reason.TIMED_OUT
        )

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._first += data
        self._go_on(data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol."""
        self.cut(Reason.DOWNSTREAM_CLOSED)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.cut(Reason.DOWNSTREAM_CLOSED)

    def cut(self, reason: Reason) -> None:
        """End now with this cause."""
        self._stop()
        if self._transport is not None:
            self._transport.abort()
        self._services.sessions.closed(self, reason)

    def drain(self) -> None:
        """Nothing is under way yet."""
        self.cut(Reason.DRAINING)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _go_on(self, data: bytes) -> None:
        grant = self.session.grant
        spec = None if grant is None else SPECS.get(grant.target.protocol)
        if grant is None or spec is None or self._transport is None:
            self.cut(self._answer.reason or Reason.PROTOCOL_UNKNOWN)
            return
        self._stop()
        channel = Channel(Side.DOWNSTREAM, NOBODY)
        channel.adopt(self._transport)
        self._transport.set_protocol(channel)
        relay = spec.relay(RelayContext(self.session.session_id, grant.target, new_operation_id))
        driver = Driver(self._services, self.session, relay, channel)
        self._services.sessions.replace(self, driver)
        driver.start(None, self._first)
