"""What a run of test_interleaved.py runs: many calls over connections that come and go.

    python3 interleaved_calls.py URL MARKER CALLS CONNECTIONS CALLS_A_CONNECTION

It makes one call, says so, waits for a line, and makes all others; then it says how it went.
"""

import json
import socket
import ssl
import sys
import threading
from urllib.parse import urlsplit


class Caller:
    """Counts what it did. Every answer must be the echo of its own call."""

    def __init__(self, url: str, marker: str) -> None:
        self._host = urlsplit(url).hostname or ""
        self._marker = marker
        self._context = ssl.create_default_context()
        self.answered: list[str] = []
        self.connections: list[int] = []
        self.wrong: list[str] = []

    def calls(self, slot: int, count: int, a_connection: int) -> None:
        """Make so many calls, so many over each connection; what is left open is closed."""
        for first in range(0, count, a_connection):
            plain = socket.create_connection((self._host, 443), timeout=300)
            with self._context.wrap_socket(plain, server_hostname=self._host) as connection:
                self.connections.append(slot)
                for number in range(first, min(first + a_connection, count)):
                    self._call(connection, f"/{self._marker}/{slot}/{number}")

    def _call(self, connection: ssl.SSLSocket, path: str) -> None:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        answer = b""
        while len(answer) < _length(answer):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(f"\r\n\r\n{path}".encode()):
            self.answered.append(path)
        else:
            self.wrong.append(f"{path}: {answer[:160]!r}")


def _length(answer: bytes) -> int:
    """Return how long an answer is, of which this is the begin; one more than it, if unknown."""
    head, end, _ = answer.partition(b"\r\n\r\n")
    if not end:
        return len(answer) + 1
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return len(head) + len(end) + int(fields[b"content-length"])


def main(url: str, marker: str, *counts: str) -> None:
    """See the module."""
    calls, connections, a_connection = map(int, counts)
    caller = Caller(url, marker)
    caller.calls(connections, 1, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    each, rest = divmod(calls - 1, connections)
    threads = [
        threading.Thread(target=caller.calls, args=(slot, each + (slot < rest), a_connection))
        for slot in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [len(set(caller.answered)), len(caller.connections), caller.wrong[:5]]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
