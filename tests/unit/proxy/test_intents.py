"""Intents: each is ended once, and a run has so many open in a worker."""

import asyncio
from typing import cast

import pytest

from agent.broker.sessions import OPEN_A_RUN_MAX
from agent.config.daemon import PROXY_WORKERS_MAX
from agent.ipc.endpoint import Endpoint
from agent.ipc.messages import Durable, Record
from agent.ipc.records import unpack_event
from agent.model.audit import OperationFinished, OperationIntended, Outcome
from agent.model.ids import OperationId, RuleId, RunId, SessionId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.proxy.intents import (
    OPERATIONS_A_RUN_MAX,
    OPERATIONS_A_WORKER_MAX,
    Intents,
    OpenOperations,
)
from agent.proxy.recorder import Recorder
from agent.reporter.work import OPEN_MAX
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
    """At OPERATIONS_A_WORKER_MAX all are recorded; one past it fails, until one has ended."""

    async def main() -> None:
        reporter, told, of_worker = Reporter(), Told(), OpenOperations(workers=1)
        one, two = (Intents(reporter.recorder, session(), target(), told, of_worker) for _ in "12")
        for number in range(OPERATIONS_A_WORKER_MAX - 1):
            one.intend(RecordIntent(operation(number), RuleId("r/0"), None))
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        last, past, after = (operation(OPERATIONS_A_WORKER_MAX + number) for number in range(3))
        two.intend(RecordIntent(last, RuleId("r/0"), None))
        two.intend(RecordIntent(past, RuleId("r/0"), None))
        await told.until(OPERATIONS_A_WORKER_MAX + 1)
        assert [name for name, durable in told.of.items() if not durable] == [past.operation_id]
        assert reporter.intended == OPERATIONS_A_WORKER_MAX
        two.deny(RecordDenied(past, RuleId("r/0"), Reason.RECORD_FAILED, "", "503"))
        one.finish(finished_as("o0"))
        one.finish(finished_as("o0"))  # said twice, counted once
        two.intend(RecordIntent(after, RuleId("r/0"), None))
        await told.until(OPERATIONS_A_WORKER_MAX + 2)
        assert told.of[after.operation_id]
        assert len(of_worker) == OPERATIONS_A_WORKER_MAX
        one.settle(Reason.RUN_ENDED)
        two.settle(Reason.RUN_ENDED)
        assert not of_worker

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 4, 5, 7, PROXY_WORKERS_MAX])
def test_a_run_can_not_fill_what_the_reporter_follows(workers: int) -> None:
    """However many workers: all that one run may have open leaves room in the reporter."""
    of_worker = OpenOperations(workers)
    assert 0 < of_worker.most <= OPERATIONS_A_WORKER_MAX
    assert of_worker.most * workers <= OPERATIONS_A_RUN_MAX
    assert OPERATIONS_A_RUN_MAX + OPEN_A_RUN_MAX < OPEN_MAX
    begun = [of_worker.begin(RUN) for _ in range(of_worker.most + 1)]
    assert begun == [True] * of_worker.most + [False]
    assert of_worker.begin(RunId("another"))
