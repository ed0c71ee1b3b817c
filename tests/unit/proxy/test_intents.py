"""Intents: each is ended once, and a run has so many open in a worker."""

import asyncio
import collections
from typing import cast

from agent.ipc.endpoint import Endpoint
from agent.ipc.messages import Durable, Record
from agent.ipc.records import unpack_event
from agent.model.audit import OperationFinished, OperationIntended, Outcome
from agent.model.ids import OperationId, RuleId, RunId, SessionId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.proxy.intents import OPERATIONS_A_RUN_MAX, Intents
from agent.proxy.recorder import Recorder
from agent.wire.commands import RecordDenied, RecordIntent
from tests.unit.proxy.harness import target
from tests.unit.proxy.test_session import RUN, session


class Reporter:
    """Confirms what it gets."""

    def __init__(self) -> None:
        self.recorder = Recorder(lambda _: None)
        self.intended = 0
        self.recorder.wired(cast("Endpoint", self))

    def notify(self, record: Record) -> None:
        """Take a frame."""
        kinds = [type(unpack_event(*event)) for event in record.events]
        self.intended += kinds.count(OperationIntended)
        asyncio.get_running_loop().call_soon(self.recorder.durable, Durable(record.durable))


def operation(number: int) -> Operation:
    return Operation(OperationId(f"o{number}"), "http", "GET", "/", ())


def finished_as(name: str) -> OperationFinished:
    return OperationFinished(
        SessionId("s"), OperationId(name), Outcome.ANSWERED, Reason.DONE, "", 0, 0, 0, ""
    )


class Told:
    """Hears what is durable."""

    def __init__(self) -> None:
        self.of: dict[OperationId, bool] = {}
        self._one = asyncio.Event()

    def __call__(self, operation_id: OperationId, *, durable: bool) -> None:
        """Hear of one."""
        self.of[operation_id] = durable
        self._one.set()

    async def until(self, count: int) -> None:
        """Wait until so many were heard of."""
        async with asyncio.timeout(10):
            while len(self.of) < count:
                self._one.clear()
                await self._one.wait()


def test_a_run_has_so_many_operations_open() -> None:
    """At OPERATIONS_A_RUN_MAX all are recorded; one past it fails, until one of them has ended."""

    async def main() -> None:
        reporter, told, of_runs = Reporter(), Told(), collections.Counter[RunId]()
        one, two = (Intents(reporter.recorder, session(), target(), told, of_runs) for _ in "12")
        for number in range(OPERATIONS_A_RUN_MAX - 1):
            one.intend(RecordIntent(operation(number), RuleId("r/0"), None))
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        last, past, after = (operation(OPERATIONS_A_RUN_MAX + number) for number in range(3))
        two.intend(RecordIntent(last, RuleId("r/0"), None))
        two.intend(RecordIntent(past, RuleId("r/0"), None))
        await told.until(OPERATIONS_A_RUN_MAX + 1)
        assert [name for name, durable in told.of.items() if not durable] == [past.operation_id]
        assert reporter.intended == OPERATIONS_A_RUN_MAX
        two.deny(RecordDenied(past, RuleId("r/0"), Reason.RECORD_FAILED, "", "503"))
        one.finish(finished_as("o0"))
        one.finish(finished_as("o0"))  # said twice, counted once
        two.intend(RecordIntent(after, RuleId("r/0"), None))
        await told.until(OPERATIONS_A_RUN_MAX + 2)
        assert told.of[after.operation_id]
        assert of_runs[RUN] == OPERATIONS_A_RUN_MAX
        one.settle(Reason.RUN_ENDED)
        two.settle(Reason.RUN_ENDED)
        assert not of_runs

    asyncio.run(main())
