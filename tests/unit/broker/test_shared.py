"""What providers keep between calls: made once, fresh for so long, and failures are not kept."""

import asyncio

import pytest

from agent.broker import shared as module
from agent.broker.shared import Shared
from agent.credentials.spec import SHARED_MAX, CredentialError, Kept


class Maker:
    """Makes values, counts, and waits or fails if it is told to."""

    def __init__(self) -> None:
        self.made = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.olds: list[list[int] | None] = []
        self.fault: CredentialError | None = None

    async def __call__(self, old: list[int] | None) -> Kept[list[int]]:
        """Make one."""
        self.olds.append(old)
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.made += 1
        return Kept([self.made], 10.0)


def test_one_for_all_who_ask_at_once() -> None:
    """A hundred at once and later: made once; who is cut off does not stop it."""

    async def run() -> None:
        make, shared = Maker(), Shared()
        make.gate.clear()
        tasks = [asyncio.create_task(shared.get("a", make)) for _ in range(100)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        make.gate.set()
        assert [(await task) for task in tasks[1:]] == [[1]] * 99
        assert await shared.get("a", make) == [1]
        assert await shared.get("b", make) == [2]

    asyncio.run(run())


def test_it_is_made_again_when_it_is_stale_or_forgotten() -> None:
    """With the old one at hand when stale; forgetting one that was replaced does nothing."""

    async def run() -> None:
        now = [0]
        make, shared = Maker(), Shared(lambda: now[0])
        first = await shared.get("a", make)
        now[0] = 10_000_000_000 - 1
        assert await shared.get("a", make) is first
        now[0] += 1
        second = await shared.get("a", make)
        assert make.olds == [None, first]
        shared.forget("a", first)
        assert await shared.get("a", make) is second
        shared.forget("a", second)
        assert await shared.get("a", make) == [3]
        assert make.olds[-1] is None

    asyncio.run(run())


def test_a_failure_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who wait hear of it; the next try is a new one; one that never ends is cut off."""

    async def run() -> None:
        make, shared = Maker(), Shared()
        make.fault = CredentialError("no")
        tasks = [asyncio.create_task(shared.get("a", make)) for _ in range(3)]
        await asyncio.wait(tasks)
        assert [str(task.exception()) for task in tasks] == ["no"] * 3
        make.fault = None
        assert await shared.get("a", make) == [1]
        make.gate.clear()
        monkeypatch.setattr(module, "MAKE_S", 0.01)
        with pytest.raises(CredentialError, match="longer than") as caught:
            await shared.get("b", make)
        assert caught.value.transient

    asyncio.run(run())


def test_the_oldest_goes() -> None:
    """SHARED_MAX are kept; one more, and the first is made again."""

    async def run() -> None:
        make, shared = Maker(), Shared()
        for number in range(SHARED_MAX):
            await shared.get(str(number), make)
        await shared.get("0", make)
        assert make.made == SHARED_MAX
        await shared.get("more", make)
        await shared.get("1", make)
        assert make.made == SHARED_MAX + 1
        await shared.get("0", make)
        assert make.made == SHARED_MAX + 2

    asyncio.run(run())
