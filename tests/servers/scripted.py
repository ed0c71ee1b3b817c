"""A server that does what a test says, byte for byte, over TCP or TLS: the malicious upstream."""

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.servers.certificates import Identity
from tests.servers.netns import listening

TIMEOUT_S = 30.0
Script = Callable[["Conversation"], None]


@dataclass(slots=True)
class Conversation:
    """One connection of the server, and all that it was sent."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)

    def read_until(self, end: bytes) -> bytes:
        """Return what came up to and with `end` (or all, when the peer ended before)."""
        start = len(self.received)
        while end not in self.received[start:]:
            piece = self.sock.recv(65536)
            if not piece:
                break
            self.received += piece
        return bytes(self.received[start:])

    def count_until_end(self, size_bytes: int) -> int:
        """Read this many bytes, keep none of them, return how many came."""
        left = size_bytes
        while left > 0:
            piece = self.sock.recv(min(left, 1 << 18))
            if not piece:
                break
            left -= len(piece)
        return size_bytes - left

    def send(self, data: bytes) -> None:
        """Send all."""
        self.sock.sendall(data)


@dataclass(slots=True)
class Scripted:
    """A running server."""

    port: int
    context: ssl.SSLContext | None = None  # of the next connections
    conversations: list[Conversation] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    accepted: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def received(self) -> bytes:
        """All that any connection was sent, after TLS."""
        return b"".join(bytes(one.received) for one in self.conversations)


def server_context(identity: Identity) -> ssl.SSLContext:
    """Return a context with this identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(identity.key_pem + identity.chain_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@contextlib.contextmanager
def scripted_server(script: Script, identity: Identity | None = None) -> Iterator[Scripted]:
    """Run `script` for each connection, each in a thread, until the test is done."""
    listener = listening("127.0.0.1", 0)
    context = None if identity is None else server_context(identity)
    server = Scripted(listener.getsockname()[1], context)
    threads: list[threading.Thread] = []

    def converse(sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT_S)
        try:
            if server.context is not None:
                sock = server.context.wrap_socket(sock, server_side=True)
            conversation = Conversation(sock)
            server.conversations.append(conversation)
            server.accepted.release()
            script(conversation)
        except (OSError, ssl.SSLError) as error:
            server.errors.append(f"{type(error).__name__}: {error}")
            server.accepted.release()
        finally:
            sock.close()

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=converse, args=(sock,), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(TIMEOUT_S)
        for one in server.conversations:
            with contextlib.suppress(OSError):
                one.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(TIMEOUT_S)


def answering(response: bytes) -> Script:
    """Return a script that answers every request head with the same bytes, and keeps alive."""

    def script(conversation: Conversation) -> None:
        while b"\r\n\r\n" in conversation.read_until(b"\r\n\r\n"):
            conversation.send(response)

    return script
