"""The end of a connection, as its peer sees it."""

import asyncio
import select
import socket

import pytest
import uvloop

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
