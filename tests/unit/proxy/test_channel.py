"""The end of a connection, as its peer sees it."""

import asyncio
import select
import socket

import pytest
import uvloop

from agent.proxy import channel as module
from agent.proxy.channel import NOBODY, Channel
from agent.wire.side import Side


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
            assert select.select([peer], [], [], 5.0)[0]  # blocks: the event loop does not turn
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


def goes_on_sending(closings: list[float], sends_s: float) -> list[bool]:
    """Close channels within so much, whose peers send on for so long; who is still there then?"""

    async def scenario() -> list[bool]:
        event_loop = asyncio.get_running_loop()
        channels: list[Channel] = []
        peers: list[socket.socket] = []
        for flush_s in closings:
            own, peer = connected()
            channel = Channel(Side.DOWNSTREAM, NOBODY)
            channels.append(channel)
            await event_loop.create_connection(lambda: channels[-1], sock=own)
            channel.send(b"last words")
            channel.close(flush_s)
            peers.append(peer)
        until_s = event_loop.time() + sends_s
        while event_loop.time() < until_s:
            for peer, channel in zip(peers, channels, strict=True):
                if channel.transport is not None:
                    peer.send(b"more")
            await asyncio.sleep(0.01)
        there = [channel.transport is not None for channel in channels]
        for peer, channel in zip(peers, channels, strict=True):
            assert channel.transport is None or peer.recv(100) == b"last words"
            peer.close()
        while any(channel.transport is not None for channel in channels):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return there

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario())


def test_who_still_sends_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte puts the reset off by LINGER_S, but not for a session that was cut."""
    monkeypatch.setattr(module, "LINGER_S", 0.1)
    assert goes_on_sending([module.FLUSH_S, 0.025], 0.3) == [True, False]


def test_nobody_is_waited_for_longer_than_all_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """At LINGER_TOTAL_S it is over."""
    monkeypatch.setattr(module, "LINGER_S", 0.1)
    monkeypatch.setattr(module, "LINGER_TOTAL_S", 0.2)
    assert goes_on_sending([module.FLUSH_S], 0.3) == [False]


@pytest.mark.parametrize("over", [0, 1])
def test_what_is_thrown_away_is_bounded(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    """LINGER_BYTES_MAX are read, one byte more ends it."""
    monkeypatch.setattr(module, "LINGER_BYTES_MAX", 1_000)

    async def scenario() -> bool:
        own, peer = connected()
        channel = Channel(Side.DOWNSTREAM, NOBODY)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=own)
        channel.close()
        with peer:
            peer.send(bytes(1_000 + over))
            while channel.lingered_bytes < 1_000 + over:  # noqa: ASYNC110 - uvloop's own work
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            there = channel.transport is not None
        channel.abort()
        return there

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) is (not over)


def test_so_many_are_waited_for_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """LINGERING_MAX connections at once; one past it is given LINGER_S, the others lose nothing."""
    monkeypatch.setattr(module, "LINGER_S", 0.1)
    monkeypatch.setattr(module, "LINGERING_MAX", 2)
    assert goes_on_sending([module.FLUSH_S] * 3, 0.3) == [True, True, False]
    assert not NOBODY._lingering
