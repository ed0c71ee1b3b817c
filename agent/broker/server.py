"""The control socket's server: framing, limits, one request at a time for each connection."""

import asyncio
import collections
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable

import msgspec

from agent.broker.control import (
    FRAME_BYTES_MAX,
    Refused,
    Reply,
    Request,
    decode_request,
    encode,
)
from agent.broker.peer import Peer, peer_of
from agent.model.reason import Reason
from agent.runtime import closing

# root is bounded by neither: users with many uids (subuid(5)) can't keep it out
CONNECTIONS_MAX = 512
CONNECTIONS_A_USER_MAX = 128
FDS_MAX = 253  # SCM_MAX_FD of <net/scm.h>: what we leave out, the kernel closes in our name
SO_PASSRIGHTS = 83  # asm-generic/socket.h, 6.16: 0 lets nobody send descriptors
BACKLOG = 128

logger = logging.getLogger(__name__)
Answer = Callable[["Connection", Request, tuple[int, ...]], AsyncIterator[Reply]]


class Connection:
    """One caller. `runs_open` are runs that it made and that have no process yet."""

    def __init__(self, sock: socket.socket, peer: Peer, server: "Server") -> None:
        self._sock = sock
        self._server = server
        self._event_loop = asyncio.get_running_loop()
        self._unsent: collections.deque[bytes] = collections.deque()
        self._drained: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.peer = peer
        self.runs_open: set[str] = set()
        self.closed = False
        self._event_loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Close; a request under way is cancelled where it waits to send."""
        if self.closed:
            return
        self.closed = True
        self._event_loop.remove_reader(self._sock.fileno())
        self._event_loop.remove_writer(self._sock.fileno())
        self._server.let_go(self._sock)
        if self._drained is not None and not self._drained.done():
            self._drained.cancel()
        self._server.closed(self)

    def take_descriptors(self) -> None:
        """From now on the caller may send some."""
        _pass_rights(self._sock, allowed=True)

    def _readable(self) -> None:
        if self._task is not None:
            # one request at a time: what comes now is either the end, or against the protocol
            self.close()
            return
        try:
            frame, fds, flags, _ = socket.recv_fds(self._sock, FRAME_BYTES_MAX, FDS_MAX)
        except BlockingIOError:
            return
        except OSError:
            frame, fds, flags = b"", [], 0
        taken = tuple(fds)
        if not frame or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            self._server.close_all(taken)
            self.close()
            return
        if not all(map(closing.is_pidfd, taken)):
            self._server.close_all(taken)
            self._task = self._event_loop.create_task(self._send_last(_STRANGE))
            return
        try:
            request = decode_request(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._server.close_all(taken)
            self._task = self._event_loop.create_task(self._send_last(_MISFIT))
            return
        self._task = self._event_loop.create_task(self._serve(request, taken))

    async def _serve(self, request: Request, fds: tuple[int, ...]) -> None:
        try:
            async for reply in self._server.answer(self, request, fds):
                await self._send(reply)
        except (ConnectionError, asyncio.CancelledError):
            self.close()
        except Exception:
            logger.exception("a control request failed")
            await self._send_last(_BROKEN)
        finally:
            self._server.close_all(fds)
            self._task = None

    async def _send_last(self, reply: Reply) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._send(reply)
        self.close()

    async def _send(self, reply: Reply) -> None:
        if self.closed:
            raise ConnectionError("the caller is gone")
        frame = encode(reply)
        if len(frame) > FRAME_BYTES_MAX:
            frame = encode(Refused(Reason.LIMIT_EXCEEDED, "the answer is too long", ""))
        self._unsent.append(frame)
        self._writable()
        while self._unsent:
            self._event_loop.add_writer(self._sock.fileno(), self._writable)
            self._drained = self._event_loop.create_future()
            await self._drained

    def _writable(self) -> None:
        try:
            while self._unsent:
                self._sock.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._event_loop.remove_writer(self._sock.fileno())
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


class Server:
    """Accepts callers on a listening SOCK_SEQPACKET socket."""

    def __init__(
        self, sock: socket.socket, answer: Answer, on_closed: Callable[[Connection], None]
    ) -> None:
        self._sock = sock
        self._connections: set[Connection] = set()
        self._on_closed = on_closed
        self._closer = closing.Closer()
        self.answer = answer
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._acceptable)

    def close(self) -> None:
        """Take no new callers, and let go of those who are here."""
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        for connection in tuple(self._connections):
            connection.close()

    def close_all(self, fds: tuple[int, ...]) -> None:
        """Close what callers sent, without waiting for them."""
        for fd in fds:
            self._closer.close(fd)

    def let_go(self, sock: socket.socket) -> None:
        """Close a caller's socket; what it has sent and we have not taken goes with it."""
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        self._closer.close(sock.detach())

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._on_closed(connection)

    def _acceptable(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        sock.setblocking(False)
        try:
            peer = peer_of(sock)
        except OSError:
            self.let_go(sock)
            return
        theirs = sum(each.peer.uid == peer.uid for each in self._connections)
        crowded = len(self._connections) >= CONNECTIONS_MAX or theirs >= CONNECTIONS_A_USER_MAX
        if crowded and not peer.is_root:
            with contextlib.suppress(OSError):
                sock.send(encode(_CROWDED))
            self.let_go(sock)
            return
        self._connections.add(Connection(sock, peer, self))


_MISFIT = Refused(
    Reason.PROTOCOL_ERROR,
    "the daemon does not understand this request: loopwarden and loopwardend differ in version",
    "Restart loopwarden.service after an upgrade.",
)
_STRANGE = Refused(
    Reason.PROTOCOL_ERROR, "a descriptor that is no pidfd", "Send what AdmitRun takes."
)
_BROKEN = Refused(Reason.INTERNAL, "the daemon failed at this request", "See the daemon's journal.")
_CROWDED = Refused(Reason.OVERLOADED, "too many control connections", "Try again later.")


def listen(path: str, mode: int, group: int) -> socket.socket:
    """Return the listening control socket in place of a dead broker's.

    Raises:
        OSError: it can't be made there.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        if group >= 0:
            os.chown(path, -1, group)
        os.chmod(path, mode)
        _pass_rights(sock, allowed=False)  # callers' sockets have it from this one
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _pass_rights(sock: socket.socket, *, allowed: bool) -> None:
    with contextlib.suppress(OSError):  # an older kernel: they are taken, and closed apart
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, allowed)
