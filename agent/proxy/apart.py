"""What is said to a target's server beside a session: on a connection of its own, best effort.

A session that is cut leaves a statement running that its server would finish without looking at
the connection; to stop it takes a word on another one.
"""

import asyncio
import logging
from collections.abc import Callable

from agent.model.grant import Target, UpstreamTls
from agent.model.reason import Reason
from agent.proxy.channel import Channel
from agent.proxy.dial import Dialler
from agent.proxy.upstream import Unreachable
from agent.wire.commands import SendApart

AT_ONCE_MAX = 64  # connections of this kind; one past it is not made
GOING_ON_MAX = 32  # of them for sessions that go on: the others are kept for those that are cut
APART_S = 5.0  # from the begin to the server's end of the connection

logger = logging.getLogger(__name__)


class _Hearing:
    """Owner of the connection: keeps what comes, as far as anybody waits for it."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.changed = asyncio.Event()
        self.over = False

    def arrived(self, channel: Channel, data: bytes) -> None:
        """Keep a little."""
        self.heard += data[: max(0, 64 - len(self.heard))]
        self.changed.set()

    def ended(self, channel: Channel, *, clean: bool) -> None:
        """No more comes."""
        self.over = True
        self.changed.set()

    def lost(self, channel: Channel) -> None:
        """`ended` came before."""

    def pressed(self, channel: Channel, *, high: bool) -> None:
        """So little is never too much."""


class Apart:
    """All of a worker."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._tasks: set[asyncio.Task[None]] = set()

    def send(
        self,
        target: Target,
        alpn: tuple[str, ...],
        command: SendApart,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to say it; `then` hears, on a later turn, that it is over, whatever came of it."""
        event_loop = asyncio.get_running_loop()
        if len(self._tasks) >= (AT_ONCE_MAX if command.last else GOING_ON_MAX):
            logger.warning("target %s is not told to stop: too many are told now", target.name)
            event_loop.call_soon(then)
            return
        task = event_loop.create_task(self._send(target, alpn, command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: then())

    async def settle(self, within_s: float) -> None:
        """Wait for what is being said, and give up on the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in self._tasks:
            task.cancel()

    async def _send(self, target: Target, alpn: tuple[str, ...], command: SendApart) -> None:
        channel: Channel | None = None
        try:
            async with asyncio.timeout(APART_S):
                upstream = await self._dialler.open(target, alpn, clear=True)
                channel = upstream.channel
                if target.tls is not UpstreamTls.NONE:
                    await _consent(channel, upstream.early, command)
                    channel = (await self._dialler.secure(channel, target, alpn, None)).channel
                hearing = _Hearing()
                channel.owner = hearing
                channel.send(command.data)
                while not (hearing.over or channel.has_ended):
                    hearing.changed.clear()
                    await hearing.changed.wait()
        except Unreachable as error:
            logger.warning("target %s is not told to stop: %s", target.name, error)
        except TimeoutError:
            logger.warning("target %s is told to stop, and does not answer", target.name)
        finally:
            if channel is not None:
                channel.abort()


async def _consent(channel: Channel, early: bytes, command: SendApart) -> None:
    """Ask for TLS, and return when the server agrees, with nothing behind it.

    Raises:
        Unreachable: it does not.
    """
    hearing = _Hearing()
    hearing.heard += early
    channel.owner = hearing
    channel.send(command.request)
    wanted = command.consent
    while not hearing.over and len(hearing.heard) < len(wanted):
        hearing.changed.clear()
        await hearing.changed.wait()
    if bytes(hearing.heard) != wanted:
        raise Unreachable(Reason.UPSTREAM_UNTRUSTED, "the server does not agree to TLS")
