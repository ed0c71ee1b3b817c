"""Plays the driver for one relay, without I/O, and checks the relay contract at every command."""

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.model.audit import OperationFinished
from agent.model.credential import Bearer, Credential, Shape
from agent.model.grant import Durability, Target, UpstreamTls
from agent.model.ids import LeaseId, OperationId, RuleId, RunId, SessionId, TargetName
from agent.model.lease import Lease
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.model.sql import Classified, unknown
from agent.model.verdict import Allow, Deny, Verdict
from agent.wire.commands import (
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
    TextClassified,
    TimedOut,
    TlsStarted,
    UpstreamFailed,
    UpstreamOpened,
)
from agent.wire.relay import ProtocolSpec, RelayContext
from agent.wire.side import Side

CANARY = b"canary-0d4f1b7e9a26c853"
NS_PER_S = 1_000_000_000
READ_BYTES = 64 * 1024
RUN_KEY = bytes(range(32))
UNIX_MS = 1_800_000_000_000
RULE = RuleId("loop/0")
OWN_SESSION = RuleId("own-session")  # what no rule decides: it belongs to an allowed session


def target(protocol: str = "http", **changes: object) -> Target:
    """Return a target of this protocol, as the policy would compile it."""
    fields: dict[str, object] = {
        "name": TargetName("orders"),
        "protocol": protocol,
        "host": "api.example.com",
        "port": 443,
        "tls": UpstreamTls.VERIFY_FULL,
        "ca_pem": "",
        "dial_host": "api.example.com",
        "dial_port": 443,
        "allow_cleartext": False,
        "durability": Durability.DISK,
        "synthetic4": "198.18.0.1",
        "synthetic6": "fd00::1",
        "shape": Shape.BEARER,
    }
    return Target(**(fields | changes))  # type: ignore[arg-type]


def lease(credential: Credential | None = None, name: str = "orders") -> Lease:
    """Return a lease whose secret is CANARY."""
    credential = credential or Bearer(Secret(CANARY))
    return Lease(LeaseId("L" * 26), RunId("R" * 26), TargetName(name), credential, 0, True)


def allow(_: Operation) -> Verdict:
    """Allow all."""
    return Allow(RULE)


def deny(_: Operation) -> Verdict:
    """Deny all."""
    return Deny(RuleId("loop/1"), Reason.POLICY_DENIED, "Not allowed.", "Ask for it.")


def no_idle(_: bytes) -> bool:
    """Every byte upstream belongs to an operation."""
    return False


def none_ahead(_: Operation) -> bool:
    """Every operation that is judged is made, or refused."""
    return False


def silent(_: bytes) -> bytes:
    """Stand for a server that reads all and says nothing."""
    return b""


@dataclass
class World:
    """What answers the relay's questions."""

    target: Target = field(default_factory=target)
    tls_name: str | None = "api.example.com"
    verdict: Callable[[Operation], Verdict | None] = allow  # None: not yet
    lease: Lease | str | None = field(default_factory=lease)  # text: refused; None: not yet
    opened: UpstreamOpened | UpstreamFailed | None = field(
        default_factory=lambda: UpstreamOpened("192.0.2.1:443", encrypted=True)
    )
    recorded: bool | None = True  # None: not yet
    tls: bool = True  # whether StartTls succeeds
    binding: bytes | None = b"tls-server-end-point of the tests"
    classify: Callable[[str], Classified | None] | None = None  # None: as the protocol says
    idle: Callable[[bytes], bool] = no_idle  # bytes upstream that carry no operation
    ahead: Callable[[Operation], bool] = none_ahead  # judged before it is asked to be made
    run_key: bytes = RUN_KEY
    holding: bytes = b""  # the name of a session that holds what may be stopped
    server: Callable[[bytes], bytes] = silent
    server_piece: int = READ_BYTES


