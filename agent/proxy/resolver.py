"""The loops' resolver on its sockets: UDP, and TCP with length-prefixed messages (RFC 7766)."""

import asyncio
import logging
import socket
from typing import cast

from agent.proxy.accept import Acceptor
from agent.proxy.dns import QUERY_BYTES_MAX, Names, answer

QUERIES_A_TURN_MAX = 64
TCP_CONNECTIONS_MAX = 128  # one past it is closed at once
TCP_QUERIES_MAX = 100  # of one connection; then it is closed
TCP_IDLE_S = 5.0  # without a complete query
PREFIX_BYTES = 2

logger = logging.getLogger(__name__)


class Resolver:
    """Answers from the names of the policy that is in force.

    Before it has heard of a policy it reads nothing: a query waits in the kernel's buffer and is
    answered then. "Not known" would be taken for the last word on a name that is a target's.
    """

    def __init__(self) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._udp: list[socket.socket] = []
        self._acceptor = Acceptor(self._take)
        self._connecting: set[asyncio.Task[object]] = set()
        self.connections = 0
        self._names: Names | None = None

    def listen(self, udp: list[socket.socket], tcp: list[socket.socket]) -> None:
        """Serve these sockets instead of what there was."""
        self._stop_udp()
        self._udp = udp
        for sock in udp:
            sock.setblocking(False)
        self._acceptor.set_open(open_=self._names is not None)
        self._acceptor.listen(tcp)
        if self._names is not None:
            self._start_udp()

    def use(self, names: Names) -> None:
        """Answer from these names from now on."""
        first, self._names = self._names is None, names
        if first:
            self._start_udp()
            self._acceptor.set_open(open_=True)

    def answer(self, query: bytes) -> bytes | None:
        """Return the answer to a query, None when there is none to give."""
        return None if self._names is None else answer(query, self._names)

    def close(self) -> None:
        """Stop."""
        self._stop_udp()
        self._udp = []
        self._acceptor.close()

    def _start_udp(self) -> None:
        for sock in self._udp:
            self._event_loop.add_reader(sock.fileno(), self._readable, sock)

    def _stop_udp(self) -> None:
        for sock in self._udp:
            self._event_loop.remove_reader(sock.fileno())
            sock.close()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(QUERIES_A_TURN_MAX):
            try:
                query, sender = sock.recvfrom(QUERY_BYTES_MAX + 1)
                reply = self.answer(query)
                if reply is not None:
                    sock.sendto(reply, sender)
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("DNS over UDP: %s", error.strerror)  # the asker is gone

    def _take(self, sock: socket.socket) -> None:
        if self.connections >= TCP_CONNECTIONS_MAX:
            sock.close()
            return
        self.connections += 1
        task: asyncio.Task[object] = self._event_loop.create_task(
            self._event_loop.connect_accepted_socket(lambda: Conversation(self), sock)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[object]) -> None:
        self._connecting.discard(task)
        if task.cancelled() or task.exception() is not None:
            self.connections -= 1  # it was gone before it could be served


class Conversation(asyncio.Protocol):
    """One TCP connection; what does not keep the bounds is closed."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._queries = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._resolver.connections -= 1
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._held += data
        while len(self._held) >= PREFIX_BYTES:
            size = int.from_bytes(self._held[:PREFIX_BYTES], "big")
            if size > QUERY_BYTES_MAX or self._queries >= TCP_QUERIES_MAX:
                self._abort()
                return
            if len(self._held) < PREFIX_BYTES + size:
                return
            query = self._held[PREFIX_BYTES : PREFIX_BYTES + size]
            self._held = self._held[PREFIX_BYTES + size :]
            self._queries += 1
            self._reply(query)
            self._wait()

    def pause_writing(self) -> None:
        """See asyncio.Protocol: who does not read answers gets no more."""
        self._abort()

    def _reply(self, query: bytes) -> None:
        reply = self._resolver.answer(query)
        if reply is None:
            self._abort()
        elif self._transport is not None:
            self._transport.write(len(reply).to_bytes(PREFIX_BYTES, "big") + reply)

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(TCP_IDLE_S, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
