"""Large transfers share the event loop with all else: so much in a turn, then each waits its turn.

libuv reads a connection that is ready up to 32 times, 256 KB each, before it looks at the next, and
what was read is decrypted, searched and encrypted at once. With hundreds of such connections one
turn of the event loop would take seconds, and a small request of another run needs a dozen turns.
"""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

HOLD_TURN = 4  # why a channel is not read, beside channel.HOLD_RELAY and HOLD_PRESSURE
BULK_BYTES = 16 << 10  # a smaller piece is not counted
TURN_BYTES = 1 << 20  # of large pieces, in a turn; who comes behind them is read in a later one
READ_A_TURN = 4  # connections that waited and are read in a turn


class Held(Protocol):
    """A channel."""

    def hold(self, why: int) -> None:
        """Do not read."""

    def release(self, why: int) -> None:
        """Read again."""


class Shares:
    """Those that wait, in the order they came. All methods run on the event loop."""

    def __init__(self, event_loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = event_loop.call_soon
        self._taken_bytes = 0
        self._counting = False  # the end of the turn is awaited
        self._waiting: dict[Held, None] = {}

    def took(self, channel: Held, size_bytes: int) -> None:
        """Count a large piece that was read; past TURN_BYTES its channel waits."""
        if not self._counting:
            self._counting = True
            self._call_soon(self._next_turn)
        self._taken_bytes += size_bytes
        if self._taken_bytes > TURN_BYTES:
            channel.hold(HOLD_TURN)
            self._waiting[channel] = None

    def _next_turn(self) -> None:
        self._taken_bytes = 0
        self._counting = False
        for channel in tuple(self._waiting)[:READ_A_TURN]:
            del self._waiting[channel]
            channel.release(HOLD_TURN)
        if self._waiting:
            self._counting = True
            self._call_soon(self._next_turn)


_SHARES: WeakKeyDictionary[asyncio.AbstractEventLoop, Shares] = WeakKeyDictionary()


def shares_of(event_loop: asyncio.AbstractEventLoop) -> Shares:
    """Return the event loop's."""
    found = _SHARES.get(event_loop)
    if found is None:
        found = _SHARES[event_loop] = Shares(event_loop)
    return found
