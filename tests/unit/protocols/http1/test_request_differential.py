"""What we forward means the same to two other parsers: h11 and httptools (llhttp).

The direction is one way: what both oracles accept we may refuse, what we forward both must read,
complete, with the same method, target, fields and body, and nothing left over.
"""

import h11
import httptools
from hypothesis import given, settings

from agent.protocols.http1 import SPEC
from tests.conformance.conductor import Conductor, World
from tests.unit.protocols.http1.requests import damaged, requests

Read = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]


class _Llhttp:
    """Collects what httptools reads."""

    def __init__(self) -> None:
        self.found: list[Read] = []
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", [], b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.strip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.found.append((self._parser.get_method(), self._url, self._headers, self._body))

    def read(self, data: bytes) -> list[Read]:
        self._parser.feed_data(data)
        return self.found


def _h11(data: bytes) -> list[Read]:
    found: list[Read] = []
    while data:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        head, body = None, b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            assert not isinstance(event, type(h11.NEED_DATA)), "an incomplete request upstream"
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        assert head is not None
        headers = [(bytes(name), bytes(value)) for name, value in head.headers]
        found.append((bytes(head.method), bytes(head.target), headers, body))
        data = connection.trailing_data[0]
    return found


def _forwarded(data: bytes) -> tuple[Conductor, bytes]:
    """Play it against an upstream that answers each request by h11's count of them."""
    conductor = Conductor(SPEC, World(server=lambda _: b""))
    conductor.down(data)
    answered = 0
    while conductor.running() and len(conductor.judged) > answered:
        answered = len(conductor.judged)
        conductor.up(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    conductor.down_eof()
    assert not conductor.problems
    return conductor, conductor.to_server


def _agree(data: bytes) -> list[Read]:
    conductor, upstream = _forwarded(data)
    complete = all(finished.outcome == "answered" for finished in conductor.outcomes)
    if not upstream or not complete or b"Connection: close" in conductor.to_loop:
        return []  # refused, or cut within a body: nothing complete arrived
    first = _h11(upstream)
    try:
        second = _Llhttp().read(upstream)
    except httptools.HttpParserInvalidMethodError:
        second = first  # llhttp has a closed list of methods; policy has the last word on ours
    assert first == second
    judged = [(op.verb.encode(), op.resource.encode()) for op in conductor.judged]
    assert [(method, target.partition(b"?")[0]) for method, target, _, _ in first] == judged
    return first


@settings(max_examples=300)
@given(requests())
def test_well_formed_requests_mean_the_same_to_all(data: bytes) -> None:
    """A well-formed request is forwarded, and h11 and llhttp read the same from it."""
    conductor, upstream = _forwarded(data)
    if b"%" in data and not upstream:
        assert conductor.denied
        return  # a percent sign in the query that is no triplet
    if not upstream:
        assert conductor.denied, "silently dropped"
        return
    assert len(_agree(data)) == 1


@settings(max_examples=1000)
@given(damaged())
def test_damaged_requests_mean_the_same_or_nothing(data: bytes) -> None:
    """A damaged request is refused, or what is forwarded is one thing to all parsers."""
    _agree(data)


@settings(max_examples=200)
@given(damaged(), damaged())
def test_pipelined_damage(first: bytes, second: bytes) -> None:
    """Two damaged requests in a row: as many requests arrive as were judged, and the same ones."""
    _agree(first + second)