class Conductor:
    """One session of one relay. `problems` is empty as long as the contract is kept."""

    def __init__(self, spec: ProtocolSpec, world: World) -> None:
        self.world = world
        self.commands: list[Command] = []
        self.problems: list[str] = []
        self.now_ns = NS_PER_S
        self._ids = 0
        self._events: deque[Event] = deque()
        self._waiting = bytearray()
        self.paused = False
        self.finished: Reason | None = None
        self._open = False
        self._allowed: set[str] = set()
        self._recorded: set[str] = set()
        self._ended: dict[str, int] = {}
        self._asked: dict[str, Operation] = {}
        self._drawn = 0
        self._classify = world.classify or spec.classify or (lambda _: unknown("no classifier"))
        context = RelayContext(
            SessionId("S" * 26),
            world.target,
            self._new_id,
            self._random,
            world.run_key,
            lambda: UNIX_MS,
        )
        self.relay = spec.relay(context)
        self.give(Started(world.tls_name))

    def _new_id(self) -> OperationId:
        self._ids += 1
        return OperationId(f"{self._ids:026d}")

    def _random(self, count: int) -> bytes:
        """Return bytes that are the same in each play."""
        self._drawn += 1
        seed = hashlib.sha256(b"%d" % self._drawn).digest()
        return (seed * (count // len(seed) + 1))[:count]

    # what happens

    def give(self, event: Event) -> None:
        """Give an event, and the answers to what it causes."""
        self._events.append(event)
        while self._events:
            event = self._events.popleft()
            if self.finished is not None:
                continue
            for command in self.relay.handle(event, self.now_ns):
                self._perform(command)

    def down(self, data: bytes, piece: int = READ_BYTES) -> None:
        """Let the loop send bytes, in pieces, as far as the relay reads."""
        self._waiting += data
        while self._waiting and not self.paused and self.finished is None:
            part = bytes(self._waiting[:piece])
            del self._waiting[:piece]
            self.give(Data(Side.DOWNSTREAM, part))

    def up(self, data: bytes, piece: int = READ_BYTES) -> None:
        """Let the server send bytes, in pieces."""
        for at in range(0, len(data), piece):
            self.give(Data(Side.UPSTREAM, data[at : at + piece]))

    def down_eof(self) -> None:
        """Let the loop end."""
        self.give(Eof(Side.DOWNSTREAM))

    def up_eof(self) -> None:
        """Let the server end."""
        self.give(Eof(Side.UPSTREAM))

    def cut(self, reason: Reason = Reason.RUN_ENDED) -> None:
        """End the session from outside."""
        self.give(Cut(reason))

    def wait(self, seconds: float) -> None:
        """Let time pass, and the relay's timer run out."""
        self.now_ns += int(seconds * NS_PER_S)
        for name in {command.name for command in self.commands if isinstance(command, SetTimer)}:
            self.give(TimedOut(name))

    # what came of it

    def sent(self, side: Side) -> bytes:
        """Return all bytes sent to a side."""
        return b"".join(c.data for c in self.commands if isinstance(c, Send) and c.side is side)

    @property
    def to_loop(self) -> bytes:
        """All bytes sent to the loop."""
        return self.sent(Side.DOWNSTREAM)

    @property
    def to_server(self) -> bytes:
        """All bytes sent to the server."""
        return self.sent(Side.UPSTREAM)

    @property
    def denied(self) -> list[RecordDenied]:
        """The refusals recorded."""
        return [command for command in self.commands if isinstance(command, RecordDenied)]

    @property
    def outcomes(self) -> list[OperationFinished]:
        """The outcomes recorded."""
        return [c.finished for c in self.commands if isinstance(c, RecordOutcome)]

    @property
    def judged(self) -> list[Operation]:
        """The operations that were asked about."""
        return [command.operation for command in self.commands if isinstance(command, Judge)]

    def running(self) -> bool:
        """Whether the session goes on."""
        return self.finished is None

    def check_ended(self) -> None:
        """Assert the contract of a session that is over."""
        assert not self.problems, self.problems
        assert sum(isinstance(command, Finish) for command in self.commands) == 1
        assert isinstance(self.commands[-1], Finish)
        intended = {c.operation.operation_id for c in self.commands if isinstance(c, RecordIntent)}
        assert all(count == 1 for count in self._ended.values()), self._ended
        asked = {name for name, each in self._asked.items() if not self.world.ahead(each)}
        assert intended | asked <= set(self._ended), "an operation without an end"

    def _perform(self, command: Command) -> None:  # noqa: PLR0912 - one case a command
        if self.finished is not None:
            self.problems.append(f"{command!r} after Finish")
        self.commands.append(command)
        if CANARY in repr(command).encode():
            self.problems.append(f"the secret is in the repr of {type(command).__name__}")
        self._note(command)
        match command:
            case Send():
                self._send(command)
            case Judge(operation):
                verdict = self.world.verdict(operation)
                if verdict is not None:
                    self.answer_judge(operation, verdict)
            case RecordIntent(operation, rule):
                self._intend(operation, rule)
            case RequestLease():
                self._lease()
            case OpenUpstream():
                self._open_upstream()
            case AskStop(name):
                self._events.append(StopAnswered(taken=name == self.world.holding))
            case SendApart():
                self._events.append(SaidApart())
            case StartTls(side):
                self._start_tls(side)
            case Classify(_, text):
                classified = self._classify(text)
                if classified is not None:
                    self._events.append(TextClassified(text, classified))
            case _:
                pass

    def _note(self, command: Command) -> None:
        match command:
            case Judge(operation):
                self._asked[operation.operation_id] = operation
            case RecordDenied(operation):
                self._end(operation.operation_id)
            case RecordOutcome(finished):
                self._end(finished.operation_id)
            case CloseUpstream():
                self._open = False
            case Pause(side) if side is Side.DOWNSTREAM:
                self.paused = True
            case Resume(side) if side is Side.DOWNSTREAM:
                self.paused = False
            case Finish(reason):
                self.finished = reason
            case _:
                pass

    def answer_judge(self, operation: Operation, verdict: Verdict) -> None:
        """Answer a Judge now."""
        if isinstance(verdict, Allow):
            self._allowed.add(operation.operation_id)
        self._events.append(Judged(operation.operation_id, verdict))

    def _send(self, command: Send) -> None:
        if not command.data:
            self.problems.append("an empty Send")
        if command.side is Side.DOWNSTREAM:
            if CANARY in command.data:
                self.problems.append("the secret went downstream")
            return
        if not self._open:
            self.problems.append("bytes upstream without an upstream")
        if not self._recorded - set(self._ended) and not self.world.idle(command.data):
            self.problems.append("bytes upstream without a recorded operation under way")
        answer = self.world.server(command.data)
        piece = self.world.server_piece
        for at in range(0, len(answer), piece):
            self._events.append(Data(Side.UPSTREAM, answer[at : at + piece]))

    def _start_tls(self, side: Side) -> None:
        if side is Side.UPSTREAM and not self._open:
            self.problems.append("TLS without an upstream")
        if self.world.tls:
            binding = self.world.binding if side is Side.UPSTREAM else None
            self._events.append(TlsStarted(side, binding))
        elif side is Side.UPSTREAM:
            text = "the target's certificate does not verify"
            self._events.append(UpstreamFailed(Reason.UPSTREAM_UNTRUSTED, text))

    def _intend(self, operation: Operation, rule: RuleId = RULE) -> None:
        if operation.operation_id not in self._allowed and rule != OWN_SESSION:
            self.problems.append("an intent that was not allowed")
        if self.world.recorded is None:
            return
        if self.world.recorded:
            self._recorded.add(operation.operation_id)
            self._events.append(Recorded(operation.operation_id))
        else:
            self._events.append(RecordFailed(operation.operation_id))

    def _end(self, operation_id: str) -> None:
        self._ended[operation_id] = self._ended.get(operation_id, 0) + 1

    def _lease(self) -> None:
        match self.world.lease:
            case None:
                pass
            case str(detail):
                self._events.append(LeaseRefused(detail))
            case found:
                self._events.append(Leased(found))

    def _open_upstream(self) -> None:
        if self._open:
            self.problems.append("OpenUpstream while one is open")
        if self.world.opened is not None:
            self._open = isinstance(self.world.opened, UpstreamOpened)
            self._events.append(self.world.opened)
