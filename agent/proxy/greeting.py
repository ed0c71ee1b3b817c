"""The first bytes of a session: TLS or clear text, and for whom. Then a driver takes over.

Interception answers only a flow that has a grant, only for the name of the grant's target, and
the upstream is verified before a credential is used (OpenUpstream comes before the first byte).
"""

import asyncio
import os
from typing import assert_never, cast

from agent.ipc.messages import Authorized
from agent.model.grant import Grant
from agent.model.ids import OperationId, TargetName
from agent.model.reason import Reason
from agent.protocols.http1.answers import Refusal, serialize_answer
from agent.proxy.channel import NOBODY, Channel
from agent.proxy.driver import Driver
from agent.proxy.leaves import NoLeaf
from agent.proxy.relays import SPECS
from agent.proxy.secure import (
    ACCESS_DENIED,
    INTERNAL_ERROR,
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    SecureChannel,
    alert,
)
from agent.proxy.services import Services
from agent.proxy.session import Session
from agent.proxy.upstream import is_literal
from agent.runtime.clock import fresh_ulid, unix_ms
from agent.wire.clienthello import ClientHello, NeedMore
from agent.wire.detect import ClearHttp, Unknown, detect
from agent.wire.relay import ProtocolSpec, RelayContext
from agent.wire.side import Side
from agent.wire.tls import TlsEngine

HANDSHAKE = b"\x16"  # how a TLS record with a ClientHello begins
GREETING_TIMEOUT_S = 10.0  # to the first bytes, and to the end of the TLS handshake


def new_operation_id() -> OperationId:
    """Return a fresh name for an operation."""
    return OperationId(fresh_ulid())


def names_target(hello: ClientHello, host: str) -> bool:
    """Whether TLS is asked for with the target, which may be an address and then has no SNI."""
    if hello.server_name is None:
        return is_literal(host)
    return hello.server_name.lower().removesuffix(".") == host


def speaks(spec: ProtocolSpec | None, asked: tuple[bytes, ...]) -> bool:
    """Whether the target's protocol is among what a ClientHello asks for (RFC 7301)."""
    if spec is None:
        return False
    if not asked:
        return not spec.alpn_required
    return any(name.encode() in asked for name in spec.alpn)


def _in_band_tls(grant: Grant) -> bool:
    spec = SPECS.get(grant.target.protocol)
    return spec is not None and spec.in_band_tls


