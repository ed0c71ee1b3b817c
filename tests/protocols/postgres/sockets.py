"""Performs a relay's commands on a real server's socket, one after the other, without asyncio."""

import hashlib
import secrets
import socket
import ssl
from collections import deque
from typing import Self

from agent.model.grant import Target
from agent.model.ids import OperationId, SessionId
from agent.model.lease import Lease
from agent.model.reason import Reason
from agent.model.verdict import Allow
from agent.protocols.postgres.opening import Opening
from agent.wire.commands import (
    AskStop,
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
    TlsStarted,
    UpstreamOpened,
)
from agent.wire.relay import RelayContext
from agent.wire.side import Side
from tests.conformance.conductor import OWN_SESSION
from tests.servers.certificates import Identity

TIMEOUT_S = 120.0


class Wire:
    """One opening against a real server. `to_loop` is what the loop would read."""

    def __init__(
        self,
        target: Target,
        lease: Lease | None,
        *,
        ca: str,
        run_key: bytes = bytes(32),
        identity: tuple[Identity, str] | None = None,
        binds: bool = True,
    ) -> None:
        self._lease = lease
        self._target = target
        self._tls = ssl.create_default_context(cadata=ca) if ca else None
        if identity is not None and self._tls is not None:
            self._tls.load_cert_chain(identity[1])
        self._binds = binds
        self._sock: socket.socket | None = None
        self._events: deque[Event] = deque()
        self._count = 0
        self.to_loop = b""
        self.commands: list[Command] = []
        self.finished: Reason | None = None
        self.opening = Opening(
            RelayContext(SessionId("S" * 26), target, self._new_id, secrets.token_bytes, run_key)
        )
        self.give(Started(None))

    def _new_id(self) -> OperationId:
        self._count += 1
        return OperationId(f"{self._count:026d}")

    def give(self, event: Event) -> None:
        """Give an event, and the answers to what it causes, until the server has to speak."""
        self._events.append(event)
        while self._events:
            for command in self.opening.handle(self._events.popleft(), 0):
                self.commands.append(command)
                self._perform(command)

    def down(self, data: bytes) -> None:
        """Let the loop send bytes, then the server answer until the opening is over."""
        self.give(Data(Side.DOWNSTREAM, data))
        while self.finished is None and self.opening.opened is None and self._sock is not None:
            received = self._sock.recv(65536)
            self.give(Data(Side.UPSTREAM, received) if received else Eof(Side.UPSTREAM))

    def ask(self, data: bytes, until: bytes) -> bytes:
        """Send bytes to the server past the relay, and read up to an end."""
        assert self._sock is not None
        self._sock.sendall(data)
        return self.read(until)

    def read(self, until: bytes) -> bytes:
        """Read from the server past the relay, up to an end."""
        assert self._sock is not None
        received = b""
        while not received.endswith(until):
            piece = self._sock.recv(65536)
            assert piece, received
            received += piece
        return received

    def send(self, data: bytes) -> None:
        """Send bytes to the server past the relay."""
        assert self._sock is not None
        self._sock.sendall(data)

    def close(self) -> None:
        """Leave."""
        if self._sock is not None:
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _perform(self, command: Command) -> None:
        match command:
            case Send(Side.DOWNSTREAM, data):
                self.to_loop += data
            case Send(_, data):
                self.send(data)
            case Judge(operation):
                self._events.append(Judged(operation.operation_id, Allow(OWN_SESSION)))
            case RecordIntent(operation):
                self._events.append(Recorded(operation.operation_id))
            case RequestLease():
                assert self._lease is not None
                self._events.append(Leased(self._lease))
            case AskStop():
                self._events.append(StopAnswered(taken=False))
            case OpenUpstream():
                address = (self._target.dial_host, self._target.dial_port)
                self._sock = socket.create_connection(address, TIMEOUT_S)
                self._events.append(UpstreamOpened(address[0], encrypted=False))
            case StartTls():
                self._events.append(self._start_tls())
            case Finish(reason):
                self.finished = reason
            case _:
                pass

    def _start_tls(self) -> TlsStarted:
        assert self._tls is not None
        assert self._sock is not None
        secured = self._tls.wrap_socket(self._sock, server_hostname=self._target.host)
        self._sock = secured
        certificate = secured.getpeercert(binary_form=True)
        assert certificate
        # RFC 5929 section 4.1: by the hash of the certificate's signature, SHA-256 here
        binding = hashlib.sha256(certificate).digest() if self._binds else None
        return TlsStarted(Side.UPSTREAM, binding)
