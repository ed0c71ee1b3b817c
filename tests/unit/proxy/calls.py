"""What a loop's programs do, with plain sockets: every byte is seen."""

import contextlib
import socket
import ssl
from dataclasses import dataclass

from tests.servers.certificates import Authority
from tests.unit.proxy.harness import Harness

HOST = "api.example.com"


def get(path: str, *, host: str = HOST, extra: str = "", close: bool = True) -> bytes:
    """Return a request."""
    connection = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{connection}{extra}\r\n".encode()


def trusting(authority: Authority) -> ssl.SSLContext:
    """Return a client's context that trusts this authority alone."""
    context = ssl.create_default_context(cadata=authority.pem)
    context.set_alpn_protocols(["http/1.1"])
    return context


def read_all(sock: socket.socket) -> bytes:
    """Return all up to the end (or the reset)."""
    pieces: list[bytes] = []
    try:
        while piece := sock.recv(1 << 18):
            pieces.append(piece)
    except ConnectionResetError:
        pieces.append(b"<reset>")
    return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    head: bytes
    body: bytes


def parse(data: bytes) -> Answer:
    """Split an answer that its connection's end ended."""
    head, _, body = data.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ")[1]), head, body)


def secure(
    worker: Harness, authority: Authority, *, name: str = HOST, mark: int = 1
) -> ssl.SSLSocket:
    """Connect with TLS as a loop does."""
    sock = worker.connect(mark=mark)
    try:
        return trusting(authority).wrap_socket(sock, server_hostname=name)
    except BaseException:
        sock.close()
        raise


def call(worker: Harness, authority: Authority, request: bytes) -> Answer:
    """Make one call over TLS."""
    with secure(worker, authority) as sock:
        sock.sendall(request)
        return parse(read_all(sock))


def read_head(sock: socket.socket) -> bytes:
    """Return what came up to the end of a head, byte by byte."""
    return read_until(sock, b"\r\n\r\n")


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Return what came up to these bytes, byte by byte."""
    data = b""
    while not data.endswith(end):
        piece = sock.recv(1)
        if not piece:
            break
        data += piece
    return data


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """Return so many bytes, in however many pieces they come; fewer at the end."""
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def read_quietly(sock: socket.socket) -> bytes:
    """Read to the end, however it comes: what a session that is cut leaves may end in a reset."""
    pieces: list[bytes] = []
    with contextlib.suppress(OSError):
        while piece := sock.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def is_reset(worker: Harness, address: str = "198.18.0.1", port: int = 443, mark: int = 1) -> bool:
    """Whether a connection is reset before a byte: while it is made, or after."""
    try:
        with worker.connect(address, port, mark) as sock:
            return read_all(sock) == b"<reset>"
    except ConnectionResetError:
        return True
