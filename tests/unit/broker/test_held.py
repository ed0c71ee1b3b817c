"""What is held until it is revoked, and whose turn it is."""

import asyncio

from agent.broker.held import Held
from agent.credentials.spec import HELD_MAX
from agent.model.secret import Secret


def test_the_number_is_bounded() -> None:
    """At the limit all are held; one more, and the oldest is not (its lease then expires)."""
    held = Held()
    for number in range(HELD_MAX):
        held.hold(str(number), Secret(b"x"))
    assert held.held("0") is not None
    held.hold("1", Secret(b"again"))  # it is the newest now, and no other
    held.hold("more", Secret(b"x"))
    assert held.held("0") is None
    assert held.held("1") is not None
    held.let_go("1")
    held.let_go("1")
    assert held.held("1") is None


def test_one_at_a_time_for_a_key() -> None:
    """Others wait, another key does not; who is cut off leaves; nothing of a key is kept."""

    async def run() -> None:
        held, inside = Held(), [0]

        async def enter(key: str) -> None:
            async with held.turn(key):
                inside[0] += 1
                assert inside[0] == 1
                await asyncio.sleep(0)
                inside[0] -= 1

        async with held.turn("other"):
            tasks = [asyncio.create_task(enter("a")) for _ in range(20)]
            await asyncio.sleep(0)
            tasks[7].cancel()
            await asyncio.wait(tasks)
        assert not held._turns

    asyncio.run(run())
