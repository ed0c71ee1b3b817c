"""Accepting connections: within the descriptors we have, and with where they meant to go."""

import asyncio
import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable

from agent.model.flow import Endpoint

ACCEPTS_A_TURN_MAX = 64  # connections taken in one turn of the event loop
STARVED_DELAY_S = 0.1  # pause after the kernel had no descriptor or memory for one more
SO_ORIGINAL_DST = 80  # <linux/netfilter_ipv4.h>, <linux/netfilter_ipv6/ip6_tables.h>
SOCKADDR_IN = struct.Struct("!2xH4s8x")
SOCKADDR_IN6 = struct.Struct("!2xH4x16s4x")
NO_LINGER = struct.pack("ii", 1, 0)  # close(2) then sends RST

# what accept(2) reports when the machine, not the connection, is the trouble
STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

logger = logging.getLogger(__name__)


def original_destination(sock: socket.socket) -> Endpoint | None:
    """Return where a redirected connection meant to go, None when it was not redirected.

    netfilter's connection tracking remembers it: getsockopt(SO_ORIGINAL_DST) at level SOL_IP
    (16 bytes) or SOL_IPV6 (28 bytes). Somebody who connects to our listener directly has no such
    entry, or one that names the listener.
    """
    host, port = sock.getsockname()[:2]
    own = canonical(host, port)
    try:
        if sock.family == socket.AF_INET6 and not _is_mapped(host):
            raw = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, SOCKADDR_IN6.size)
            port, packed = SOCKADDR_IN6.unpack(raw)
        else:
            raw = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, SOCKADDR_IN.size)
            port, packed = SOCKADDR_IN.unpack(raw)
    except OSError:
        return None
    destination = canonical(str(ipaddress.ip_address(packed)), port)
    return None if destination == own else destination


def canonical(address: str, port: int) -> Endpoint:
    """Return the one form of an address: v4-mapped IPv6 is IPv4, no zone."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return Endpoint(str(parsed), port)


def reset(sock: socket.socket) -> None:
    """Close so that the peer sees RST at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    sock.close()


def _is_mapped(host: str) -> bool:
    return host.startswith("::ffff:")


class Acceptor:
    """Takes connections off listeners while it is open."""

    def __init__(self, take: Callable[[socket.socket], None]) -> None:
        """take gets each connected, non-blocking socket and owns it."""
        self._event_loop = asyncio.get_running_loop()
        self._take = take
        self._listeners: list[socket.socket] = []
        self._open = True
        self._starved: asyncio.TimerHandle | None = None

    def listen(self, listeners: list[socket.socket]) -> None:
        """Accept on these instead of what there was."""
        self._stop()
        for listener in self._listeners:
            listener.close()
        self._listeners = listeners
        for listener in listeners:
            listener.setblocking(False)
        if self._open:
            self._start()

    def set_open(self, *, open_: bool) -> None:
        """Stop or go on; connections meanwhile wait in the kernel's backlog."""
        if open_ == self._open:
            return
        self._open = open_
        if open_:
            self._start()
        else:
            self._stop()

    def close(self) -> None:
        """Stop for good: the kernel refuses from now on (if nobody else holds the listeners)."""
        self.set_open(open_=False)
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def _start(self) -> None:
        for listener in self._listeners:
            self._event_loop.add_reader(listener.fileno(), self._readable, listener)

    def _stop(self) -> None:
        if self._starved is not None:
            self._starved.cancel()
            self._starved = None
        for listener in self._listeners:
            self._event_loop.remove_reader(listener.fileno())

    def _readable(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN_MAX):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it went away while it waited
            except OSError as error:
                if error.errno not in STARVED:
                    raise
                self._starve(error)
                return
            sock.setblocking(False)
            self._take(sock)
            if not self._open:
                return

    def _starve(self, error: OSError) -> None:
        logger.warning("accept: %s; waiting %.1f s", error.strerror, STARVED_DELAY_S)
        self._stop()
        self._starved = self._event_loop.call_later(STARVED_DELAY_S, self._fed)

    def _fed(self) -> None:
        self._starved = None
        if self._open:
            self._start()
