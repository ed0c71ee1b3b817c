"""An HTTP/1.1 server on h11, as a function from bytes to bytes, and a reader of answers.

h11 is somebody else's parser: what the relay forwards has to make sense to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import h11

MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """A request as h11 reads it."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: bytes) -> list[bytes]:
        """Return all values of a header."""
        return [value for key, value in self.headers if key == name]


class Server:
    """Answers the n-th complete request with the n-th answer, then with the last one."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = answers
        self._connection = self._fresh()
        self._head: h11.Request | None = None
        self._body = b""
        self.requests: list[Seen] = []

    def __call__(self, data: bytes) -> bytes:
        """Take bytes; return the answers to what is complete."""
        self._connection.receive_data(data)
        out = b""
        while True:
            event = self._connection.next_event()
            match event:
                case h11.Request():
                    self._head, self._body = event, b""
                case h11.Data():
                    self._body += bytes(event.data)
                case h11.EndOfMessage():
                    out += self._complete()
                case _:
                    return out

    @staticmethod
    def _fresh() -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BYTES)

    def _complete(self) -> bytes:
        assert self._head is not None
        headers = tuple((bytes(k), bytes(v)) for k, v in self._head.headers)
        head = self._head
        self.requests.append(Seen(bytes(head.method), bytes(head.target), headers, self._body))
        trailing, _ = self._connection.trailing_data
        self._connection = self._fresh()
        if trailing:
            self._connection.receive_data(trailing)
        answers = self._answers
        return answers[min(len(self.requests), len(answers)) - 1] if answers else b""


Headers = tuple[tuple[bytes, bytes], ...]


def read_answers(
    data: bytes, methods: Sequence[bytes], *, eof: bool
) -> list[tuple[int, Headers, bytes]]:
    """Return status, headers and body of the answers to requests of these methods, by h11."""
    found = []
    for method in methods:
        if not data:
            break
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_BYTES)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        if eof:
            connection.receive_data(b"")
        status, body = 0, b""
        headers: Headers = ()
        while True:
            event = connection.next_event()
            match event:
                case h11.Response():
                    status = event.status_code
                    headers = tuple((bytes(k), bytes(v)) for k, v in event.headers)
                case h11.Data():
                    body += bytes(event.data)
                case h11.InformationalResponse():
                    continue
                case h11.EndOfMessage():
                    break
                case _:
                    raise AssertionError(f"no complete answer: {event}")
        found.append((status, headers, body))
        data = connection.trailing_data[0]
    assert not data, "bytes behind the last answer"
    return found
