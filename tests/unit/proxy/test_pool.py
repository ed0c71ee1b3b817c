"""Idle upstream connections: whose they are, how many there may be, and for how long."""

import asyncio
import dataclasses
import socket

import pytest

from agent.model.ids import LeaseId, RunId, TargetName
from agent.proxy import pool
from agent.proxy.channel import NOBODY, Channel
from agent.proxy.pool import IDLE_A_KEY_MAX, Pool, PoolKey, Upstream
from agent.wire.side import Side

KEY = PoolKey(RunId("run"), LeaseId("lease"), TargetName("api"), "revision")
OTHERS = (
    dataclasses.replace(KEY, run_id=RunId("another")),
    dataclasses.replace(KEY, lease_id=LeaseId("another")),
    dataclasses.replace(KEY, lease_id=None),
    dataclasses.replace(KEY, target=TargetName("another")),
    dataclasses.replace(KEY, revision="another"),
)


class World:
    """Connections, and the servers' ends of them."""

    def __init__(self) -> None:
        self.servers: list[socket.socket] = []

    async def connect(self) -> Upstream:
        """Return a connection as it is given to the pool."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.servers.append(theirs)
        _, channel = await asyncio.get_running_loop().create_connection(
            lambda: Channel(Side.UPSTREAM, NOBODY), sock=ours
        )
        return Upstream(channel, "10.0.0.9")

    async def until_closed(self, number: int) -> None:
        """Return when the server of this connection sees its end."""
        async with asyncio.timeout(60):
            assert await asyncio.get_running_loop().sock_recv(self.servers[number], 1) == b""

    def close(self) -> None:
        """Close the servers' ends."""
        for server in self.servers:
            server.close()


@pytest.mark.parametrize("other", OTHERS, ids=lambda key: repr(key)[7:])
def test_a_connection_serves_nobody_else(other: PoolKey) -> None:
    """Run, lease, target and the policy's revision are all the same, or it is not used."""

    async def claim() -> None:
        world, idle = World(), Pool()
        upstream = await world.connect()
        idle.give(KEY, upstream)
        assert idle.take(other) is None
        assert idle.take(KEY) is upstream
        assert idle.take(KEY) is None
        assert upstream.reused
        world.close()

    asyncio.run(claim())


def test_so_many_lie_idle_for_one_key() -> None:
    """IDLE_A_KEY_MAX are kept; one past it closes the oldest, and the newest is taken first."""

    async def claim() -> None:
        world, idle = World(), Pool()
        given = [await world.connect() for _ in range(IDLE_A_KEY_MAX + 1)]
        for upstream in given[:-1]:
            idle.give(KEY, upstream)
        assert len(idle) == IDLE_A_KEY_MAX
        idle.give(KEY, given[-1])
        assert len(idle) == IDLE_A_KEY_MAX
        await world.until_closed(0)
        assert [idle.take(KEY) for _ in range(IDLE_A_KEY_MAX)] == given[:0:-1]
        assert len(idle) == 0
        world.close()

    asyncio.run(claim())


def test_so_many_lie_idle_in_all() -> None:
    """At the bound all are kept; one past it closes the one that is idle for longest."""

    async def claim() -> None:
        world, idle = World(), Pool(idle_max=3)
        keys = [dataclasses.replace(KEY, run_id=RunId(str(number))) for number in range(4)]
        for key in keys[:3]:
            idle.give(key, await world.connect())
        assert len(idle) == 3
        idle.give(keys[3], await world.connect())
        await world.until_closed(0)
        assert [idle.take(key) is not None for key in keys] == [False, True, True, True]
        world.close()

    asyncio.run(claim())


def test_none_lies_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """After IDLE_S it is closed; what is taken away with run or lease is closed at once."""

    async def claim() -> None:
        world, idle = World(), Pool()
        idle.give(KEY, await world.connect())
        idle.drop_run(RunId("another"))
        idle.drop_lease(LeaseId("another"))
        assert len(idle) == 1
        idle.drop_lease(LeaseId("lease"))
        await world.until_closed(0)
        monkeypatch.setattr(pool, "IDLE_S", 0.02)
        late = Pool()
        late.give(KEY, await world.connect())
        await world.until_closed(1)
        assert late.take(KEY) is None
        world.close()

    asyncio.run(claim())
