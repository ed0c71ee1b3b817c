"""Opening a verified upstream connection."""

import asyncio
import socket
import ssl

from agent.model.credential import ClientCertificate
from agent.model.grant import Target, UpstreamTls
from agent.model.reason import Reason
from agent.proxy.channel import NOBODY, Channel
from agent.proxy.pool import Upstream
from agent.proxy.secure import SecureChannel
from agent.proxy.trust import Trust, context_with
from agent.proxy.upstream import DialRules, Unreachable, addresses_of, connect
from agent.wire.side import Side
from agent.wire.tls import TlsEngine, TlsFailed, TlsFault

HANDSHAKE_TIMEOUT_S = 10.0
USUAL_ALPN = ("http/1.1",)
EARLY_BYTES_MAX = 64 << 10  # what a server may say before anybody asked; more ends it


class Dialling:
    """Owner of an upstream channel until a session has it, or while its TLS begins."""

    def __init__(self) -> None:
        self.secured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.early = b""

    def on_secured(self) -> None:
        """The handshake is complete, the server is verified."""
        if not self.secured.done():
            self.secured.set_result(None)

    def arrived(self, channel: Channel, data: bytes) -> None:
        """Keep what comes early."""
        self.early += data
        if len(self.early) > EARLY_BYTES_MAX:
            channel.abort()

    def ended(self, channel: Channel, *, clean: bool) -> None:
        """It ended before it was of use."""
        if not self.secured.done():
            fault = channel.fault if isinstance(channel, SecureChannel) else None
            self.secured.set_exception(_unreachable(fault))
            self.secured.exception()  # who waits hears of it; that nobody does is no error

    def lost(self, channel: Channel) -> None:
        """`ended` came before."""

    def pressed(self, channel: Channel, *, high: bool) -> None:
        """A handshake is never this large."""


class Dialler:
    """Connects to targets, and proves that they are who the policy says."""

    def __init__(self, rules: DialRules) -> None:
        self._rules = rules
        self._trust = Trust()
        self._trust.context("", USUAL_ALPN)  # the system's roots, read while nobody waits

    async def open(
        self,
        target: Target,
        alpn: tuple[str, ...],
        *,
        clear: bool,
        certificate: ClientCertificate | None = None,
    ) -> Upstream:
        """Connect, and verify unless the protocol asks for TLS in its own words (clear).

        certificate: shown in TLS to a server that asks for one.

        Raises:
            Unreachable: no connection, or not the server that the policy names.
        """
        sock, address = await connect(await addresses_of(target, self._rules))
        try:
            if clear or target.tls is UpstreamTls.NONE:
                upstream = await self._clear(sock)
            else:
                upstream = await self._secure(sock, target, alpn, certificate)
        except OSError as error:
            sock.close()
            text = "the target's server ended the connection at once"
            raise Unreachable(Reason.UPSTREAM_UNREACHABLE, text) from error
        except BaseException:
            sock.close()
            raise
        upstream.address = str(address)
        return upstream

    async def _clear(self, sock: socket.socket) -> Upstream:
        dialling = Dialling()
        channel = Channel(Side.UPSTREAM, dialling)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=sock)
        return Upstream(channel, "", dialling.early)

    async def _secure(
        self,
        sock: socket.socket,
        target: Target,
        alpn: tuple[str, ...],
        certificate: ClientCertificate | None,
    ) -> Upstream:
        dialling = Dialling()
        channel = self._secure_channel(dialling, target, alpn, certificate)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=sock)
        await _verified(dialling, channel)
        return Upstream(channel, "", dialling.early)

    async def secure(
        self,
        clear: Channel,
        target: Target,
        alpn: tuple[str, ...],
        certificate: ClientCertificate | None,
    ) -> Upstream:
        """Begin TLS on a connection that is in clear text, and verify.

        Raises:
            Unreachable: not the server that the policy names, or it is gone.
        """
        transport = clear.transport
        if transport is None or clear.has_ended:
            raise _unreachable(None)
        dialling = Dialling()
        channel = self._secure_channel(dialling, target, alpn, certificate)
        clear.owner = NOBODY
        transport.set_protocol(channel)
        channel.adopt(transport)
        transport.resume_reading()  # it was held while nobody could read
        await _verified(dialling, channel)
        return Upstream(channel, "", dialling.early)

    def _secure_channel(
        self,
        dialling: Dialling,
        target: Target,
        alpn: tuple[str, ...],
        certificate: ClientCertificate | None,
    ) -> SecureChannel:
        try:
            if certificate is None:
                context = self._trust.context(target.ca_pem, alpn)
            else:
                context = context_with(certificate, target.ca_pem, alpn)
        except ssl.SSLError as error:
            text = "the target's CA holds no certificate, or the client certificate is of no use"
            raise Unreachable(Reason.UPSTREAM_UNTRUSTED, text) from error
        engine = TlsEngine(context, server_hostname=target.host)
        return SecureChannel(Side.UPSTREAM, dialling, engine, dialling.on_secured)


async def _verified(dialling: Dialling, channel: SecureChannel) -> None:
    """Wait for the end of the handshake."""
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            await dialling.secured
    except TimeoutError as error:
        channel.abort()
        text = "the target's server does not finish the TLS handshake"
        raise Unreachable(Reason.UPSTREAM_UNREACHABLE, text) from error
    except BaseException:
        channel.owner = NOBODY
        channel.abort_when_flushed()  # the alert is on its way
        raise


def _unreachable(fault: TlsFailed | None) -> Unreachable:
    if fault is not None and fault.fault is TlsFault.UNTRUSTED:
        text = f"the target's certificate does not verify: {fault.detail}"
        return Unreachable(Reason.UPSTREAM_UNTRUSTED, text)
    text = "the target's server ended the TLS handshake"
    return Unreachable(Reason.UPSTREAM_UNREACHABLE, text)