class Greeting(asyncio.Protocol):
    """Reads until it is clear how to go on, then gives the transport to a channel."""

    def __init__(self, services: Services, session: Session, answer: Authorized) -> None:
        self._services = services
        self._answer = answer
        self._event_loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._channel: Channel | None = None
        self._first = b""
        self._decided = False
        self._paused = False
        self.session = session

    # asyncio's calls, until a channel has the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = self._event_loop.call_later(GREETING_TIMEOUT_S, self.cut, Reason.TIMED_OUT)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._first += data
        if not self._decided:
            self._look()

    def eof_received(self) -> bool:
        """See asyncio.Protocol."""
        self.cut(Reason.DOWNSTREAM_CLOSED)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.cut(Reason.DOWNSTREAM_CLOSED)

    # the channel's calls, during the handshake

    def arrived(self, channel: Channel, data: bytes) -> None:
        """Nothing arrives before the handshake is complete, and then there is a driver."""
        raise AssertionError("bytes before the handshake was complete")

    def ended(self, channel: Channel, *, clean: bool) -> None:
        """See channel.Owner."""
        refused = isinstance(channel, SecureChannel) and channel.fault is not None
        self._stop()
        self._services.sessions.closed(
            self, Reason.TLS_FAILED if refused else Reason.DOWNSTREAM_CLOSED
        )
        channel.owner = NOBODY
        channel.abort_when_flushed()

    def lost(self, channel: Channel) -> None:
        """See channel.Owner: `ended` came before."""

    def pressed(self, channel: Channel, *, high: bool) -> None:
        """See channel.Owner: a handshake is never this large."""

    # the session's calls

    def cut(self, reason: Reason) -> None:
        """End now with this cause."""
        self._stop()
        if self._transport is not None:
            self._transport.abort()
        self._services.sessions.closed(self, reason)

    def drain(self) -> None:
        """Nothing is under way yet."""
        self.cut(Reason.DRAINING)

    def stop(self, target: TargetName, name: bytes) -> bool:
        """Nothing is held yet."""
        return False

    # the decision

    def _look(self) -> None:
        grant = self.session.grant
        if grant is not None and self._first[:1] != HANDSHAKE and _in_band_tls(grant):
            self._decided = True
            self._clear()
            return
        found = detect(self._first)
        match found:
            case NeedMore():
                return
            case Unknown():
                self._decided = True
                self._refuse(self._unknown(), self._answer.reason or Reason.PROTOCOL_UNKNOWN)
            case ClearHttp():
                self._decided = True
                self._clear()
            case ClientHello():
                self._decided = True
                self._tls(found)
            case _:
                assert_never(found)

    def _clear(self) -> None:
        grant = self.session.grant
        if grant is None:
            self._refuse(self._explained(), self._answer.reason or Reason.DESTINATION_UNLISTED)
        else:
            self._drive(grant, self._hand_over(Channel(Side.DOWNSTREAM, NOBODY)), None, self._first)

    def _unknown(self) -> bytes:
        """Say in the target's protocol that this is none of it; without a target, say nothing."""
        if self.session.grant is None:
            return b""
        refusal = Refusal(
            400,
            Reason.PROTOCOL_UNKNOWN,
            "The connection begins with neither TLS nor an HTTP/1.1 request.",
            next_step="Speak HTTP/1.1 to this target, with or without TLS.",
        )
        return serialize_answer(refusal, self.session.session_id, close=True, bodyless=False)

    def _explained(self) -> bytes:
        reason = self._answer.reason or Reason.DESTINATION_UNLISTED
        refusal = Refusal(403, reason, self._answer.explanation, next_step=self._answer.next_step)
        bodyless = self._first.startswith(b"HEAD ")
        return serialize_answer(refusal, self.session.session_id, close=True, bodyless=bodyless)

    def _tls(self, hello: ClientHello) -> None:
        grant = self.session.grant
        if grant is None:
            reason = self._answer.reason or Reason.DESTINATION_UNLISTED
            unlisted = reason is Reason.DESTINATION_UNLISTED
            self._refuse(alert(UNRECOGNIZED_NAME if unlisted else ACCESS_DENIED), reason)
            return
        spec, host = SPECS.get(grant.target.protocol), grant.target.host
        fits = names_target(hello, host)
        if not fits and (spec is None or not spec.answers_strays):
            self._refuse(alert(UNRECOGNIZED_NAME), Reason.DESTINATION_MISMATCH)
        elif not speaks(spec, hello.alpn):
            self._refuse(alert(NO_APPLICATION_PROTOCOL), Reason.PROTOCOL_UNKNOWN)
        else:
            self._pause()
            asked = host if fits else hello.server_name or ""
            self._task = self._event_loop.create_task(self._intercept(grant, asked))

    async def _intercept(self, grant: Grant, asked: str) -> None:
        name, alpn = grant.target.host, SPECS[grant.target.protocol].alpn
        leaves, strict = self._services.leaves, asked == grant.target.host
        try:
            context = leaves.ready(name, alpn, strict=strict)
            if context is None:
                context = await leaves.mint(name, alpn, self.session.run_id, strict=strict)
        except NoLeaf:
            self._refuse(alert(INTERNAL_ERROR), Reason.TLS_FAILED)
            return
        channel = SecureChannel(
            Side.DOWNSTREAM, self, TlsEngine(context), lambda: self._secured(grant, asked)
        )
        self._hand_over(channel)
        channel.data_received(self._first)

    def _secured(self, grant: Grant, asked: str) -> None:
        if self._channel is not None:
            self._drive(grant, self._channel, asked, b"")

    def _pause(self) -> None:
        """Read no more until there is a channel: what comes meanwhile stays in the kernel."""
        if self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _hand_over(self, channel: Channel) -> Channel:
        """Give the transport to a channel."""
        if self._transport is None:
            raise AssertionError("there is no transport yet")
        self._channel = channel
        self._transport.set_protocol(channel)
        channel.adopt(self._transport)
        if self._paused:
            self._transport.resume_reading()
        return channel

    def _drive(self, grant: Grant, channel: Channel, tls_name: str | None, first: bytes) -> None:
        spec = SPECS.get(grant.target.protocol)
        if spec is None:
            self.cut(Reason.PROTOCOL_UNKNOWN)
            return
        self._stop()
        context = RelayContext(
            self.session.session_id,
            grant.target,
            new_operation_id,
            os.urandom,
            self._answer.run_key,
            unix_ms,
        )
        driver = Driver(self._services, self.session, spec.relay(context), channel, spec.alpn)
        self._services.sessions.replace(self, driver)
        driver.start(tls_name, first)

    def _refuse(self, last_words: bytes, reason: Reason) -> None:
        """Say why, close, and close the accounts."""
        self._stop()
        channel = self._hand_over(Channel(Side.DOWNSTREAM, NOBODY))
        if last_words:
            self.session.downstream_bytes += len(last_words)
            channel.send(last_words)
        channel.close()
        self._services.sessions.closed(self, reason)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None
