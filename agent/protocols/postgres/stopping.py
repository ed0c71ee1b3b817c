"""A cancel that comes while what it means has not gone upstream: it never will.

The server can only stop what it is at. A statement that is still being read, classified, judged,
recorded, or that waits behind another one is held here, and given up here: the loop gets what the
server would say, SQLSTATE 57014, in its turn.
"""

from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.protocols.postgres.answers import Refusal
from agent.protocols.postgres.deciding import Deciding
from agent.protocols.postgres.messages import error_response
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.step import CALL, EXECUTE, QUERY, Stage, Step
from agent.wire.commands import StopTaken
from agent.wire.relay import RelayContext

_RUNNING = frozenset({QUERY, EXECUTE, CALL})  # what the server may be at
_HELD = frozenset({Stage.RECORDING, Stage.READY})
_CANCELLED = "57014"  # query_canceled
_WHY = "the loop cancelled it before it went upstream"
_REFUSAL = Refusal(
    Reason.DONE,
    _WHY,
    sqlstate=_CANCELLED,
    verbatim=error_response(
        "ERROR",
        _CANCELLED,
        "canceling statement due to user request",
        "Loopwarden had not sent it to the server yet.",
    ),
)


class Stopping(Deciding):
    """Gives up what is held."""

    def __init__(self, context: RelayContext, opened: Opened) -> None:
        super().__init__(context, opened)
        self._stops_next = False  # what is still being read is cancelled already

    def _stop_asked(self, *, reading: bool) -> None:
        """Take a cancel; reading: the beginning of a message is here. Else it is the server's."""
        if self._copy is not None or any(step.kind in _RUNNING for step in self._flight):
            return
        at = len(self._out)
        if self._stop_held():
            self._out.insert(at, StopTaken())  # what comes behind the statement may be the end
        elif reading:
            self._stops_next = True
            self._out.append(StopTaken())

    def _said_apart(self) -> None:
        """The server has heard that it should stop: what comes now can't be meant by it."""
        if self._stops:
            self._stops -= 1
            self._fences -= 1

    def _stop_what_came(self) -> None:
        """A message that was being read when the cancel came is complete."""
        over = not self._segment_sent and self._asking is None and not self._decided
        self._stops_next = not (self._stop_held() or over)

    def _stop_held(self) -> bool:
        """Give up the statement that would run next; False: there is none."""
        for step in self._decided:
            if step.exchange is not None and step.stage in _HELD:
                self._give_up(step, step.exchange.operation)
                return True
        asking = self._asking
        if asking is None:
            return False
        self._refuse_now(asking, self._unlooked(asking), _REFUSAL)
        self._advance()
        return True

    def _give_up(self, step: Step, operation: Operation) -> None:
        """Refuse what was intended: decided, and recorded or about to be."""
        self._recordings.pop(operation.operation_id, None)
        self._release_names(step, done=False, tried=False)
        self._deny(step, _REFUSAL, operation)
        if step.kind == EXECUTE:
            self._drop_behind(step, _CANCELLED)
        self._advance()
