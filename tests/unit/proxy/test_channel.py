"""The end of a connection, as its peer sees it."""

import asyncio
import select
import socket
from typing import cast

import pytest
import uvloop

from agent.proxy import channel as module
from agent.proxy.channel import FLUSH_S, LINGER_S, LINGER_TOTAL_S, NOBODY, Channel
from agent.wire.side import Side
from tests.unit.proxy.clock import Clock

STEP_S = LINGER_S / 2


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    return own, peer


def received(sock: socket.socket) -> int:
    """Return how much comes until the reset."""
    count = 0
    while True:
        try:
            data = sock.recv(1 << 20)
        except ConnectionResetError:
            return count
        assert data, "ended without a reset"
        count += len(data)


@pytest.mark.parametrize("unread", [b"", b"what nobody has read"], ids=["idle", "unread"])
def test_a_severed_connection_is_over_before_the_event_loop_turns(unread: bytes) -> None:
    """The peer has its end when sever returns, whatever the event loop has to do meanwhile."""

    async def scenario() -> None:
        own, peer = connected()
        channel = Channel(Side.UPSTREAM, NOBODY)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=own)
        with peer:
            if unread:
                channel.hold(1)
                peer.sendall(unread)
            channel.sever()
            assert select.select([peer], [], [], 60.0)[0]  # blocks: the event loop does not turn
            try:
                assert peer.recv(100) == b""
            except ConnectionResetError:
                pass
            channel.sever()  # again is no harm
            assert not channel.open

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_what_was_not_sent_is_thrown_away() -> None:
    """A peer that does not read gets no more than what is on its way, and then a reset."""

    async def scenario() -> int:
        own, peer = connected()
        channel = Channel(Side.UPSTREAM, NOBODY)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=own)
        size = 64 << 20
        with peer:
            channel.send(bytes(size))
            await asyncio.sleep(0)
            channel.sever()
            while channel.transport is not None:  # noqa: ASYNC110 - uvloop's own work
                await asyncio.sleep(0.001)
            return size - received(peer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) > 0


async def closing(flush_s: float, clock: Clock) -> tuple[Channel, socket.socket]:
    """Return a channel that says its last words, by this clock, and its peer."""
    own, peer = connected()
    channel = Channel(Side.DOWNSTREAM, NOBODY)
    await asyncio.get_running_loop().create_connection(lambda: channel, sock=own)
    channel._event_loop = cast("asyncio.AbstractEventLoop", clock)
    channel.send(b"last words")
    channel.close(flush_s)
    return channel, peer


async def throws_away(channel: Channel, size_bytes: int) -> None:
    """Return when it has read so much for nobody, or is gone."""
    while (  # noqa: ASYNC110 - uvloop's own work
        channel.transport is not None and channel.lingered_bytes < size_bytes
    ):
        await asyncio.sleep(0)


async def is_there(channel: Channel) -> bool:
    """Whether it is, when what uvloop does in a turn or two is done."""
    for _ in range(5):
        await asyncio.sleep(0)
    return channel.transport is not None


def goes_on_sending(closings: list[float], pieces: int) -> list[bool]:
    """Close channels within so much, whose peers send a piece each STEP_S; who is there then?"""

    async def scenario() -> list[bool]:
        clock = Clock()
        made = [await closing(flush_s, clock) for flush_s in closings]
        for number in range(1, pieces + 1):
            for channel, peer in made:
                if channel.transport is not None:
                    peer.send(b"more")
                    await throws_away(channel, 4 * number)
            clock.advance(STEP_S)
            for channel, _ in made:
                await is_there(channel)
        there = [channel.transport is not None for channel, _ in made]
        for channel, peer in made:
            assert channel.transport is None or peer.recv(100) == b"last words"
            peer.close()
            while channel.transport is not None:  # noqa: ASYNC110 - uvloop's own work
                await asyncio.sleep(0)
        return there

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario())


def test_who_still_sends_is_waited_for() -> None:
    """Each byte puts the reset off by LINGER_S, but not for a session that was cut."""
    assert goes_on_sending([FLUSH_S, 0.025], 6) == [True, False]


def test_nobody_is_waited_for_longer_than_all_of_the_time() -> None:
    """Until LINGER_TOTAL_S it is there; at it, it is over."""
    most = int(LINGER_TOTAL_S / STEP_S)
    assert goes_on_sending([FLUSH_S], most - 1) == [True]
    assert goes_on_sending([FLUSH_S], most) == [False]


@pytest.mark.parametrize("over", [0, 1])
def test_what_is_thrown_away_is_bounded(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    """LINGER_BYTES_MAX are read, one byte more ends it."""
    monkeypatch.setattr(module, "LINGER_BYTES_MAX", 1_000)

    async def scenario() -> bool:
        channel, peer = await closing(FLUSH_S, Clock())
        with peer:
            peer.send(bytes(1_000 + over))
            await throws_away(channel, 1_000 + over)
            assert channel.lingered_bytes == 1_000 + over
            there = await is_there(channel)
        channel.abort()
        while channel.transport is not None:  # noqa: ASYNC110 - uvloop's own work
            await asyncio.sleep(0)
        return there

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) is (not over)


def test_so_many_are_waited_for_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """LINGERING_MAX connections at once; one past it is given LINGER_S, the others lose nothing."""
    monkeypatch.setattr(module, "LINGERING_MAX", 2)
    assert goes_on_sending([FLUSH_S] * 3, 1) == [True] * 3
    assert goes_on_sending([FLUSH_S] * 3, 6) == [True, True, False]
    assert not NOBODY._lingering
