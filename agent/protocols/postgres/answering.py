"""What the server's messages mean to the steps that wait for them; all else is refused.

PostgreSQL documentation, chapter "Frontend/Backend Protocol", "Message Flow".
"""

from agent.model.audit import Outcome
from agent.model.reason import Reason
from agent.protocols.postgres.answers import Refusal
from agent.protocols.postgres.copying import Copying
from agent.protocols.postgres.frames import Fields, Malformed, report_fields, without_field
from agent.protocols.postgres.messages import message
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.refusing import FAILING_PARSE_WIRE, FAILING_QUERY_WIRE, NOT_NORMAL
from agent.protocols.postgres.settings import is_as_pinned
from agent.protocols.postgres.step import (
    BIND,
    CALL,
    CLOSE,
    DESCRIBE,
    EXECUTE,
    FAILING_PARSE,
    FAILING_QUERY,
    LOCAL,
    PARSE,
    QUERY,
    SYNC,
    Step,
)
from agent.protocols.postgres.transitions import note_names
from agent.protocols.postgres.walking import UNASKED, Walking
from agent.wire.relay import RelayContext

_SEVERITIES_FATAL = frozenset({b"FATAL", b"PANIC"})
# integrity constraints, and a view's WITH CHECK OPTION (Appendix A): DETAIL has keys or whole rows
_QUOTING = frozenset({b"23", b"44"})
_TAGS_MAX = 8  # command tags kept of one operation


