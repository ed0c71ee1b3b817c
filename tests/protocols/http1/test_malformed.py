"""What has no one meaning gets an answer of ours and a record, and no byte of it goes upstream."""

import pytest

from agent.protocols.http1 import SPEC
from agent.wire.commands import OpenUpstream, RequestLease
from tests.conformance.conductor import Conductor, World
from tests.protocols.http1.malformed import MALFORMED
from tests.protocols.http1.server import Server

each = pytest.mark.parametrize(
    ("name", "request_bytes", "status"), MALFORMED, ids=[row[0] for row in MALFORMED]
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GOOD = b"GET /before HTTP/1.1\r\nHost: api.example.com\r\n\r\n"


def test_the_table_is_long_enough() -> None:
    """There are at least 60 malformed requests, each of its own kind."""
    assert len(MALFORMED) >= 60
    assert len({request for _, request, _ in MALFORMED}) == len(MALFORMED)


@each
def test_nothing_upstream(name: str, request_bytes: bytes, status: int) -> None:
    """A malformed request is answered, recorded, and ends the session; nothing was even opened."""
    conductor = Conductor(SPEC, World())
    conductor.down(request_bytes)
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 %d " % status), name
    assert not any(isinstance(c, OpenUpstream | RequestLease) for c in conductor.commands)
    assert not conductor.judged
    assert [record.status for record in conductor.denied] == [str(status)]


@each
def test_nothing_of_it_upstream_behind_a_good_one(
    name: str, request_bytes: bytes, status: int
) -> None:
    """Pipelined behind a good request it is refused in order, and only the good one arrives."""
    server = Server((OK,))
    conductor = Conductor(SPEC, World(server=server))
    conductor.down(GOOD + request_bytes)
    conductor.check_ended()
    assert [seen.target for seen in server.requests] == [b"/before"], name
    good, _, refused = conductor.to_loop.partition(b"\r\n\r\nok")
    assert good.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 %d " % status)


@each
def test_byte_by_byte(name: str, request_bytes: bytes, status: int) -> None:
    """Sent byte by byte, a malformed head is refused with nothing upstream.

    A malformed body that follows a good head later can only be cut: then it never arrives whole.
    """
    server = Server((OK,))
    conductor = Conductor(SPEC, World(server=server))
    conductor.down(request_bytes, piece=1)
    conductor.check_ended()
    assert not server.requests
    if conductor.to_server:
        assert b"Transfer-Encoding: chunked" in conductor.to_server, name
        assert [finished.status for finished in conductor.outcomes] == [str(status)]
    else:
        assert conductor.to_loop.startswith(b"HTTP/1.1 %d " % status)
