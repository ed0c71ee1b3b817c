"""One end of a boundary: typed frames over a SOCK_SEQPACKET pair, requests and notices.

A frame is msgpack [number, is_reply, message], at most FRAME_BYTES_MAX bytes, with at most
FDS_MAX file descriptors. What the table does not permit ends the peer: `on_violation` is told,
the endpoint closes, and every request in flight raises PeerGone.
"""

import array
import asyncio
import collections
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from agent.ipc.messages import BOUNDARIES, FRAME_BYTES_MAX, WITH_FDS, Failed, Message
from agent.model.reason import Reason

FDS_MAX = 32
QUEUED_FRAMES_MAX = 16_384  # unsent frames; past it the peer is taken for dead
READS_A_TURN_MAX = 64
_LOST = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)  # an int: IntFlag costs a microsecond a frame
_ANCILLARY_BYTES = socket.CMSG_LEN(FDS_MAX * array.array("i").itemsize)
SOCKET_BUFFER_BYTES = 4_194_304

Reply = TypeVar("Reply", bound=Message)


class PeerGone(Exception):
    """The peer closed, or broke the rules of the boundary."""


class RequestFailed(Exception):
    """The peer answered Failed."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(f"{failed.reason}: {failed.detail}")
        self.failed = failed


class Received:
    """A message that arrived, with its descriptors; a request is answered with `reply`."""

    __slots__ = ("_endpoint", "_number", "fds", "message")

    def __init__(
        self, endpoint: "Endpoint", number: int, message: Message, fds: tuple[int, ...]
    ) -> None:
        self._endpoint = endpoint
        self._number = number
        self.message = message
        self.fds = fds

    def reply(self, message: Message) -> None:
        """Answer the request. One that came as a notice, without a number, ends its sender."""
        if self._number == 0:
            self._endpoint.end_peer(f"{type(self.message).__name__} without a number to answer")
            return
        self._endpoint.send_frame(self._number, is_reply=True, message=message, fds=())

    def close_fds(self) -> None:
        """Close what came with the message and was not taken."""
        _close_all(self.fds)


Receiver = Callable[[Received], Awaitable[None] | None]


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends, as the supervisor makes them before the children start."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (left, right):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
    return left, right


class Endpoint:
    """An end held by role `own`, speaking to role `peer`; proxies are numbered ("proxy@0")."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        own: str,
        peer: str,
        receive: Receiver,
        on_closed: Callable[[str], None],
    ) -> None:
        """Start reading at once on the running event loop.

        receive is called for each message, in order; a coroutine it returns runs as a task of its
        own. on_closed gets why, once: "closed by peer" or what rule was broken.
        """
        self._sock = sock
        self._sock.setblocking(False)
        self._own = own
        self._peer = peer
        self._receive = receive
        self._on_closed = on_closed
        self._event_loop = asyncio.get_running_loop()
        incoming = BOUNDARIES[peer.partition("@")[0], own.partition("@")[0]]
        # a union that the table gives at run time is no type that mypy can know
        self._decoder = msgspec.msgpack.Decoder(tuple[int, bool, incoming])  # type: ignore[valid-type]
        self._encoder = msgspec.msgpack.Encoder()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: collections.deque[tuple[bytes, tuple[int, ...]]] = collections.deque()
        self._next_number = 1
        self._reads = 1  # frames to read in the next turn
        self.closed = False
        self._event_loop.add_reader(self._sock.fileno(), self._readable)

    @property
    def peer(self) -> str:
        """The peer's name."""
        return self._peer

    def notify(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a notice. The descriptors are duplicated: the caller still owns its own.

        Raises:
            PeerGone: the peer is gone.
        """
        self.send_frame(0, is_reply=False, message=message, fds=fds)

    async def request(
        self,
        message: Message,
        expect: type[Reply],
        fds: Sequence[int] = (),
        timeout_s: float = 30.0,
    ) -> Reply:
        """Send a request and return its reply.

        Raises:
            RequestFailed: the peer answered Failed, or with another message than expected.
            PeerGone: the peer is gone.
            TimeoutError: no reply in time.
        """
        number = self._next_number
        self._next_number += 1
        future: asyncio.Future[Message] = self._event_loop.create_future()
        self._waiting[number] = future
        try:
            self.send_frame(number, is_reply=False, message=message, fds=fds)
            async with asyncio.timeout(timeout_s):
                reply = await future
        finally:
            self._waiting.pop(number, None)
        if isinstance(reply, expect):
            return reply
        if isinstance(reply, Failed):
            raise RequestFailed(reply)
        raise RequestFailed(Failed(Reason.INTERNAL, f"unexpected {type(reply).__name__}"))

    def send_frame(
        self, number: int, *, is_reply: bool, message: Message, fds: Sequence[int]
    ) -> None:
        """Queue one frame; see notify, request and Received.reply."""
        if self.closed:
            raise PeerGone(f"{self._peer} is gone")
        frame = self._encoder.encode((number, is_reply, message))
        if len(frame) > FRAME_BYTES_MAX:
            raise ValueError(f"{type(message).__name__} of {len(frame)} bytes exceeds a frame")
        if not self._unsent and self._write(frame, fds):
            return
        if len(self._unsent) >= QUEUED_FRAMES_MAX:
            self._fail(f"{QUEUED_FRAMES_MAX} frames unsent")
            raise PeerGone(f"{self._peer} does not read")
        if not self._unsent and not self.closed:
            self._event_loop.add_writer(self._sock.fileno(), self._writable)
        self._unsent.append((frame, tuple(os.dup(fd) for fd in fds)))

    def look(self) -> None:
        """Take what has arrived now, and not only when the event loop comes round to it."""
        if not self.closed:
            self._readable()

    def close(self) -> None:
        """Close this end; requests in flight raise PeerGone. on_closed is not called."""
        if self.closed:
            return
        self.closed = True
        self._event_loop.remove_reader(self._sock.fileno())
        self._event_loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(PeerGone(f"{self._peer} is gone"))
        self._waiting.clear()

    def end_peer(self, why: str) -> None:
        """The peer broke a rule of the boundary: close, and tell on_closed why."""
        self._fail(why)

    def _fail(self, why: str) -> None:
        if not self.closed:
            self.close()
            self._on_closed(why)

    def _write(self, frame: bytes, fds: Sequence[int]) -> bool:
        """Return whether the frame went out (False: would block)."""
        try:
            if fds:
                rights = array.array("i", fds)
                self._sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            else:
                self._sock.send(frame)
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail("closed by peer")
            raise PeerGone(f"{self._peer} is gone: {error.strerror}") from error
        return True

    def _writable(self) -> None:
        with contextlib.suppress(PeerGone):  # on_closed was told
            while self._unsent:
                frame, fds = self._unsent[0]
                if not self._write(frame, fds):
                    return
                self._unsent.popleft()
                _close_all(fds)
            self._event_loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        """Read what is there, a little more each time that it was not all.

        The event loop tells again of what was left, and asking for a frame that is not there
        costs as much as one that is.
        """
        for count in range(self._reads):
            try:
                frame, ancillary, flags, _ = self._sock.recvmsg(FRAME_BYTES_MAX, _ANCILLARY_BYTES)
            except BlockingIOError:
                self._reads = max(1, count)
                return
            except OSError:
                frame, ancillary, flags = b"", [], 0
            fds = _descriptors(ancillary) if ancillary else ()
            if not frame or flags & _LOST:
                _close_all(fds)
                self._fail("frame over the limit" if frame else "closed by peer")
                return
            self._take(frame, fds)
            if self.closed:
                return
        self._reads = min(2 * self._reads, READS_A_TURN_MAX)

    def _take(self, frame: bytes, fds: tuple[int, ...]) -> None:
        try:
            number, is_reply, message = self._decoder.decode(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _close_all(fds)
            self._fail(f"frame is not of the boundary: {error}")
            return
        if fds and (is_reply or not isinstance(message, WITH_FDS)):
            _close_all(fds)
            self._fail(f"descriptors with {type(message).__name__}, which takes none")
            return
        if is_reply:
            future = self._waiting.pop(number, None)
            if future is not None and not future.done():
                future.set_result(message)
            return
        awaitable = self._receive(Received(self, number, message, fds))
        if awaitable is not None:
            task = self._event_loop.create_task(self._run(awaitable))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, awaitable: Awaitable[None]) -> None:
        with contextlib.suppress(PeerGone):  # nobody is left to answer
            await awaitable


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    """Return what came by SCM_RIGHTS; a torn last one is cut off (cmsg(3))."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return tuple(fds)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
