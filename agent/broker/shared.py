"""What providers keep between calls (a login of ours): in memory, made once for all who ask."""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agent.credentials.spec import SHARED_MAX, CredentialError, Kept
from agent.runtime import clock

MAKE_S = 20.0  # as long as the call that waits for it
Value = TypeVar("Value")


class Shared:
    """All methods run on the event loop; see Client.shared."""

    def __init__(self, now_ns: Callable[[], int] = clock.boot_ns) -> None:
        self._now_ns = now_ns
        self._kept: collections.OrderedDict[str, tuple[Any, int]] = collections.OrderedDict()
        self._flights: dict[str, asyncio.Task[Any]] = {}

    async def get(self, key: str, make: Callable[[Value | None], Awaitable[Kept[Value]]]) -> Value:
        """Return the value; who is cut off while it is made does not stop the others.

        Raises:
            CredentialError: make's own, or it took longer than MAKE_S.
        """
        old, until_ns = self._kept.get(key, (None, 0))
        if old is not None and self._now_ns() < until_ns:
            kept: Value = old
            return kept
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._make(key, old, make))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        made: Value = await asyncio.shield(flight)
        return made

    def forget(self, key: str, value: object) -> None:
        """Drop it, unless it is another one by now."""
        if self._kept.get(key, (None, 0))[0] is value:
            del self._kept[key]

    async def _make(
        self, key: str, old: Value | None, make: Callable[[Value | None], Awaitable[Kept[Value]]]
    ) -> Value:
        try:
            async with asyncio.timeout(MAKE_S):
                kept = await make(old)
        except TimeoutError:
            text = f"the login took longer than {MAKE_S:.0f} s"
            raise CredentialError(text, transient=True, nothing_made=True) from None
        self._kept.pop(key, None)
        self._kept[key] = kept.value, self._now_ns() + int(kept.fresh_s * 1e9)
        if len(self._kept) > SHARED_MAX:
            self._kept.popitem(last=False)
        return kept.value

    def _landed(self, key: str, flight: "asyncio.Task[Any]") -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # who waits hears of it; there may be nobody any more
