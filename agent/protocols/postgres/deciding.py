"""What is decided of each message, one after the other; records are made side by side.

Parse is decided with the text alone, Execute again with the values, and each Execute is recorded.
A Parse is, when it is refused or fails, or when nothing ever executed what it made (`unrun`): it
tells of names and types. (A Bind runs the input functions of its values, and plans.)
"""

import hashlib
from collections import deque

from agent.model.ids import OperationId
from agent.model.operation import Operation
from agent.model.sql import Classified, Effect, Statement, unknown
from agent.model.verdict import Allow, Verdict
from agent.protocols.postgres.answers import NAME, Refusal
from agent.protocols.postgres.names import NotYet, Portal, Prepared
from agent.protocols.postgres.recording import as_recorded, bound_values, operation_of, prepare
from agent.protocols.postgres.refusing import (
    of_busy,
    of_deny,
    of_names,
    of_pinned,
    of_record_failed,
)
from agent.protocols.postgres.releasing import Releasing
from agent.protocols.postgres.sql import CLASSIFY_BYTES_MAX, touches_pinned
from agent.protocols.postgres.state import STOPS
from agent.protocols.postgres.step import (
    BIND,
    CALL,
    CLOSE,
    EXECUTE,
    PARSE,
    QUERY,
    SYNC,
    Exchange,
    Stage,
    Step,
)
from agent.protocols.postgres.transitions import as_heard, resolve, sql_name
from agent.wire.commands import Classify, Judge, RecordIntent

RECORDINGS_MAX = 16  # operations whose records are not made → what is behind them waits
FLIGHT_MAX = 2048  # messages decided or sent, and not answered → Pause, and the same
_CLASSIFYING = Stage.CLASSIFYING
_TOO_LONG = "the text is longer than what is classified"
_NOBODY_KNOWS = "it runs something by a name that stands for nothing known"


