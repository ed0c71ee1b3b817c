"""A real client, the whole relay, a real server: sockets both ways, one session after another."""

import hashlib
import secrets
import select
import socket
import ssl
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, field

from agent.model.grant import Target
from agent.model.ids import OperationId, SessionId
from agent.model.lease import Lease
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.verdict import Verdict
from agent.protocols.postgres import SPEC
from agent.wire.commands import (
    AskStop,
    Classify,
    Command,
    Finish,
    Judge,
    OpenUpstream,
    RecordIntent,
    RequestLease,
    Send,
    StartTls,
)
from agent.wire.events import (
    Data,
    Eof,
    Event,
    Judged,
    Leased,
    Recorded,
    Started,
    StopAnswered,
    TextClassified,
    TlsStarted,
    UpstreamOpened,
)
from agent.wire.relay import RelayContext
from agent.wire.side import Side
from tests.conformance.conductor import allow
from tests.servers.certificates import Authority

TIMEOUT_S = 120.0
READ_BYTES = 16 * 1024


@dataclass
class Bridge:
    """Listens on a port of 127.0.0.1 for clients of one run."""

    target: Target
    lease: Lease
    authority: Authority
    finished: list[Reason] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._up = ssl.create_default_context(cadata=self.authority.pem)
        self._down = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        identity = self.authority.identity(self.target.host)
        with tempfile.NamedTemporaryFile() as file:
            file.write(identity.chain_pem + identity.key_pem)
            file.flush()
            self._down.load_cert_chain(file.name)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Take no more, and wait for those that are open."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT_S)
        self._listener.close()

    def _serve(self) -> None:
        sessions = []
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            sessions.append(threading.Thread(target=self._session, args=(client,)))
            sessions[-1].start()
        for session in sessions:
            session.join(TIMEOUT_S)

    def _session(self, client: socket.socket) -> None:
        _Session(self, client, self._up, self._down).run()

    def judge(self, operation: Operation) -> Verdict:
        """Allow all, and keep what was asked."""
        self.operations.append(operation)
        return allow(operation)


class _Session:
    def __init__(
        self, bridge: Bridge, client: socket.socket, up: ssl.SSLContext, down: ssl.SSLContext
    ) -> None:
        self._bridge = bridge
        self._sides: dict[Side, socket.socket] = {Side.DOWNSTREAM: client}
        self._tls = {Side.UPSTREAM: up, Side.DOWNSTREAM: down}
        self._events: deque[Event] = deque()
        self._count = 0
        self._done = False
        self._relay = SPEC.relay(
            RelayContext(
                SessionId("S" * 26), bridge.target, self._new_id, secrets.token_bytes, bytes(32)
            )
        )

    def _new_id(self) -> OperationId:
        self._count += 1
        return OperationId(f"{self._count:026d}")

    def run(self) -> None:
        """Serve one client."""
        self._give(Started(None))
        ended: set[Side] = set()
        while not self._done:
            open_ = {sock: side for side, sock in self._sides.items() if side not in ended}
            ready, _, _ = select.select(list(open_), [], [], TIMEOUT_S)
            assert ready, "nothing happens"
            for sock in ready:
                side = open_[sock]
                if self._done or self._sides[side] is not sock:
                    continue
                data = self._read(sock)
                if not data:
                    ended.add(side)
                self._give(Data(side, data) if data else Eof(side))
        for sock in self._sides.values():
            sock.close()

    @staticmethod
    def _read(sock: socket.socket) -> bytes:
        data = sock.recv(READ_BYTES)
        while isinstance(sock, ssl.SSLSocket) and sock.pending():
            data += sock.recv(READ_BYTES)
        return data

    def _give(self, event: Event) -> None:
        self._events.append(event)
        while self._events and not self._done:
            for command in self._relay.handle(self._events.popleft(), 0):
                self._perform(command)

    def _perform(self, command: Command) -> None:
        bridge = self._bridge
        match command:
            case Send(side, data):
                self._sides[side].sendall(data)
            case Judge(operation):
                self._events.append(Judged(operation.operation_id, bridge.judge(operation)))
            case RecordIntent(operation):
                self._events.append(Recorded(operation.operation_id))
            case RequestLease():
                self._events.append(Leased(bridge.lease))
            case Classify(_, text):
                assert SPEC.classify is not None
                self._events.append(TextClassified(text, SPEC.classify(text)))
            case AskStop():
                self._events.append(StopAnswered(taken=False))
            case OpenUpstream():
                address = (bridge.target.dial_host, bridge.target.dial_port)
                self._sides[Side.UPSTREAM] = socket.create_connection(address, TIMEOUT_S)
                self._events.append(UpstreamOpened(address[0], encrypted=False))
            case StartTls(side):
                self._start_tls(side)
            case Finish(reason):
                self._done = True
                bridge.finished.append(reason)
            case _:
                pass

    def _start_tls(self, side: Side) -> None:
        context, is_server = self._tls[side], side is Side.DOWNSTREAM
        name = None if is_server else self._bridge.target.host
        secured = context.wrap_socket(self._sides[side], is_server, server_hostname=name)
        self._sides[side] = secured
        certificate = None if is_server else secured.getpeercert(binary_form=True)
        binding = hashlib.sha256(certificate).digest() if certificate else None
        self._events.append(TlsStarted(side, binding))
