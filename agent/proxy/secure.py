"""A channel under TLS: the same to its owner, with `agent.wire.tls` between it and the wire."""

import asyncio
from collections.abc import Callable

from agent.proxy.channel import NOBODY, Channel, Owner
from agent.proxy.shares import BULK_BYTES
from agent.wire.side import Side
from agent.wire.tls import TlsEngine, TlsFailed

ALERT_RECORD = b"\x15\x03\x03\x00\x02\x02"  # TLS 1.2 framing, fatal (RFC 8446 section 6)
ACCESS_DENIED = 49
INTERNAL_ERROR = 80
UNRECOGNIZED_NAME = 112
NO_APPLICATION_PROTOCOL = 120


def _nothing() -> None:
    """Nobody waits any more."""


def alert(description: int) -> bytes:
    """Return a fatal alert for a peer with whom no keys are agreed yet."""
    return ALERT_RECORD + bytes((description,))


class SecureChannel(Channel):
    """One end of TLS over one connection."""

    __slots__ = ("_engine", "_on_secured", "fault")
    encrypted = True

    def __init__(
        self, side: Side, owner: Owner, engine: TlsEngine, on_secured: Callable[[], None]
    ) -> None:
        """on_secured is called once, when the handshake is complete, before any byte arrives."""
        super().__init__(side, owner)
        self._engine = engine
        self._on_secured = on_secured
        self.fault: TlsFailed | None = None

    @property
    def established(self) -> bool:
        """Whether the handshake is complete."""
        return self._engine.established

    def peer_certificate(self) -> bytes | None:
        """Return the peer's certificate in DER."""
        return self._engine.peer_certificate()

    def adopt(self, transport: asyncio.Transport) -> None:
        """See Channel: the handshake begins."""
        super().adopt(transport)
        transport.write(self._engine.start())

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if len(data) >= BULK_BYTES:
            self._shares.took(self, len(data))
        if self._closing:
            NOBODY.arrived(self, data)
            return
        engine = self._engine
        was_established = engine.established
        try:
            plain = engine.feed(data)
        except TlsFailed as error:
            self._fail(error)
            return
        out = engine.outgoing()
        if out and self.transport is not None:
            self.transport.write(out)
        if not was_established and engine.established:
            self._on_secured()
        if plain:
            self.owner.arrived(self, plain)
        if engine.closed:
            self._end(clean=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol. What refers to its owner, and what TLS needs, goes at once."""
        super().connection_lost(exc)
        self._on_secured = _nothing
        self._engine.discard()

    def eof_received(self) -> bool:
        """See asyncio.Protocol: without close_notify before it, the peer was cut off."""
        try:
            self._engine.feed_eof()
        except TlsFailed as error:
            self.fault = error
            self._end(clean=False)
        else:
            self._end(clean=True)
        return True

    def send(self, data: bytes) -> None:
        """See Channel."""
        if self.transport is None or self._closing:
            return
        try:
            self.transport.write(self._engine.write(data))
        except TlsFailed as error:
            self._fail(error)

    def _last_word(self) -> None:
        if self.transport is not None:
            self.transport.write(self._engine.close())

    def _fail(self, error: TlsFailed) -> None:
        """Say the alert, and be gone."""
        self.fault = error
        if self.transport is not None:
            self.transport.write(self._engine.outgoing())
            self.transport.close()
        self._end(clean=False)
