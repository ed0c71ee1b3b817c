"""Steady between scripted bytes or real clients and a real server, with everything else answered.

`Answers` says what the driver would say (classes, verdicts, records). `Wire` plays one session to
a server's Unix socket; `direct` plays the same bytes without us.
"""

import selectors
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.masking.scrubber import Scrubber
from agent.model.audit import OperationFinished
from agent.model.grant import PostgresOptions
from agent.model.ids import LeaseId, OperationId, SessionId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.model.sql import Classified
from agent.model.verdict import Verdict
from agent.protocols.postgres.messages import message, startup_message
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.sql import classify
from agent.protocols.postgres.steady import Steady
from agent.wire.commands import (
    Classify,
    Command,
    Finish,
    Judge,
    Pause,
    RecordDenied,
    RecordIntent,
    RecordOutcome,
    Resume,
    Send,
    SendApart,
    StopTaken,
)
from agent.wire.events import (
    Cut,
    Data,
    Eof,
    Event,
    Judged,
    Recorded,
    RecordFailed,
    SaidApart,
    TextClassified,
)
from agent.wire.relay import RelayContext
from agent.wire.side import Side
from tests.conformance.conductor import CANARY, allow, target

DOWN, UP = Side.DOWNSTREAM, Side.UPSTREAM
READ_BYTES = 64 * 1024
PATIENCE_S = 120.0  # with a server of a busy machine
_classes: dict[str, Classified] = {}


def class_of(text: str) -> Classified:
    """Classify, remembering."""
    found = _classes.get(text)
    if found is None:
        found = _classes[text] = classify(text)
        if len(_classes) > 20_000:
            _classes.clear()
    return found


def opened(**changes: object) -> Opened:
    """Return an opened session."""
    fields: dict[str, object] = {
        "user": "app",
        "database": "orders",
        "version": 0,
        "parameters": {"client_encoding": "UTF8", "standard_conforming_strings": "on"},
        "pinned": {"client_encoding": "UTF8", "standard_conforming_strings": "on"},
        "replication": "",
        "upstream": "192.0.2.1:5432",
        "lease_id": LeaseId("L" * 26),
        "scrubber": Scrubber((Secret(CANARY),)),
    }
    return Opened(**(fields | changes))  # type: ignore[arg-type]


@dataclass
class Answers:
    """What the driver and everyone behind it says."""

    verdict: Callable[[Operation], Verdict] = allow
    classify: Callable[[str], Classified | None] = class_of  # None: the test says when
    recorded: bool | None = True  # None: not yet; the test says when
    apart: Callable[[bytes], object] | None = lambda _: None  # None: the test says when it is over
    options: PostgresOptions = field(default_factory=PostgresOptions)
    opened: Opened = field(default_factory=opened)


