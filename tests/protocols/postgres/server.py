"""A PostgreSQL server as a function from bytes to bytes: login by SCRAM, then scripted answers.

It keeps every message that reached it. What it does wrong on purpose is a `Rogue` change of one of
its parts; the real server is in tests/servers/postgres.py.
"""

import base64
import functools
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.protocols.postgres import limits
from agent.protocols.postgres.frames import Frame, Splitter
from agent.protocols.postgres.messages import (
    AUTHENTICATION_OK,
    SSL_REQUEST,
    backend_key_data,
    message,
    parameter_status,
    ready_for_query,
)
from tests.conformance.conductor import CANARY

ITERATIONS = 4096
SALT = b"a salt of the tests"
PID, KEY = (4711).to_bytes(4, "big"), b"\xde\xad\xbe\xef"
PARAMETERS = {
    "application_name": "loopwarden",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "default_transaction_read_only": "off",
    "server_version": "15.20",
    "session_authorization": "lease_user",
    "standard_conforming_strings": "on",
}
READY = ready_for_query(b"I")


def authentication(code: int, data: bytes = b"") -> bytes:
    """Return an authentication message."""
    return message(b"R", code.to_bytes(4, "big", signed=True) + data)


def welcome(*, parameters: dict[str, str] | None = None, key: bytes = KEY) -> bytes:
    """Return what follows AuthenticationOk."""
    told = PARAMETERS if parameters is None else parameters
    status = b"".join(parameter_status(name, value) for name, value in told.items())
    return status + backend_key_data(PID, key) + READY


def error(sqlstate: bytes = b"28P01", text: bytes = b"no") -> bytes:
    """Return an ErrorResponse."""
    fields = b"SFATAL\0VFATAL\0C" + sqlstate + b"\0M" + text + b"\0\0"
    return message(b"E", fields)


@functools.cache
def _salted(password: bytes, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)


class Scram:
    """The server's side of SCRAM-SHA-256(-PLUS), checked strictly."""

    def __init__(self, binding: bytes | None) -> None:
        self._binding = binding
        self._first_bare = b""
        self._server_first = b""
        self._gs2 = b""
        self.proven = False

    def continue_(self, client_first: bytes, *, plus: bool) -> bytes:
        """Return server-first-message."""
        pattern = rb"(p=tls-server-end-point|y|n),,(n=[^,]*,r=([\x21-\x2b\x2d-\x7e]+))"
        found = re.fullmatch(pattern, client_first)
        assert found, client_first
        assert (found[1][:1] == b"p") == plus
        self._gs2, self._first_bare = found[1] + b",,", found[2]
        self._server_first = b"r=%bserver,s=%b,i=%d" % (
            found[3], base64.b64encode(SALT), ITERATIONS,
        )  # fmt: skip
        return self._server_first

    def final(self, client_final: bytes) -> bytes:
        """Check the proof; return server-final-message."""
        bare, _, proof = client_final.rpartition(b",p=")
        channel = self._gs2 + (self._binding or b"" if self._gs2[:1] == b"p" else b"")
        nonce = self._server_first.split(b",")[0]
        assert bare == b"c=" + base64.b64encode(channel) + b"," + nonce
        text = self._first_bare + b"," + self._server_first + b"," + bare
        salted = _salted(CANARY, SALT, ITERATIONS)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), text, "sha256")
        wanted = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.proven = base64.b64decode(proof) == wanted
        server = hmac.digest(salted, b"Server Key", "sha256")
        return b"v=" + base64.b64encode(hmac.digest(server, text, "sha256"))


@dataclass
class Server:
    """Speaks the protocol; answers the n-th Query or Execute with the n-th answer."""

    answers: Sequence[bytes] = ()
    tls: bytes = b"S"  # the answer to SSLRequest
    mechanisms: tuple[bytes, ...] = (b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256")
    binding: bytes | None = b"tls-server-end-point of the tests"
    request: bytes | None = None  # instead of the SASL request
    first: bytes | None = None  # instead of AuthenticationSASLContinue
    final: bytes | None = None  # instead of AuthenticationSASLFinal and AuthenticationOk
    behind: bytes | None = None  # instead of what follows AuthenticationOk
    startup: bytes = b""
    cancelled: bytes = b""
    received: list[Frame] = field(default_factory=list)
    logins: list[bytes] = field(default_factory=list)  # payloads of password messages
    _buffer: bytes = b""
    _splitter: Splitter | None = None
    _answered: int = 0
    _scram: Scram | None = None
    _step: int = 0

    def __call__(self, data: bytes) -> bytes:
        """Take bytes; return the answers to what is complete."""
        if self._splitter is None:
            self._buffer += data
            if len(self._buffer) < 8:
                return b""
            length = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < length:
                return b""
            packet, self._buffer = self._buffer[:length], self._buffer[length:]
            return self._packet(packet)
        self._splitter.feed(data)
        out = b""
        while (frame := self._splitter.next()) is not None:
            out += self._login(frame) if frame.kind == ord("p") else self._answer(frame)
        return out

    def _packet(self, packet: bytes) -> bytes:
        if packet == SSL_REQUEST:
            assert not self._buffer, "bytes behind SSLRequest"
            return self.tls
        if packet[4:8] == (1234 << 16 | 5678).to_bytes(4, "big"):
            self.cancelled = packet
            return b""
        self.startup = packet
        self._splitter = Splitter(limits.FRONTEND)
        if self.request is not None:
            return self.request
        names = b"".join(name + b"\0" for name in self.mechanisms)
        return authentication(10, names + b"\0")

    @property
    def parameters(self) -> dict[str, str]:
        """What the startup message says."""
        parts = self.startup[8:].decode().split("\0")
        return dict(zip(parts[:-2:2], parts[1:-1:2], strict=True))

    def _login(self, frame: Frame) -> bytes:
        self.logins.append(frame.payload)
        self._step += 1
        behind = welcome(key=KEY) if self.behind is None else self.behind
        if self.request is not None and self.request[5:9] != b"\0\0\0\x0a":
            return (self.final or b"") + behind
        if self._step == 1:
            name, _, rest = frame.payload.partition(b"\0")
            self._scram = Scram(self.binding)
            first = self._scram.continue_(rest[4:], plus=name.endswith(b"-PLUS"))
            return authentication(11, first) if self.first is None else self.first
        assert self._scram is not None
        if self.first is not None:
            return b""
        final = self._scram.final(frame.payload)
        assert self._scram.proven
        if self.final is not None:
            return self.final + behind
        return authentication(12, final) + AUTHENTICATION_OK + behind

    def _answer(self, frame: Frame) -> bytes:
        self.received.append(frame)
        match chr(frame.kind):
            case "Q":
                return self._next() + READY
            case "E":
                return self._next()
            case "S":
                return READY
            case "P" | "B" | "C":
                return message({"P": b"1", "B": b"2", "C": b"3"}[chr(frame.kind)])
            case "D":
                return message(b"n")
            case _:
                return b""

    def _next(self) -> bytes:
        self._answered += 1
        if not self.answers:
            return b""
        return self.answers[min(self._answered, len(self.answers)) - 1]