class Deciding(Releasing):
    """Decides over steps."""

    def _advance(self) -> None:
        """Decide over what is next, as far as that can be done now, and send what may go."""
        self._waits = False
        asking = self._asking
        if asking is not None and asking.classified is not None and asking.stage is _CLASSIFYING:
            self._judge_text(asking, asking.classified)
        new = self._new
        while new and self._asking is None and not self._finished:
            if self._is_far_ahead():
                break
            step = new[0]
            if self._discarding:
                if step.kind not in STOPS:
                    new.popleft()
                    continue
                self._discarding = False
            step.segment = self._segment
            try:
                self._decide(step)
            except NotYet:
                self._waits = True
                break
        if self._decided:
            self._release()
        self._flush_if_waiting()

    def _is_far_ahead(self) -> bool:
        """Whether what comes next has to wait until more of what is under way is over.

        A pipeline must neither have all records that may be on their way at once, which other
        sessions need too, nor all operations that may be open. And it takes turns with them: with
        16 another session's statement takes 5 ms beside one, with 64 it took 27 ms, and the
        pipeline itself is as fast.
        """
        if len(self._recordings) >= RECORDINGS_MAX:
            return True
        if len(self._flight) + len(self._decided) <= FLIGHT_MAX:
            return False
        self._waits = True
        return True

    def _decide(self, step: Step) -> None:
        """Begin, and mostly end, to decide over the first new step."""
        kind = step.kind
        if kind in {PARSE, QUERY}:
            self._new.popleft()
            self._classify(step)
        elif kind == EXECUTE:
            self._judge_execute(step)
        elif kind == CALL:
            self._new.popleft()
            self._judge_call(step)
        else:
            if kind == BIND:
                if self._portals.is_full():
                    self._refuse_bind(step)
                    return
                self._bind(step)
            elif kind == CLOSE:
                names = self._statements if step.statement else self._portals
                step.change = names.change(step.name, None, self._segment)
            elif kind == SYNC:
                self._segment += 1
            self._new.popleft()
            step.stage = Stage.READY
            self._decided.append(step)

    # texts

    def _classify(self, step: Step) -> None:
        self._asking = step
        step.stage = Stage.CLASSIFYING
        text = step.text
        if len(text) * 4 > CLASSIFY_BYTES_MAX and len(text.encode()) > CLASSIFY_BYTES_MAX:
            self._judge_text(step, unknown(_TOO_LONG))
        else:
            self._classes.append(step)
            self._out.append(Classify(NAME, text))

    def _text_classified(self, classified: Classified) -> None:
        step = self._classes.popleft()
        if step.stage is Stage.CLASSIFYING:
            self._judge_text(step, classified)
            self._advance()

    def _judge_text(self, step: Step, classified: Classified) -> None:
        if classified.since:
            classified = as_heard(classified, self._server_version)
        step.classified = classified
        if classified.busy:
            self._refuse_now(step, self._unlooked(step), of_busy())
            return
        try:
            statements = resolve(classified.statements, self._run_by_name, self._portals)
        except NotYet:
            self._waits = True
            return
        prepared = step.prepared = prepare(step.text, classified, statements)
        attributes = (("message", "parse"),) if step.kind == PARSE else ()
        operation = operation_of(self._context.new_operation_id(), prepared, attributes)
        if self._statements.is_full() and (step.kind == PARSE or _prepares(statements)):
            self._refuse_now(step, operation, of_names())
            return
        for statement in statements:
            pinned = touches_pinned(statement, read_only=self._read_only)
            if pinned:  # refused whatever the verdict is, which says how it is recorded
                step.pinned = of_pinned(statement, pinned)
                break
        self._judge(step, operation)

    def _unlooked(self, step: Step) -> Operation:
        """Return the operation of a text that nobody has looked at: no literal is recorded."""
        exchange = step.exchange
        operation_id = self._context.new_operation_id()
        if exchange is not None:
            operation_id = exchange.operation.operation_id
        digest = hashlib.sha256(step.text.encode()).hexdigest()
        shown = f"sha256:{digest}, {step.size} bytes"
        return Operation(operation_id, NAME, "", shown, ())

    def _run_by_name(self, name: str) -> tuple[Statement, ...]:
        prepared = self._find_statement(sql_name(name))
        if prepared is None:
            return ()
        self._unrun.ran(prepared)
        return prepared.statements

    def _find_statement(self, name: bytes) -> Prepared | None:
        if self._wild:
            raise NotYet
        return self._statements.find(name, self._segment)

    # values

    def _bind(self, step: Step) -> None:
        bind = step.bind
        assert bind is not None  # of a BIND
        portal = Portal(self._find_statement(bind.statement), bound_values(bind))
        step.bind = None
        step.change = self._portals.change(bind.portal, portal, self._segment)

    def _refuse_bind(self, step: Step) -> None:
        self._new.popleft()
        operation = Operation(self._context.new_operation_id(), NAME, "BIND", "", ())
        self._refuse_now(step, operation, of_names())

    def _judge_execute(self, step: Step) -> None:
        if self._wild:
            raise NotYet
        portal = self._portals.find(step.name, self._segment)
        self._new.popleft()
        prepared = None if portal is None else portal.prepared
        values = () if portal is None else portal.values
        if prepared is None:
            classified = unknown(_NOBODY_KNOWS)
            prepared = prepare("", classified, classified.statements)
        elif self._unrun:
            self._unrun.ran(prepared)
        step.portal = portal
        step.prepared = prepared
        self._judge(step, operation_of(self._context.new_operation_id(), prepared, values))

    def _judge_call(self, step: Step) -> None:
        statement = Statement(
            "FUNCTION", frozenset({Effect.UNKNOWN}), why="a function is called by its object id"
        )
        shown = f"function {step.most}"
        operation = Operation(
            self._context.new_operation_id(), NAME, "FUNCTION", shown, (), (statement,)
        )
        classified = Classified((statement,), shown)
        step.prepared = prepare(shown, classified, (statement,))
        self._judge(step, operation)

    # verdicts and records

    def _judge(self, step: Step, operation: Operation) -> None:
        self._asking = step
        step.stage = Stage.JUDGING
        step.exchange = Exchange(operation, step.since_ns, step.size)
        self._out.append(Judge(operation))

    def _judged(self, operation_id: str, verdict: Verdict) -> None:
        step = self._asking
        if step is None or step.exchange is None or step.stage is not Stage.JUDGING:
            return
        operation, prepared = step.exchange.operation, step.prepared
        if operation.operation_id != operation_id or prepared is None:
            return
        kept = as_recorded(operation, verdict, prepared)
        if step.pinned is not None:
            self._refuse_now(step, kept, step.pinned)
        elif isinstance(verdict, Allow):
            self._allowed(step, step.exchange, kept, verdict)
        else:
            self._refuse_now(step, kept, of_deny(verdict))
        self._advance()

    def _allowed(self, step: Step, exchange: Exchange, kept: Operation, verdict: Allow) -> None:
        self._asking = None
        self._hides_columns |= verdict.hides_columns
        prepared = step.prepared
        if step.kind == PARSE:
            step.exchange, step.unrun = None, exchange
            step.stage = Stage.READY
            exchange.operation, exchange.rule = kept, verdict.rule
            if prepared is not None:
                for oldest in self._unrun.add(prepared, step):
                    self._record_unrun(oldest)
            step.change = self._statements.change(step.name, prepared, step.segment)
        else:
            exchange.operation, exchange.rule = kept, verdict.rule
            exchange.max_rows = verdict.max_rows
            exchange.intended = True
            step.stage = Stage.RECORDING
            self._recordings[kept.operation_id] = step
            self._out.append(RecordIntent(kept, verdict.rule, self._opened.lease_id))
            if prepared is not None and prepared.wild:
                step.wild = True
                self._wild += 1
        self._decided.append(step)
        if step.kind in {QUERY, CALL}:
            self._segment += 1

    def _refuse_now(self, step: Step, operation: Operation, refusal: Refusal) -> None:
        """Refuse the step that is being decided over."""
        self._asking = None
        self._deny(step, refusal, operation)
        self._decided.append(step)
        if step.kind in {QUERY, CALL}:
            self._segment += 1
        else:
            self._discarding = True

    def _recorded(self, operation_id: OperationId) -> None:
        step = self._recordings.pop(operation_id, None)
        if step is None:
            return
        step.stage = Stage.READY
        if self._decided[0] is step:
            self._release()
            self._flush_if_waiting()
        if self._new and len(self._recordings) * 2 <= RECORDINGS_MAX:
            self._advance()

    def _record_failed(self, operation_id: OperationId) -> None:
        """Nothing of it may go upstream: a refusal, and what comes behind it is discarded."""
        step = self._recordings.pop(operation_id, None)
        if step is None or step.exchange is None:
            return
        operation = step.exchange.operation
        step.exchange.intended = False
        self._release_names(step, done=False, tried=False)
        self._deny(step, of_record_failed(), operation)
        if step.kind == EXECUTE:
            self._drop_behind(step, of_record_failed().status)
        self._advance()

    def _drop_behind(self, step: Step, status: str) -> None:
        """Give up what was decided after a step of the same segment that is refused now."""
        before, behind = self._decided, deque[Step]()
        while before[-1] is not step:
            behind.appendleft(before.pop())
        self._decided = behind
        self._drop_waiting(status)
        before.extend(self._decided)
        self._decided = before


def _prepares(statements: tuple[Statement, ...]) -> bool:
    return any(statement.kind == "PREPARE" for statement in statements)