class Play:
    """One Steady, its commands performed in memory. `problems` has broken promises."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.problems: list[str] = []
        self.down = bytearray()
        self.up = bytearray()
        self.judged: list[Operation] = []
        self.denied: list[RecordDenied] = []
        self.intents: list[RecordIntent] = []
        self.outcomes: list[OperationFinished] = []
        self.apart: list[bytes] = []
        self.stopped = 0
        self.finished: Reason | None = None
        self.paused = False
        self.now_ns = 1_000_000_000
        self._ids = 0
        self._events: deque[Event] = deque()
        context = RelayContext(
            SessionId("S" * 26),
            target("postgres", postgres=answers.options),
            self._new_id,
        )
        self.steady = Steady(context, answers.opened)
        self.unsettled: set[str] = set()
        self.waiting_records: list[OperationId] = []

    def _new_id(self) -> OperationId:
        self._ids += 1
        return OperationId(f"{self._ids:026d}")

    def give(self, event: Event) -> None:
        """Give an event, and the answers to what it causes."""
        self._events.append(event)
        while self._events and self.finished is None:
            event = self._events.popleft()
            self.now_ns += 1000
            for command in self.steady.handle(event, self.now_ns):
                self._perform(command)

    def record(self) -> None:
        """Answer the oldest record that waits."""
        self.give(Recorded(self.waiting_records.pop(0)))

    def loop(self, data: bytes, piece: int = READ_BYTES) -> None:
        """Let the loop send."""
        for at in range(0, len(data), piece):
            self.give(Data(DOWN, data[at : at + piece]))

    def server(self, data: bytes, piece: int = READ_BYTES) -> None:
        """Let the server send."""
        for at in range(0, len(data), piece):
            self.give(Data(UP, data[at : at + piece]))

    def eof(self, side: Side) -> None:
        """Let a side end."""
        self.give(Eof(side))

    def cut(self, reason: Reason = Reason.RUN_ENDED) -> None:
        """End it from outside."""
        self.give(Cut(reason))

    def running(self) -> bool:
        """Whether the session goes on."""
        return self.finished is None

    def reading(self) -> bool:
        """Whether the loop is read."""
        return not self.paused

    def take_up(self) -> bytes:
        """Return and forget what went upstream."""
        data = bytes(self.up)
        self.up.clear()
        return data

    def take_down(self) -> bytes:
        """Return and forget what went downstream."""
        data = bytes(self.down)
        self.down.clear()
        return data

    def check(self) -> None:
        """Assert that no promise was broken, and that what is over has its records."""
        assert not self.problems, self.problems
        if self.finished is not None:
            assert not self.unsettled, f"operations without an end: {self.unsettled}"

    def _perform(self, command: Command) -> None:  # noqa: C901, PLR0912 - one case a command
        if self.finished is not None:
            self.problems.append(f"{type(command).__name__} after Finish")
        match command:
            case Send(side, data):
                if not data:
                    self.problems.append("an empty Send")
                (self.down if side is DOWN else self.up).extend(data)
            case Classify(_, text):
                classified = self.answers.classify(text)
                if classified is not None:
                    self._events.append(TextClassified(text, classified))
            case Judge(operation):
                self.judged.append(operation)
                verdict = self.answers.verdict(operation)
                self._events.append(Judged(operation.operation_id, verdict))
            case RecordIntent(operation):
                self._intend(command, operation.operation_id)
            case RecordDenied(operation):
                self.denied.append(command)
                self.unsettled.discard(operation.operation_id)
            case RecordOutcome(finished):
                self.outcomes.append(finished)
                if finished.operation_id not in self.unsettled:
                    self.problems.append("an outcome without an open intent")
                self.unsettled.discard(finished.operation_id)
            case Pause():
                self.paused = True
            case Resume():
                self.paused = False
            case SendApart(_, _, data, _):
                self.apart.append(data)
                if self.answers.apart is not None:
                    self.answers.apart(data)
                    self._events.append(SaidApart())
            case StopTaken():
                self.stopped += 1
            case Finish(reason):
                self.finished = reason
            case _:
                self.problems.append(f"{type(command).__name__} is none of a steady session")

    def _intend(self, command: RecordIntent, operation_id: OperationId) -> None:
        self.intents.append(command)
        self.unsettled.add(operation_id)
        if self.answers.recorded is None:
            self.waiting_records.append(operation_id)
        elif self.answers.recorded:
            self._events.append(Recorded(operation_id))
        else:
            self._events.append(RecordFailed(operation_id))


# a real server


def ready_session(path: Path, user: str = "postgres", **parameters: str) -> socket.socket:
    """Return a session at a server's Unix socket, at its first ReadyForQuery."""
    return keyed_session(path, user, **parameters)[0]


def keyed_session(
    path: Path, user: str = "postgres", **parameters: str
) -> tuple[socket.socket, tuple[bytes, bytes]]:
    """Return a session as ready_session does, and its process id and cancel key."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE_S)
    sock.connect(str(path))
    asked = {"user": user, "database": "orders", "client_encoding": "UTF8", **parameters}
    sock.sendall(startup_message(3 << 16, asked.items()))
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I"):
        piece = sock.recv(READ_BYTES)
        assert piece, data
        data += piece
    (key,) = [payload for kind, payload in messages_of(data) if kind == ord("K")]
    return sock, (key[:4], key[4:])


def ends(data: bytes) -> int:
    """Return how many ReadyForQuery are in complete messages."""
    return sum(kind == ord("Z") for kind, _ in messages_of(data))


def messages_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return complete messages: type, payload."""
    found, at = [], 0
    while at + 5 <= len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        if end > len(data):
            break
        found.append((data[at], data[at + 5 : end]))
        at = end
    return found


Script = Sequence[tuple[bytes, int]]  # what is sent, and how many ReadyForQuery are awaited then


def direct(sock: socket.socket, script: Script) -> bytes:
    """Play a script to the server."""
    got = b""
    total = 0
    for data, awaited in script:
        sock.sendall(data)
        total += awaited
        while ends(got) < total:
            piece = sock.recv(READ_BYTES)
            if not piece:
                return got
            got += piece
    return got


class Wire:
    """A Play whose upstream is a real session."""

    def __init__(self, sock: socket.socket, answers: Answers, piece: int = READ_BYTES) -> None:
        self.play = Play(answers)
        self._sock = sock
        self._piece = piece

    def run(self, script: Script) -> bytes:
        """Play a script through us; return what the loop gets."""
        total = 0
        for data, awaited in script:
            self.play.loop(data, self._piece)
            total += awaited
            while True:
                up = self.play.take_up()
                if up:
                    self._sock.sendall(up)
                if self.play.finished is not None or ends(bytes(self.play.down)) >= total:
                    break
                piece = self._sock.recv(READ_BYTES)
                if not piece:
                    self.play.eof(UP)
                    break
                self.play.server(piece, self._piece)
        return bytes(self.play.down)


