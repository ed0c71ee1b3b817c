"""What messages show of themselves: asyncio quotes a future's result in what it logs."""

import asyncio

from agent.ipc.messages import Authorized, LeaseTaken
from agent.model.ids import LeaseId, LoopName, RunId, TargetName

SECRET = "c4n4ry-of-a-lease"
LEASE = LeaseTaken(
    LeaseId("l"), RunId("r"), TargetName("t"), "bearer", (SECRET.encode(),), 1, revocable=True
)
AUTHORIZED = Authorized(LoopName("l"), None, None, "", "", SECRET.encode())


def test_no_secret_is_shown() -> None:
    """Neither by repr, nor by what the event loop says of a callback that failed with them."""
    asyncio.run(_show())


async def _show() -> None:
    event_loop = asyncio.get_running_loop()
    said: list[str] = []
    event_loop.set_exception_handler(lambda _, context: said.append(repr(context)))
    for message in (LEASE, AUTHORIZED):
        future: asyncio.Future[object] = event_loop.create_future()
        future.set_result(message)
        future.add_done_callback(lambda done: done.result().none_such)  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        shown = f"{message} {message!r} {future!r}"
        assert SECRET not in shown
        assert type(message).__name__ in shown
    assert len(said) == 2
    assert SECRET not in "".join(said)
