"""Large transfers in turns: how much at once, in which order, and all of it in the end."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvloop

from agent.proxy.channel import Channel
from agent.proxy.shares import BULK_BYTES, HOLD_TURN, READ_A_TURN, TURN_BYTES, Shares
from agent.wire.side import Side
from tests.unit.proxy.test_channel import connected

PIECE = 256 << 10  # what uvloop reads at once, at most


class Noted:
    """A channel that notes what it is told."""

    def __init__(self) -> None:
        self.held = 0

    def hold(self, why: int) -> None:
        """Not to be read."""
        self.held |= why

    def release(self, why: int) -> None:
        """To be read again."""
        self.held &= ~why


@pytest.fixture
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that the test turns by hand."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def turn(event_loop: asyncio.AbstractEventLoop) -> None:
    """Run what is due."""
    event_loop.call_soon(event_loop.stop)
    event_loop.run_forever()


def test_a_turn_has_room_for_so_much(event_loop: asyncio.AbstractEventLoop) -> None:
    """TURN_BYTES pass; who goes one byte past them waits, until the next turn."""
    shares, first, second = Shares(event_loop), Noted(), Noted()
    shares.took(first, TURN_BYTES)
    assert not first.held
    shares.took(second, 1)
    assert second.held == HOLD_TURN
    turn(event_loop)
    assert not second.held
    shares.took(first, TURN_BYTES)
    assert not first.held


def test_who_waits_is_read_in_order(event_loop: asyncio.AbstractEventLoop) -> None:
    """READ_A_TURN of them in each turn, those that came first; in the end all."""
    shares, waiting = Shares(event_loop), [Noted() for _ in range(2 * READ_A_TURN + 1)]
    shares.took(Noted(), TURN_BYTES)
    for one in waiting:
        shares.took(one, BULK_BYTES)
    for left in (len(waiting) - READ_A_TURN, 1, 0):
        turn(event_loop)
        assert [bool(one.held) for one in waiting] == [
            at >= len(waiting) - left for at in range(len(waiting))
        ]


class Counting:
    """An owner that counts what came in each turn of the event loop."""

    def __init__(self) -> None:
        self.turns: list[int] = [0]

    def arrived(self, channel: Channel, data: bytes) -> None:
        """Count."""
        self.turns[-1] += len(data)

    def ended(self, channel: Channel, *, clean: bool) -> None:
        """Nothing."""

    def lost(self, channel: Channel) -> None:
        """Nothing."""

    def pressed(self, channel: Channel, *, high: bool) -> None:
        """Nothing."""


def test_no_turn_is_long_with_many_that_have_much() -> None:
    """24 connections with 1 MiB each, there at once: one piece of each, then few in each turn."""
    count, each = 24, 1 << 20
    owner = Counting()

    async def scenario(stack: ExitStack) -> None:
        event_loop = asyncio.get_running_loop()
        channels: list[Channel] = []
        for _ in range(count):
            own, peer = connected()
            stack.enter_context(peer)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * each)
            channels.append(Channel(Side.UPSTREAM, owner))
            await event_loop.create_connection(lambda: channels[-1], sock=own)
            channels[-1].hold(1)
            await event_loop.run_in_executor(None, peer.sendall, bytes(each))
        for channel in channels:
            channel.release(1)
        while sum(owner.turns) < count * each:
            owner.turns.append(0)
            await asyncio.sleep(0)
        for channel in channels:
            channel.abort()
        while any(one.transport is not None for one in channels):  # noqa: ASYNC110 - uvloop's own
            await asyncio.sleep(0)

    with ExitStack() as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(stack))
    first, *later = (size for size in owner.turns if size)
    assert first + sum(later) == count * each
    assert first <= TURN_BYTES + count * PIECE
    assert max(later) <= TURN_BYTES + READ_A_TURN * PIECE