# real clients


class Proxy:
    """A listener for real clients, each with a Steady of its own, served while a program runs."""

    def __init__(self, folder: Path, server: Path, answers: Callable[[], Answers]) -> None:
        self.folder = folder
        self._server = server
        self._answers = answers
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = folder / ".s.PGSQL.5432"
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self.plays: list[Play] = []
        self.busy_s = 0.0

    def run(self, argv: Sequence[str], data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Serve while a program runs; return what it said."""
        import tempfile

        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as source:
            source.write(data)
            source.seek(0)
            with subprocess.Popen(argv, stdin=source, stdout=out, stderr=out) as process:
                while process.poll() is None:
                    for key, _ in self._selector.select(0.02):
                        key.data(key.fileobj)
            out.seek(0)
            return subprocess.CompletedProcess(list(argv), process.returncode, out.read())

    def close(self) -> None:
        """Forget all."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        startup = self._startup(client)
        if not startup:
            client.close()
            return
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(str(self._server))
        server.sendall(startup)
        data = b""
        while not data.endswith(b"Z\0\0\0\x05I"):
            piece = server.recv(READ_BYTES)
            data += piece
            if not piece:
                break
        client.sendall(data)
        if not data.endswith(b"Z\0\0\0\x05I"):
            client.close()
            server.close()
            return
        session = _Session(self, client, server, Play(self._answers()))
        self.plays.append(session.play)
        self._selector.register(client, selectors.EVENT_READ, session.from_client)
        self._selector.register(server, selectors.EVENT_READ, session.from_server)

    def _startup(self, client: socket.socket) -> bytes:
        while True:
            head = client.recv(8, socket.MSG_WAITALL)
            if len(head) < 8:
                return b""
            if int.from_bytes(head[4:], "big") in {80877103, 80877104}:
                client.sendall(b"N")
                continue
            size = int.from_bytes(head[:4], "big")
            return head + client.recv(size - 8, socket.MSG_WAITALL)

    def forget(self, *socks: socket.socket) -> None:
        """Close sockets."""
        for sock in socks:
            if sock.fileno() >= 0:
                self._selector.unregister(sock)
                sock.close()


class _Session:
    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket, play: Play
    ) -> None:
        self._proxy, self._client, self._upstream, self.play = proxy, client, server, play

    def from_client(self, sock: socket.socket) -> None:
        self._take(DOWN, sock)

    def from_server(self, sock: socket.socket) -> None:
        self._take(UP, sock)

    def _take(self, side: Side, sock: socket.socket) -> None:
        if sock.fileno() < 0:
            return
        data = sock.recv(READ_BYTES)
        begun = time.perf_counter()
        self.play.give(Data(side, data) if data else Eof(side))
        self._proxy.busy_s += time.perf_counter() - begun
        up, down = self.play.take_up(), self.play.take_down()
        if up:
            self._upstream.sendall(up)
        if down:
            self._client.sendall(down)
        if self.play.finished is not None:
            self._proxy.forget(self._client, self._upstream)


# messages


def query(text: str) -> bytes:
    """Return a Query."""
    return message(b"Q", text.encode() + b"\0")


def parse(text: str, name: str = "") -> bytes:
    """Return a Parse."""
    return message(b"P", name.encode() + b"\0" + text.encode() + b"\0" + bytes(2))


def bind(*values: str | None, name: str = "", portal: str = "") -> bytes:
    """Return a Bind of text values."""
    body = portal.encode() + b"\0" + name.encode() + b"\0" + bytes(2)
    body += len(values).to_bytes(2, "big")
    for value in values:
        data = b"" if value is None else value.encode()
        body += (-1 if value is None else len(data)).to_bytes(4, "big", signed=True) + data
    return message(b"B", body + bytes(2))


def execute(portal: str = "", most: int = 0) -> bytes:
    """Return an Execute."""
    return message(b"E", portal.encode() + b"\0" + most.to_bytes(4, "big"))


def describe(name: str = "", what: str = "P") -> bytes:
    """Return a Describe."""
    return message(b"D", what.encode() + name.encode() + b"\0")


def close(name: str = "", what: str = "S") -> bytes:
    """Return a Close."""
    return message(b"C", what.encode() + name.encode() + b"\0")


SYNC = b"S\0\0\0\4"
FLUSH = b"H\0\0\0\4"
DONE = b"c\0\0\0\4"
TERMINATE = b"X\0\0\0\4"


def copy_data(data: bytes) -> bytes:
    """Return a CopyData."""
    return message(b"d", data)


def whole(text: str, *values: str | None) -> bytes:
    """Return Parse, Bind, Describe, Execute of the unnamed."""
    return parse(text) + bind(*values) + describe() + execute()
