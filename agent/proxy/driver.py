"""The driver: performs a relay's commands on two channels, and tells it what happened.

One driver a session. A turn feeds events to the relay until there are none, gathers what is to be
sent to each side, and writes it once. What a relay asks of others (broker, reporter, dialling)
is answered by an event of a later turn.
"""

import asyncio
import collections
import logging
from typing import assert_never

from agent.model.credential import ClientCertificate
from agent.model.ids import OperationId, RuleId, TargetName
from agent.model.lease import Lease
from agent.model.reason import Reason
from agent.model.sql import Classified
from agent.model.verdict import Deny, Verdict
from agent.policy.evaluate import evaluate
from agent.proxy.channel import FLUSH_S, HOLD_PRESSURE, HOLD_RELAY, Channel
from agent.proxy.intents import Intents
from agent.proxy.leases import take_lease
from agent.proxy.leaves import NoLeaf
from agent.proxy.pool import PoolKey, Upstream
from agent.proxy.services import Services
from agent.proxy.session import Session, State
from agent.proxy.stops import ask_others
from agent.proxy.texts import Texts
from agent.proxy.upgrade import hand_over, secure_downstream, server_end_point
from agent.proxy.upstream import Unreachable
from agent.runtime.clock import monotonic_ns, unix_ms
from agent.wire.commands import (
    AnswerTo,
    AskStop,
    Classify,
    CloseUpstream,
    Command,
    Finish,
    Judge,
    OpenUpstream,
    Pause,
    RecordDenied,
    RecordIntent,
    RecordOutcome,
    RequestLease,
    Resume,
    Send,
    SendApart,
    SetTimer,
    StartTls,
    StopTaken,
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
from agent.wire.relay import Relay
from agent.wire.side import Side

TIMERS_MAX = 16  # named timers of a session; one past it ends the session
CUT_FLUSH_S = 0.025  # how long a cut session's last word may take
EXPIRED = Deny(
    RuleId("grant-expired"),
    Reason.POLICY_DENIED,
    "the grant of this session has expired",
    "Connect again: a new session gets a new grant, if the policy still has one.",
)

DOWN = Side.DOWNSTREAM
logger = logging.getLogger(__name__)


class Driver:
    """Owner of a session's two channels."""

    def __init__(
        self,
        services: Services,
        session: Session,
        relay: Relay,
        downstream: Channel,
        alpn: tuple[str, ...],
    ) -> None:
        """alpn: what the protocol is called in TLS; the first is what we ask of the upstream."""
        if session.grant is None:
            raise AssertionError("a session without a grant has no relay")
        self._services = services
        self.session = session
        self._grant = session.grant
        self._target = session.grant.target
        self._relay = relay
        self._downstream = downstream
        self._upstream: Upstream | None = None
        self._upstream_key: PoolKey | None = None
        self._lease: Lease | None = None
        self._events: collections.deque[Event] = collections.deque()
        self._feeding = False
        self._down: list[bytes] = []
        self._up: list[bytes] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._intents = Intents(
            services.recorder,
            session,
            session.grant.target,
            self._intended,
            services.sessions.operations,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._alpn = alpn
        self._texts = Texts(services.classifier, session.run_id, self._classified)
        self._draining = False
        self._answers_to = b""  # the name by which others of this run may ask it to stop
        self._stop_taken = False
        self._flush_s = FLUSH_S
        self.finished = False

    # what happens

    def start(self, tls_name: str | None, first: bytes) -> None:
        """Begin with what was read before there was a driver."""
        self._downstream.owner = self
        self._events.append(Started(tls_name))
        if first:
            self._events.append(Data(Side.DOWNSTREAM, first))
        if self._downstream.has_ended:
            self._events.append(Eof(Side.DOWNSTREAM))
        self._turn()

    def arrived(self, channel: Channel, data: bytes) -> None:
        """See channel.Owner."""
        self._services.peers.look(monotonic_ns())
        self._feed(Data(channel.side, data))

    def ended(self, channel: Channel, *, clean: bool) -> None:
        """See channel.Owner. An answer that was cut off must not pass for a complete one."""
        if channel.side is Side.DOWNSTREAM and not channel.established:
            self.end(Reason.TLS_FAILED)
        elif clean or channel.side is Side.DOWNSTREAM:
            self._feed(Eof(channel.side))
        else:
            self._feed(UpstreamFailed(Reason.UPSTREAM_CLOSED, "the upstream was cut off"))

    def lost(self, channel: Channel) -> None:
        """See channel.Owner. An upstream that is gone is given up by the relay (Eof came)."""
        if channel.side is Side.DOWNSTREAM:
            self.end(Reason.DOWNSTREAM_CLOSED)

    def pressed(self, channel: Channel, *, high: bool) -> None:
        """See channel.Owner."""
        other = self._downstream
        if channel.side is Side.DOWNSTREAM:
            if self._upstream is None:
                return
            other = self._upstream.channel
        if high:
            other.hold(HOLD_PRESSURE)
        else:
            other.release(HOLD_PRESSURE)

    def cut(self, reason: Reason) -> None:
        """End now with this cause; the relay may say a last word."""
        self._flush_s = CUT_FLUSH_S
        if self._upstream is not None:
            self._upstream.channel.sever()
        self._feed(Cut(reason))
        self.end(reason)

    def stop(self, target: TargetName, name: bytes) -> bool:
        """Give up what the relay holds, if it answers to this name; whether there was something."""
        if self._answers_to != name or not name or self._target.name != target:
            return False
        self._stop_taken = False
        self._feed(StopAsked())
        return self._stop_taken

    def drain(self) -> None:
        """End when no operation is under way."""
        self._draining = True
        self._drain_if_idle()

    def end(self, reason: Reason) -> None:
        """Close both sides and the accounts, once."""
        if self.finished:
            return
        self.finished = True
        self._flush()
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._timers.clear()
        self._events.clear()
        self._leave_upstream(reusable=False)
        self._downstream.close(self._flush_s)
        self._intents.settle(reason)
        self._lease = None
        self._services.sessions.closed(self, reason)

    # the turn

    def _feed(self, event: Event) -> None:
        if self.finished:
            return
        self._events.append(event)
        if not self._feeding:
            self._turn()

    def _turn(self) -> None:
        self._feeding = True
        events = self._events
        handle = self._relay.handle
        try:
            while events:
                for command in handle(events.popleft(), monotonic_ns()):
                    if self.finished:
                        raise AssertionError(f"{type(command).__name__} after Finish")
                    # isinstance, in order of frequency: half the cost of a match of classes
                    if isinstance(command, Send):
                        (self._down if command.side is DOWN else self._up).append(command.data)
                    elif isinstance(command, Judge):
                        self._judge(command)
                    elif isinstance(command, RecordIntent):
                        self._intents.intend(command)
                    elif isinstance(command, RecordOutcome):
                        self._intents.finish(command.finished)
                    else:
                        self._perform_rare(command)
        except Exception:
            # a fault of ours: nothing of the session can be trusted to go on
            logger.exception("session %s: the relay failed", self.session.session_id)
            self.end(Reason.INTERNAL)
        finally:
            self._feeding = False
        if self._down or self._up:
            self._flush()
        if self._draining:
            self._drain_if_idle()

    def _drain_if_idle(self) -> None:
        if self._intents or self.finished:
            return
        self._draining = False
        self._feed(Cut(Reason.DRAINING))
        self.end(Reason.DRAINING)

    def _perform_rare(self, command: Command) -> None:  # noqa: C901, PLR0912 - one case each
        """Perform what does not come with every request."""
        match command:
            case SetTimer(name, delay_s):
                self._set_timer(name, delay_s)
            case Pause(side):
                self._flush()
                self._hold(side)
            case Resume(side):
                self._release(side)
            case RecordDenied():
                self._intents.deny(command)
            case Classify(dialect, text):
                self._texts.classify(dialect, text)
            case StartTls(side):
                self._hold(side)  # before our word goes out: a ClientHello follows at once
                self._flush()
                self._spawn(self._secure_downstream() if side is DOWN else self._secure_upstream())
            case RequestLease():
                self._spawn(self._request_lease(command))
            case OpenUpstream(clear):
                self._open_upstream(clear=clear)
            case CloseUpstream(reusable):
                self._flush()
                self._leave_upstream(reusable=reusable)
            case SendApart():
                self._services.apart.send(
                    self._target, self._alpn[:1], command, lambda: self._feed(SaidApart())
                )
            case AnswerTo(name):
                self._answers_to = name
            case AskStop(name):
                self._spawn(self._ask_stop(name))
            case StopTaken():
                self._stop_taken = True
            case Finish(reason):
                self.end(reason)
            case Send() | Judge() | RecordIntent() | RecordOutcome():
                raise AssertionError("it comes with every request")
            case _:
                assert_never(command)

    def _flush(self) -> None:
        if self._down:
            data = self._down[0] if len(self._down) == 1 else b"".join(self._down)
            self._down.clear()
            self.session.downstream_bytes += len(data)
            self._downstream.send(data)
        if self._up:
            data = self._up[0] if len(self._up) == 1 else b"".join(self._up)
            self._up.clear()
            if self._upstream is not None:
                self.session.upstream_bytes += len(data)
                self._upstream.channel.send(data)

    # the commands

    def _judge(self, command: Judge) -> None:
        expires_ms = self._grant.expires_ms
        if expires_ms and unix_ms() >= expires_ms:
            verdict: Verdict = EXPIRED
        else:
            verdict = evaluate(self._grant, command.operation)
        self._events.append(Judged(command.operation.operation_id, verdict))

    def _intended(self, operation_id: OperationId, *, durable: bool) -> None:
        self._feed(Recorded(operation_id) if durable else RecordFailed(operation_id))

    def _set_timer(self, name: str, delay_s: float | None) -> None:
        running = self._timers.pop(name, None)
        if running is not None:
            running.cancel()
        if delay_s is None:
            return
        if len(self._timers) >= TIMERS_MAX:
            raise AssertionError(f"more than {TIMERS_MAX} timers")
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, self._timed_out, name)

    def _timed_out(self, name: str) -> None:
        self._timers.pop(name, None)
        self._feed(TimedOut(name))

    def _hold(self, side: Side) -> None:
        if side is Side.DOWNSTREAM:
            self._downstream.hold(HOLD_RELAY)
        elif self._upstream is not None:
            self._upstream.channel.hold(HOLD_RELAY)

    def _release(self, side: Side) -> None:
        if side is Side.DOWNSTREAM:
            self._downstream.release(HOLD_RELAY)
        elif self._upstream is not None:
            self._upstream.channel.release(HOLD_RELAY)

    # what takes time

    def _spawn(self, work: collections.abc.Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A task that failed without an answer would leave the relay waiting: end the session."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("session %s: a task failed", self.session.session_id, exc_info=error)
            self.end(Reason.INTERNAL)

    async def _request_lease(self, command: RequestLease) -> None:
        answer = await take_lease(self._services.peers, self.session, command.accepts)
        if self.finished:
            return
        if isinstance(answer, LeaseRefused):
            self._feed(answer)
            return
        self._lease = answer
        if self.session.state is State.AUTHORIZED:
            self.session.become(State.LEASED)
        self._feed(Leased(answer))

    async def _ask_stop(self, name: bytes) -> None:
        run_id, target = self.session.run_id, self._target.name
        taken = self._services.sessions.stop(run_id, target, name)
        if not taken:
            taken = await ask_others(self._services.peers, self.session.session_id, name)
        self._feed(StopAnswered(taken))

    def _open_upstream(self, *, clear: bool) -> None:
        self._leave_upstream(reusable=False)
        self._upstream_key = None
        if not clear and (self._lease is not None or self._target.shape is None):
            pooled = self._services.pool.take(self._pool_key())
            if pooled is not None:
                self._opened(pooled)
                return
        self._spawn(self._dial(clear=clear))

    async def _dial(self, *, clear: bool) -> None:
        dialler = self._services.dialler
        try:
            upstream = await dialler.open(
                self._target, self._alpn[:1], clear=clear, certificate=self._certificate()
            )
        except Unreachable as error:
            self._feed(UpstreamFailed(error.reason, error.detail))
            return
        if self.finished:
            upstream.channel.abort()
            return
        self._opened(upstream)
        if not self._feeding:
            self._turn()

    async def _secure_downstream(self) -> None:
        """Put TLS between us and the loop: what was read so far was in clear."""
        clear = self._downstream
        try:
            channel = await secure_downstream(
                self._services.leaves,
                self._target.host,
                self._alpn,
                self.session.run_id,
                self,
                lambda: self._feed(TlsStarted(Side.DOWNSTREAM)),
            )
        except NoLeaf as error:
            logger.warning("session %s: %s", self.session.session_id, error)
            self.end(Reason.TLS_FAILED)
            return
        if not self.finished:
            self._downstream = channel
            hand_over(clear, channel)

    async def _secure_upstream(self) -> None:
        """Put TLS between us and the server, and verify it."""
        before = self._upstream
        if before is None:
            self._feed(UpstreamFailed(Reason.UPSTREAM_CLOSED, "there is no upstream any more"))
            return
        dialler = self._services.dialler
        try:
            upstream = await dialler.secure(
                before.channel, self._target, self._alpn[:1], self._certificate()
            )
        except Unreachable as error:
            self._feed(UpstreamFailed(error.reason, error.detail))
            return
        if self.finished or self._upstream is not before:
            upstream.channel.abort()
            return
        upstream.address = before.address
        binding = server_end_point(upstream.channel)
        self._take_upstream(upstream, TlsStarted(Side.UPSTREAM, binding))
        if not self._feeding:
            self._turn()

    def _certificate(self) -> ClientCertificate | None:
        credential = None if self._lease is None else self._lease.credential
        return credential if isinstance(credential, ClientCertificate) else None

    def _classified(self, text: str, classified: Classified) -> None:
        """Tell the relay, in this turn or in one of its own."""
        self._feed(TextClassified(text, classified))

    def _opened(self, upstream: Upstream) -> None:
        encrypted = upstream.channel.encrypted
        self._take_upstream(
            upstream, UpstreamOpened(upstream.address, encrypted, reused=upstream.reused)
        )

    def _take_upstream(self, upstream: Upstream, opened: UpstreamOpened | TlsStarted) -> None:
        self._upstream = upstream
        channel = upstream.channel
        channel.owner = self
        self._events.append(opened)
        if upstream.early:
            self._events.append(Data(Side.UPSTREAM, upstream.early))
            upstream.early = b""
        if channel.has_ended:
            self._events.append(Eof(Side.UPSTREAM))

    def _pool_key(self) -> PoolKey:
        lease_id = None if self._lease is None else self._lease.lease_id
        return PoolKey(self.session.run_id, lease_id, self._target.name, self._grant.revision)

    def _leave_upstream(self, *, reusable: bool) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        self._downstream.release(HOLD_PRESSURE)
        upstream.channel.release(HOLD_RELAY | HOLD_PRESSURE)
        if reusable and not self.finished:
            self._services.pool.give(self._pool_key(), upstream)
        else:
            upstream.channel.abort()
