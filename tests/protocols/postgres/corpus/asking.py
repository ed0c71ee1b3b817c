"""A plain session with a real server: text in, SQLSTATEs out (simple query protocol)."""

import contextlib
import re
import socket
import struct
from collections.abc import Iterator

from tests.servers.certificates import Authority
from tests.servers.postgres import Postgres, postgres_server

TIMEOUT_S = 120.0
READ_ONLY = "25006"
_COPY_FAIL = b"f" + struct.pack("!I", 5) + b"\0"


class Asking:
    """One session by the Unix socket, as the superuser."""

    def __init__(self, server: Postgres, **settings: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(f"{server.folder}/.s.PGSQL.{server.port}")
        self._stream = self._socket.makefile("rb")
        given = {"user": "postgres", "database": "orders", **settings}
        body = b"".join(f"{key}\0{value}\0".encode() for key, value in given.items()) + b"\0"
        self._socket.sendall(struct.pack("!II", len(body) + 8, 3 << 16) + body)
        assert not self._until_ready()

    def ask(self, text: str | bytes) -> list[str]:
        """Run text and return the SQLSTATEs of its errors."""
        return self.ask_each(text)[0]

    def ask_each(self, *texts: str | bytes) -> list[list[str]]:
        """Send texts at once, only the last of which may copy, and return each one's errors."""
        sent = b""
        for text in texts:
            body = (text.encode() if isinstance(text, str) else text) + b"\0"
            sent += b"Q" + struct.pack("!I", len(body) + 4) + body
        self._socket.sendall(sent)
        return [self._until_ready() for _ in texts]

    def _until_ready(self) -> list[str]:
        found: list[str] = []
        while True:
            kind, size = struct.unpack("!cI", self._stream.read(5))
            body = self._stream.read(size - 4)
            if kind == b"E":
                match = re.search(rb"\0C(\w{5})\0", body)
                assert match
                found.append(match[1].decode())
            elif kind == b"G":
                self._socket.sendall(_COPY_FAIL)
            elif kind == b"Z":
                return found

    def close(self) -> None:
        """End the session."""
        self._stream.close()
        self._socket.close()


@contextlib.contextmanager
def a_server() -> Iterator[Postgres]:
    """Run a server with the tests' database, on a Unix socket alone."""
    with postgres_server(Authority(), address="", tls=False) as server:
        yield server
