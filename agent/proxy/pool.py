"""Idle upstream connections, each for one run, lease and target, and for nobody else."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from agent.model.ids import LeaseId, RunId, TargetName
from agent.proxy.channel import Channel

IDLE_A_KEY_MAX = 32  # one past it closes the one that is idle for longest
IDLE_MAX = 1_024  # of the worker; one past it closes the one that is idle for longest
IDLE_S = 20.0  # below the 60 to 75 s after which common servers close


@dataclass(frozen=True, slots=True)
class PoolKey:
    """Whose connection it is. revision: a changed policy may have moved the target."""

    run_id: RunId
    lease_id: LeaseId | None
    target: TargetName
    revision: str


@dataclass(slots=True, eq=False)
class Upstream:
    """A connected, verified upstream connection."""

    channel: Channel
    address: str
    early: bytes = b""  # what the server said before anybody asked
    reused: bool = False


class Pool:
    """Owner of the connections that lie idle; any sign of life on one closes it."""

    def __init__(self, idle_max: int = IDLE_MAX) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._idle_max = idle_max
        self._idle: OrderedDict[Channel, tuple[PoolKey, Upstream, float]] = OrderedDict()
        self._by_key: dict[PoolKey, list[Upstream]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, key: PoolKey) -> Upstream | None:
        """Return the connection of this key that was used last, if any."""
        idle = self._by_key.get(key)
        if not idle:
            return None
        upstream = idle[-1]
        self._forget(upstream.channel)
        return upstream

    def give(self, key: PoolKey, upstream: Upstream) -> None:
        """Keep for the next session of the same key; close what goes over a bound."""
        channel = upstream.channel
        if not channel.open or channel.has_ended:
            channel.abort()
            return
        channel.owner = self
        upstream.reused = True
        self._idle[channel] = (key, upstream, self._event_loop.time() + IDLE_S)
        same = self._by_key.setdefault(key, [])
        same.append(upstream)
        if len(same) > IDLE_A_KEY_MAX:
            self._close(same[0].channel)
        if len(self._idle) > self._idle_max:
            self._close(next(iter(self._idle)))
        if self._sweep is None:
            self._sweep = self._event_loop.call_later(IDLE_S, self._expire)

    def drop_run(self, run_id: RunId) -> None:
        """Close all of a run's."""
        for channel, (key, _, _) in tuple(self._idle.items()):
            if key.run_id == run_id:
                self._close(channel)

    def drop_lease(self, lease_id: LeaseId) -> None:
        """Close all that a lease's credential opened."""
        for channel, (key, _, _) in tuple(self._idle.items()):
            if key.lease_id == lease_id:
                self._close(channel)

    def close(self) -> None:
        """Close all."""
        for channel in tuple(self._idle):
            self._close(channel)

    def arrived(self, channel: Channel, data: bytes) -> None:
        """An answer to no question: whatever it is, nobody gets it."""
        self._close(channel)

    def ended(self, channel: Channel, *, clean: bool) -> None:
        """The server is done with it."""
        self._close(channel)

    def lost(self, channel: Channel) -> None:
        """It is gone."""
        self._forget(channel)

    def pressed(self, channel: Channel, *, high: bool) -> None:
        """Nothing is written to an idle connection."""

    def _expire(self) -> None:
        self._sweep = None
        now_s = self._event_loop.time()
        for channel, (_, _, until_s) in tuple(self._idle.items()):
            if until_s > now_s:
                self._sweep = self._event_loop.call_at(until_s, self._expire)
                return
            self._close(channel)

    def _close(self, channel: Channel) -> None:
        self._forget(channel)
        channel.abort()

    def _forget(self, channel: Channel) -> None:
        entry = self._idle.pop(channel, None)
        if entry is None:
            return
        key, upstream, _ = entry
        same = self._by_key[key]
        same.remove(upstream)
        if not same:
            del self._by_key[key]
