"""The records of a session's operations: each intent gets one outcome, whatever happens."""

import asyncio
import collections
import functools
from typing import Protocol

from agent.model.audit import OperationDenied, OperationFinished, OperationIntended, Outcome
from agent.model.grant import Target
from agent.model.ids import OperationId, RunId
from agent.model.reason import Reason
from agent.proxy.recorder import Recorder
from agent.proxy.session import Session
from agent.wire.commands import RecordDenied, RecordIntent

# Intended and not finished; one more fails. The reporter follows 32,768 of a host, sessions among
# them: of these, one run may have half in all workers together, and the 4,096 of its sessions.
OPERATIONS_A_RUN_MAX = 16_384
OPERATIONS_A_WORKER_MAX = 4_096


class Told(Protocol):
    """Hears whether an intent is durable as its target asks."""

    def __call__(self, operation_id: OperationId, *, durable: bool) -> None:
        """Hear of one."""


class OpenOperations:
    """A worker's, counted by run."""

    __slots__ = ("_of_runs", "most")

    def __init__(self, workers: int) -> None:
        """workers: how many the host has; each gives a run an equal share."""
        self.most = min(OPERATIONS_A_WORKER_MAX, OPERATIONS_A_RUN_MAX // workers)
        self._of_runs: collections.Counter[RunId] = collections.Counter()

    def __len__(self) -> int:
        return self._of_runs.total()

    def begin(self, run_id: RunId) -> bool:
        """Count one more; False: it is past what the run may have. Either way it ends once."""
        self._of_runs[run_id] += 1
        return self._of_runs[run_id] <= self.most

    def end(self, run_id: RunId) -> None:
        """Count one less."""
        self._of_runs[run_id] -= 1
        if not self._of_runs[run_id]:
            del self._of_runs[run_id]


class Intents:
    """One session's."""

    __slots__ = ("_of_worker", "_open", "_recorder", "_session", "_target", "_then")

    def __init__(
        self,
        recorder: Recorder,
        session: Session,
        target: Target,
        then: Told,
        of_worker: OpenOperations,
    ) -> None:
        """of_worker: the open operations of all its sessions, these among them."""
        self._recorder = recorder
        self._session = session
        self._target = target
        self._then = then
        self._of_worker = of_worker
        self._open: dict[OperationId, bool] = {}  # intended, not finished → told to the relay

    def __bool__(self) -> bool:
        return bool(self._open)

    def intend(self, command: RecordIntent) -> None:
        """Make an intent durable; `then` hears of it."""
        operation_id = command.operation.operation_id
        session = self._session
        session.operations += 1
        self._open[operation_id] = False
        answer = functools.partial(self._intended, operation_id)
        if not self._of_worker.begin(session.run_id):
            asyncio.get_running_loop().call_soon(answer, False)
            return
        self._recorder.intend(
            OperationIntended(
                session.session_id,
                session.run_id,
                session.loop,
                self._target.name,
                command.operation,
                command.rule,
                command.lease_id,
                self._target.durability,
            ),
            self._target.durability,
            answer,
        )

    def finish(self, finished: OperationFinished) -> None:
        """Record an outcome."""
        self._ended(finished.operation_id)
        self._recorder.record(finished)

    def deny(self, command: RecordDenied) -> None:
        """Record a refusal, of an operation that was intended or not."""
        session = self._session
        if not self._ended(command.operation.operation_id):
            session.operations += 1  # else it was counted when it was intended
        self._recorder.record(
            OperationDenied(
                session.session_id,
                session.run_id,
                session.loop,
                self._target.name,
                command.operation,
                command.rule,
                command.reason,
                command.explanation,
                command.status,
            )
        )

    def settle(self, reason: Reason) -> None:
        """Give an outcome to what the relay left open: no intent of ours stays without one."""
        for operation_id, told in tuple(self._open.items()):
            outcome = Outcome.ABORTED if told else Outcome.DENIED
            session_id = self._session.session_id
            self._recorder.record(
                OperationFinished(session_id, operation_id, outcome, reason, "", 0, 0, 0, "")
            )
            self._ended(operation_id)

    def _ended(self, operation_id: OperationId) -> bool:
        """Return whether it was open."""
        if self._open.pop(operation_id, None) is None:
            return False
        self._of_worker.end(self._session.run_id)
        return True

    def _intended(self, operation_id: OperationId, durable: bool) -> None:  # noqa: FBT001 - Answer
        if operation_id not in self._open:
            return
        if durable:
            self._open[operation_id] = True
        self._then(operation_id, durable=durable)
