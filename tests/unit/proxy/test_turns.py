"""Turns: the broker is asked about so many connections of a run, the rest waits, others do not."""

import asyncio

import pytest

from agent.model.ids import RunId
from agent.proxy import turns as turning
from agent.proxy.turns import ASKING_A_RUN_MAX, WAITING_A_RUN_MAX, Crowded, Turns

ONE, OTHER = RunId("one"), RunId("other")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits too long here, where a test does not want it."""
    monkeypatch.setattr(turning, "WAIT_S", 600.0)


class Asking:
    """Connections that are asked about until they are told the answer."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.begun: list[int] = []
        self.answered: dict[int, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def _ask(self, run_id: RunId, number: int) -> None:
        async with self.turns.turn(run_id):
            self.begun.append(number)
            await self.answered[number].wait()

    async def start(self, run_id: RunId, *numbers: int) -> None:
        """Begin these, and let them come as far as they can."""
        for number in numbers:
            self.answered[number] = asyncio.Event()
            self.tasks.append(asyncio.ensure_future(self._ask(run_id, number)))
        await self.turn()

    async def turn(self) -> None:
        """Let everything come as far as it can."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Answer all."""
        while not all(one.done() for one in self.tasks):
            for event in self.answered.values():
                event.set()
            await self.turn()


def test_a_runs_share_is_asked_about_at_once_and_the_rest_in_order() -> None:
    """At ASKING_A_RUN_MAX all are on their way; one past it waits, and comes in its order."""

    async def main() -> None:
        made = Asking()
        most = ASKING_A_RUN_MAX
        await made.start(ONE, *range(most + 2))
        assert made.begun == list(range(most))
        made.answered[5].set()
        await made.turn()
        assert made.begun == list(range(most + 1))
        await made.end()
        assert made.begun == list(range(most + 2))
        assert len(made.turns) == 0  # nothing is kept of a run that asks nothing

    asyncio.run(main())


def test_another_run_waits_for_nobody() -> None:
    """While one run has all that may wait, another's is on its way at once."""

    async def main() -> None:
        made = Asking()
        await made.start(ONE, *range(ASKING_A_RUN_MAX + WAITING_A_RUN_MAX))
        await made.start(OTHER, 9_999)
        assert made.begun[-1] == 9_999
        await made.end()

    asyncio.run(main())


def test_so_many_wait_and_one_more_is_refused() -> None:
    """At WAITING_A_RUN_MAX it still waits; one past it is refused at once, with the number."""

    async def main() -> None:
        made = Asking()
        most = ASKING_A_RUN_MAX + WAITING_A_RUN_MAX
        await made.start(ONE, *range(most))
        assert not any(one.done() for one in made.tasks)
        with pytest.raises(Crowded, match=f"{most} connections"):
            async with made.turns.turn(ONE):
                pass
        await made.end()
        assert len(made.begun) == most
        async with made.turns.turn(ONE):
            pass

    asyncio.run(main())


def test_one_that_waited_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """After WAIT_S (lowered): it says so, and its place is free."""
    monkeypatch.setattr(turning, "WAIT_S", 0.02)

    async def main() -> None:
        made = Asking()
        await made.start(ONE, *range(ASKING_A_RUN_MAX))
        with pytest.raises(Crowded, match="waited"):
            async with made.turns.turn(ONE):
                pass
        await made.end()
        async with made.turns.turn(ONE):
            pass
        assert len(made.turns) == 0

    asyncio.run(main())


def test_one_that_is_given_up_as_its_turn_comes_leaves_it_to_the_next() -> None:
    """Cancelled in the moment it was let through: no place is lost."""

    async def main() -> None:
        made = Asking()
        await made.start(ONE, *range(ASKING_A_RUN_MAX + 2))
        made.answered[0].set()
        made.tasks[ASKING_A_RUN_MAX].cancel()
        await made.end()
        assert len(made.begun) == ASKING_A_RUN_MAX + 1
        await made.start(OTHER, *range(5_000, 5_000 + ASKING_A_RUN_MAX))
        await made.start(ONE, *range(6_000, 6_000 + ASKING_A_RUN_MAX))
        assert len(made.begun) == 3 * ASKING_A_RUN_MAX + 1
        await made.end()

    asyncio.run(main())
