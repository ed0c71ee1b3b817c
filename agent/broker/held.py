"""What providers hold in memory until it is revoked, and whose turn it is."""

import asyncio
import collections
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.credentials.spec import HELD_MAX
from agent.model.secret import Secret


class Held:
    """All methods run on the event loop."""

    def __init__(self) -> None:
        self._secrets: collections.OrderedDict[str, Secret] = collections.OrderedDict()
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}  # and how many are in it or wait

    def hold(self, key: str, secret: Secret) -> None:
        """Hold it. Past HELD_MAX the oldest goes: its lease can then only expire, and says so."""
        self._secrets.pop(key, None)
        self._secrets[key] = secret
        if len(self._secrets) > HELD_MAX:
            self._secrets.popitem(last=False)

    def held(self, key: str) -> Secret | None:
        """Return what is held."""
        return self._secrets.get(key)

    def let_go(self, key: str) -> None:
        """Hold it no longer."""
        self._secrets.pop(key, None)

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait for the others; who waits is cut off by its own call's bound."""
        lock, users = self._turns.get(key, (asyncio.Lock(), 0))
        self._turns[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns[key]
            if users == 1:
                del self._turns[key]
            else:
                self._turns[key] = lock, users - 1
