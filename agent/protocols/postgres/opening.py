"""The opening of a session, from the first byte to ReadyForQuery on both sides.

The way of a session: startup packets → what may be asked for is (replication is judged) → lease →
connection and record of the intent, side by side → TLS, verified, in the server's protocol → login
→ both sides ready. The loop proves nothing: the kernel has said who it is. A CancelRequest goes
the same way without a lease, and its sender is told nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from agent.model.ids import OperationId
from agent.model.reason import Reason
from agent.model.sql import Effect, Statement
from agent.model.verdict import Allow, Deny, Verdict
from agent.protocols.postgres.answers import OWN_SESSION, Refusal, Refused, of_malformed
from agent.protocols.postgres.cancel import CancelKeys
from agent.protocols.postgres.ending import DOWN, UP, Phase
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.limits import OPENING_S, OPENING_TIMER
from agent.protocols.postgres.opened import Opened as Opened
from agent.protocols.postgres.reaching import Reaching, Wish
from agent.protocols.postgres.settings import Settings, checked_database
from agent.protocols.postgres.startup import (
    CancelRequest,
    Goodbye,
    GssRequest,
    SslRequest,
    Startup,
)
from agent.wire.commands import (
    AskStop,
    Command,
    Judge,
    Pause,
    RecordIntent,
    Send,
    SetTimer,
    StartTls,
)
from agent.wire.events import (
    Cut,
    Data,
    Eof,
    Event,
    Judged,
    Leased,
    LeaseRefused,
    Recorded,
    RecordFailed,
    SaidApart,
    Started,
    StopAnswered,
    StopAsked,
    TextClassified,
    TimedOut,
    TlsStarted,
    UpstreamFailed,
    UpstreamOpened,
)

_ATTRIBUTE_CHARACTERS_MAX = 256


class Opening(Reaching):
    """Gets events until `opened` is set or Finish was commanded."""

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        if self._phase in {Phase.OPENED, Phase.FINISHED}:
            return ()
        self._out = []
        self._now = now_ns
        try:
            self._take(event)
        except Refused as error:
            self._refuse(error.refusal)
        except Malformed as error:
            upstream = isinstance(event, Data) and event.side is UP
            self._refuse(of_malformed(error, upstream=upstream))
        return self._out

    def _take(self, event: Event) -> None:
        match event:
            case Started(tls_name):
                self._started(tls_name)
            case Data(side, data):
                if side is DOWN:
                    self._downstream_data(data)
                else:
                    self._upstream_data(data)
            case Eof(side):
                self._ended(side)
            case UpstreamOpened(address):
                self._upstream_opened(address)
            case UpstreamFailed(reason, detail):
                self._upstream_failed(reason, detail)
            case TlsStarted(side, binding):
                self._tls_started(side, binding)
            case TimedOut(name):
                self._timed_out(name)
            case Cut(reason):
                self._cut(reason)
            case TextClassified() | SaidApart() | StopAsked():
                pass  # nothing was asked yet
            case _:
                self._answered(event)

    def _answered(
        self, event: Judged | Recorded | RecordFailed | Leased | LeaseRefused | StopAnswered
    ) -> None:
        """Take the answer to a question; one that was not asked is nobody's."""
        match event:
            case Judged(operation_id, verdict):
                if self._phase is Phase.JUDGING and self._is_ours(operation_id):
                    self._judged(verdict)
            case Leased(lease):
                if self._phase is Phase.LEASING:
                    self._leased(lease)
            case LeaseRefused(detail):
                if self._phase is Phase.LEASING:
                    text = "No credential was leased."
                    raise Refused(Refusal(Reason.LEASE_REFUSED, text, detail=f"{detail}."))
            case Recorded(operation_id):
                if self._is_ours(operation_id):
                    self._intent_recorded()
            case RecordFailed(operation_id):
                if self._is_ours(operation_id):
                    self._intent_failed()
            case StopAnswered(taken):
                self._stop_answered(taken=taken)
            case _:
                assert_never(event)

    def _is_ours(self, operation_id: OperationId) -> bool:
        return self._operation is not None and self._operation.operation_id == operation_id

    # downstream: startup packets

    def _started(self, tls_name: str | None) -> None:
        self._out.append(SetTimer(OPENING_TIMER, OPENING_S))
        if tls_name is None:
            return
        self._intake.under_tls()
        if tls_name and tls_name.lower().removesuffix(".") != self._target.host:
            text = "The connection's TLS name is not this target's."
            self._refuse(Refusal(Reason.DESTINATION_MISMATCH, text))

    def _downstream_data(self, data: bytes) -> None:
        if self._cancel is not None:
            return  # nothing may follow a CancelRequest, and nothing of it counts
        self._intake.add(data)
        if self._phase is Phase.PACKETS:
            self._packets()
        elif self._phase is Phase.DOWNSTREAM_TLS:
            raise Malformed("bytes in clear after it asked for TLS")
        else:
            self._hold()

    def _hold(self) -> None:
        """Drop passwords that nobody asked for, and bound what waits for the steady half."""
        self._intake.drop_passwords()
        if self._intake.overflows:
            self._cut(Reason.OVERLOADED)
        elif self._intake.is_full and not self._intake.paused:
            self._intake.paused = True
            self._out.append(Pause(DOWN))

    def _packets(self) -> None:
        while self._phase is Phase.PACKETS and (packet := self._intake.next_packet()) is not None:
            match packet:
                case SslRequest():
                    self._phase = Phase.DOWNSTREAM_TLS
                    self._out += (Send(DOWN, b"S"), StartTls(DOWN))
                case GssRequest():
                    self._out.append(Send(DOWN, b"N"))
                case Goodbye():
                    self._leave(Reason.DOWNSTREAM_CLOSED)
                case CancelRequest():
                    self._cancelling(packet)
                case Startup():
                    self._begin(packet)
                case _:
                    assert_never(packet)

    def _begin(self, startup: Startup) -> None:
        """Check what the loop asks for, and go for it."""
        if startup.major != 3:
            text = f"Version {startup.major} of the protocol is not spoken here."
            raise Refused(Refusal(Reason.PROTOCOL_ERROR, text, sqlstate="0A000"))
        asked = dict(startup.parameters)
        shown = tuple(
            (name, asked.get(key, "")[:_ATTRIBUTE_CHARACTERS_MAX])
            for name, key in (("asked-user", "user"), ("application", "application_name"))
        )
        attributes = (*shown, ("protocol", f"3.{startup.minor}"))
        named = asked.get("database") or asked.get("user", "")
        self._operate("CONNECT", named[:_ATTRIBUTE_CHARACTERS_MAX], attributes)
        settings = Settings(self._options, startup.parameters)
        database = checked_database(self._options, settings.database)
        self._wish = Wish(startup, settings, database)
        self._operate("CONNECT", database, attributes)
        self._hold()
        if self._phase is not Phase.PACKETS:
            return
        if settings.replication:
            self._judge_replication(settings.replication)
        else:
            self._rule = OWN_SESSION
            self._lease()

    def _judge_replication(self, kind: str) -> None:
        assert self._operation is not None
        statement = Statement("REPLICATION", frozenset({Effect.ADMIN}))
        self._operation = replace(
            self._operation,
            verb="REPLICATION",
            attributes=(*self._operation.attributes, ("replication", kind)),
            statements=(statement,),
        )
        self._phase = Phase.JUDGING
        self._out.append(Judge(self._operation))

    def _judged(self, verdict: Verdict) -> None:
        match verdict:
            case Allow(rule):
                self._rule = rule
                self._lease()
            case Deny(rule, reason, explanation, next_step):
                self._rule = rule
                text = f"A replication session is refused: {explanation}"
                raise Refused(Refusal(reason, text, rule, next_step=next_step, sqlstate="42501"))
            case _:
                assert_never(verdict)

    def _cancelling(self, packet: CancelRequest) -> None:
        """Map the key back; without a key for this run there is nothing to map."""
        self._mute = True
        self._intake.take_rest()
        key = self._context.run_key
        if not key:
            self._finish(Reason.DONE)
            return
        self._cancel = replace(packet, key=CancelKeys(key).upstream(packet.pid, packet.key))
        self._rule = OWN_SESSION
        self._operate("CANCEL", "", (("pid", str(int.from_bytes(packet.pid, "big"))),))
        self._phase = Phase.STOPPING
        self._out.append(AskStop(self._cancel.pid + self._cancel.key))

    def _stop_answered(self, *, taken: bool) -> None:
        """What a session of ours held is stopped by now; else the server may be at it."""
        if self._phase is not Phase.STOPPING:
            return
        if not taken:
            self._reach()
            return
        assert self._operation is not None
        self._intended = True
        self._out.append(RecordIntent(self._operation, self._rule, self._lease_id))
        self._cancelled()