class Answering(Walking):
    """Gives the server's messages to the steps."""

    def __init__(self, context: RelayContext, opened: Opened) -> None:
        super().__init__(context, opened)
        self._fatal_status = ""  # SQLSTATE of the error with which the server ends the session
        self._takes = {
            ord("1"): self._parse_complete,
            ord("2"): self._bind_complete,
            ord("3"): self._close_complete,
            ord("C"): self._command_complete,
            ord("I"): self._command_complete,
            ord("T"): self._row_description,
            ord("Z"): self._ready,
            ord("n"): self._described,
            ord("t"): self._parameters,
            ord("s"): self._suspended,
            ord("E"): self._error,
            ord("N"): self._notice,
            ord("S"): self._parameter_status,
            ord("A"): self._notification,
            ord("G"): self._copy_in,
            ord("H"): self._copy_out,
            ord("W"): self._copy_both,
            ord("c"): self._copy_done,
            ord("V"): self._function_result,
        }

    # answers of single steps

    def _front(self, *kinds: int) -> Step:
        if not self._flight or self._flight[0].kind not in kinds or self._flight[0].failed:
            raise Malformed(UNASKED)
        return self._flight[0]

    def _pop(self) -> None:
        """The first step is answered; what of ours stands behind it can be said."""
        flight = self._flight
        flight.popleft()
        if flight and flight[0].kind == LOCAL:
            self._say_local()

    def _say_local(self) -> None:
        flight = self._flight
        while flight and flight[0].kind == LOCAL:
            self._tell(flight.popleft().said)

    def _parse_complete(self) -> None:
        step = self._front(PARSE)
        if step.unrun is not None:
            step.unrun.ended_ns = self._now
        self._release_names(step, done=True)
        self._pop()

    def _bind_complete(self) -> None:
        self._release_names(self._front(BIND), done=True)
        self._pop()

    def _close_complete(self) -> None:
        self._release_names(self._front(CLOSE), done=True)
        self._pop()

    def _parameters(self) -> None:
        step = self._front(DESCRIBE)
        if step.described or not step.statement:
            raise Malformed(UNASKED)
        step.described = True

    def _row_description(self) -> None:
        step = self._front(DESCRIBE, QUERY)
        if step.kind == QUERY:
            if self._copy is not None or step.exceeded:
                raise Malformed(UNASKED)
            step.in_rows = True
            step.result_rows = 0
        else:
            self._described()

    def _described(self) -> None:
        step = self._front(DESCRIBE)
        if step.statement and not step.described:
            raise Malformed(UNASKED)
        self._pop()

    def _command_complete(self) -> None:
        step = self._front(QUERY, EXECUTE)
        tag = ""
        if self._chunk[self._at] == ord("C"):
            fields = Fields(self._payload())
            tag = fields.text()
            fields.end()
        if self._copy is not None:
            self._end_copy(step)
        exchange = step.exchange
        if exchange is not None and tag and len(exchange.tags) < _TAGS_MAX:
            exchange.tags.append(tag)
        note_names(step, tag, self._statements, self._portals)
        step.result += 1
        if step.kind == QUERY:
            step.in_rows = False
            if step.exceeded:
                self._drop_message()
        elif step.exceeded:
            self._end_exceeded(step)
        else:
            self._answered(step)
            self._release_names(step, done=True)
            self._pop()

    def _suspended(self) -> None:
        step = self._front(EXECUTE)
        if self._copy is not None:
            raise Malformed(UNASKED)
        if step.exceeded:
            self._end_exceeded(step)
            return
        if step.asked_rows:
            raise Malformed("the end of a result before it was")
        if step.exchange is not None:
            step.exchange.notes.append(("portal", "suspended"))
        self._answered(step)
        self._release_names(step, done=True)
        self._pop()

    def _function_result(self) -> None:
        step = self._front(CALL)
        fields = Fields(self._payload())
        fields.value()
        fields.end()
        if step.answered:
            raise Malformed(UNASKED)
        step.answered = True
        if step.exchange is not None:
            step.exchange.response_bytes += self._end - self._at

    # errors and the end of a segment

    def _error(self) -> None:
        fields = report_fields(self._payload())
        sqlstate = fields.get(ord("C"), b"")
        if len(sqlstate) != 5 or not sqlstate.isalnum() or ord("M") not in fields:
            raise Malformed("an error without SQLSTATE or text")
        severity = fields.get(ord("V"), fields.get(ord("S"), b""))
        status = sqlstate.decode()
        if severity in _SEVERITIES_FATAL:
            self._fatal_status = status
            return
        step = self._flight[0] if self._flight else None
        if step is None or step.failed:
            raise Malformed("an error that nobody's message can have caused")
        if self._copy is not None:
            self._end_copy(step)
        if step.kind in {FAILING_PARSE, FAILING_QUERY}:
            self._drop_message()
            self._tell(step.said)
        elif self._hides_columns and not step.exceeded and sqlstate[:2] in _QUOTING:
            # "Failing row contains (…)": every column of it, whichever the statement names
            self._drop_message()
            self._tell(message(b"E", without_field(fields, ord("D"))))
        if step.exchange is not None and not step.exceeded:
            step.exchange.status = status
        if step.kind in {QUERY, CALL, SYNC, FAILING_QUERY}:
            step.failed = True
            step.in_rows = False
            if step.exceeded:
                self._drop_message()
        else:
            self._fail_step(step, status)

    def _fail_step(self, step: Step, status: str) -> None:
        """A step failed upstream: the server skips all up to the next Sync."""
        if step.exceeded:
            self._drop_message()
        self._flight.popleft()
        self._answered(step)
        if step.unrun is not None and self._unrun.take(step):
            step.unrun.status, step.unrun.ended_ns = status, self._now
            self._record_unrun(step)
        self._release_names(step, done=False)
        self._drop_segment(status)

    def _ready(self) -> None:
        status = self._payload()
        if status not in {b"I", b"T", b"E"}:
            raise Malformed("a transaction status that is none")
        step = self._flight[0] if self._flight else None
        kind = 0 if step is None else step.kind
        if step is None or self._copy is not None or kind not in _ENDS:
            raise Malformed(UNASKED)
        if (kind == CALL and not (step.answered or step.failed)) or (
            kind == FAILING_QUERY and not step.failed
        ):
            raise Malformed("ReadyForQuery before an answer")
        before, self._status = self._status, status
        if kind == QUERY:
            self._statements.set(b"", None)
            self._portals.set(b"", None)
        if status == b"I":
            self._portals.clear()
        self._answered(step)
        self._release_names(step, done=True)
        if step.exceeded and status == b"T":
            self._drop_message()
            self._up.append(FAILING_QUERY_WIRE)
            self._flight[0] = Step(FAILING_QUERY, b"")
            return
        undone = kind == SYNC and step.failed and before == b"I"
        self._settle_all("its transaction was not committed" if undone else "")
        self._pop()

    def _end_exceeded(self, step: Step) -> None:
        """An Execute over its limit ended upstream: fail the server too, unless all is over."""
        self._drop_message()
        self._flight.popleft()
        self._answered(step)
        self._release_names(step, done=True)
        if not self._flight:
            self._up.append(FAILING_PARSE_WIRE)
            self._flight.append(Step(FAILING_PARSE, b""))
            self._segment_sent = self._flushed = True
            self._drop_waiting("54000")

    # COPY

    def _copy_begins(self) -> Step:
        step = self._front(QUERY, EXECUTE)
        fields = Fields(self._payload())
        fields.byte()
        for _ in range(fields.count()):
            fields.int16()
        fields.end()
        if self._copy is not None or step.in_rows or not step.fence:
            raise Malformed("a COPY that nobody asked for")
        return step

    def _copy_in(self) -> None:
        step = self._copy_begins()
        flight = self._flight
        while flight[-1] is not step:
            flight.pop()  # a Sync: the server does not look at it during COPY
        self._copy = Copying(step, inward=True, outward=False, hashed=True)

    def _copy_out(self) -> None:
        self._copy = Copying(self._copy_begins(), inward=False, outward=True, hashed=False)

    def _copy_both(self) -> None:
        if not self._opened.replication:
            self._drop_message()
            self._fail(Refusal(Reason.POLICY_DENIED, NOT_NORMAL))
            return
        step = self._copy_begins()
        self._copy = Copying(step, inward=True, outward=True, hashed=True, both=True)

    def _copy_done(self) -> None:
        copy = self._copy
        if copy is None or not copy.outward:
            raise Malformed(UNASKED)
        copy.outward = False
        if copy.step.exceeded:
            self._drop_message()

    def _end_copy(self, step: Step) -> None:
        copy, self._copy = self._copy, None
        exchange = step.exchange
        if copy is None or exchange is None:
            return
        if copy.hashed:
            exchange.request_bytes += copy.bytes_in
            exchange.notes += copy.notes()

    # what may come at any time

    def _notice(self) -> None:
        report_fields(self._payload())

    def _notification(self) -> None:
        fields = Fields(self._payload())
        fields.int32()
        fields.cstring()
        fields.cstring()
        fields.end()

    def _parameter_status(self) -> None:
        fields = Fields(self._payload())
        name, value = fields.text(), fields.text()
        fields.end()
        wanted = self._opened.pinned.get(name)
        if wanted is not None and not is_as_pinned(name, wanted, value):
            self._drop_message()
            text = f"the setting {name} changed, which is pinned for this session"
            self._fail(Refusal(Reason.POLICY_DENIED, text))

    def _upstream_ended(self) -> None:
        """The server ended the session."""
        for step in self._flight:
            if step.exchange is not None and self._fatal_status:
                self._conclude(
                    step.exchange,
                    Outcome.ABORTED,
                    Reason.UPSTREAM_CLOSED,
                    f"the server ended the session: {self._fatal_status}",
                )
        if self._fatal_status:
            self._finish(Reason.UPSTREAM_CLOSED)
        else:
            self._fail(Refusal(Reason.UPSTREAM_CLOSED, "the server closed the connection"))


_ENDS = frozenset({SYNC, QUERY, CALL, FAILING_QUERY})
