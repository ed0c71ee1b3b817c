"""A small real HTTPS server that answers by a function, and misbehaves when it is told to."""

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.certificates import Authority
from tests.servers.netns import Namespace, listening
from tests.servers.scripted import server_context


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    shown: tuple[str, str] = ("", "")  # of the client's certificate: common name and serial number


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; a dict or list is sent as JSON."""

    status: int
    content: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Asked], Answer]


@dataclass(frozen=True, slots=True)
class Where:
    """Where it listens (port 0: any), whose certificate it has beside its address's.

    clients: the PEM of a CA without whose certificates nobody gets in.
    """

    address: str = "127.0.0.1"
    port: int = 0
    inside: Namespace | None = None
    names: tuple[str, ...] = ()
    clients: str = ""


HERE = Where()


@dataclass(eq=False)
class Https:
    """A running server. faults: by path, the names of what the next requests there meet.

    html, nonsense (a JSON list), 404, 500, 503 (with Retry-After: 7), 302, cut (no answer, nothing
    done), lost (done, no answer), silent (never an answer).
    """

    url: str
    ca: str
    asked: list[Asked] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def fault(self, path: str) -> str:
        """Take the next fault of a path."""
        waiting = self.faults.get(path)
        return waiting.pop(0) if waiting else ""


FAULTS = {
    "html": Answer(200, b"<html>sign in</html>", {"Content-Type": "text/html"}),
    "nonsense": Answer(200, [1, {"a": None}]),
    "404": Answer(404, b"<html>not here</html>"),
    "500": Answer(500, b"<html>oops</html>"),
    "503": Answer(503, {"error": "temporarily_unavailable"}, {"Retry-After": "7"}),
    "302": Answer(302, b"", {"Location": "https://127.0.0.1:1/"}),
}


@contextlib.contextmanager
def https_server(
    respond: Respond, folder: Path, where: Where = HERE, authority: Authority | None = None
) -> Iterator[Https]:
    """Run it until the test is done; its CA's file is in the folder."""
    authority = authority or Authority()
    ca = folder / "https-ca.pem"
    ca.write_text(authority.pem, encoding="ascii")

    class Answering(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body, shown = self.rfile.read(length), _shown(self.connection)
            asked = Asked(self.command, self.path, headers, body, shown)
            state.asked.append(asked)
            fault = state.fault(self.path.partition("?")[0])
            self.close_connection = True
            if fault == "silent":
                state.released.wait(30)
            if fault in {"cut", "silent"}:
                return
            found = FAULTS[fault] if fault in FAULTS else respond(asked)
            if fault != "lost":
                self.send(found)

        def send(self, found: Answer) -> None:
            content = found.content
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Nothing is printed."""

    server = _listening(where, Answering)
    server.socket = _context(where, authority).wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    state = Https(f"https://{where.address}:{server.server_address[1]}", str(ca))
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _context(where: Where, authority: Authority) -> ssl.SSLContext:
    context = server_context(authority.identity(where.address, also=where.names))
    if where.clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=where.clients)
    return context


def _shown(connection: object) -> tuple[str, str]:
    found: Any = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    if not found:
        return "", ""
    return found["subject"][0][0][1], found["serialNumber"]


def _listening(
    where: Where, answering: type[http.server.BaseHTTPRequestHandler]
) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("", 0), answering, bind_and_activate=False)
    server.socket.close()
    place = (where.address, where.port)
    server.socket = (
        where.inside.call(lambda: listening(*place)) if where.inside else listening(*place)
    )
    server.server_address = server.socket.getsockname()
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    return server


def private_key_pem(key: object, file: Path | None = None) -> str:
    """Return a private key as PEM; write it to a file of mode 0600."""
    from cryptography.hazmat.primitives import serialization as form

    pem = key.private_bytes(  # type: ignore[attr-defined]
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    ).decode()
    if file is not None:
        file.touch(0o600)
        file.write_text(pem, encoding="ascii")
    return str(pem)
