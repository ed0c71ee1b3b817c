"""Every limit of the HTTP/1.1 relay at its number and one past it."""

from collections.abc import Callable

import pytest

from agent.protocols.http1 import limits
from agent.protocols.http1.body import ChunkedBody
from agent.protocols.http1.intake import Intake
from agent.protocols.http1.malformed import Malformed
from agent.protocols.http1.request import RequestHead, parse_request_head
from agent.protocols.http1.response import ResponseHead, parse_response_head

HOST = b"Host: a\r\n"
STATUS = b"HTTP/1.1 200 OK\r\n"
LINE = b"GET / HTTP/1.1\r\n"


def _pad(total: int, head: bytes) -> bytes:
    """Return a head of this many bytes, filled with fields that are not too long themselves."""
    fields, left = b"", total - len(head) - 2
    while left > 8000:
        fields += b"A: " + b"b" * 3995 + b"\r\n"
        left -= 4000
    return head + fields + b"A: " + b"b" * (left - 5) + b"\r\n\r\n"


def _target(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1\r\n" + HOST + b"\r\n"


REQUESTS: tuple[tuple[str, int, Callable[[int], bytes], int], ...] = (
    ("request line", limits.REQUEST_LINE_BYTES_MAX, _target, 414),
    (
        "field line",
        limits.FIELD_LINE_BYTES_MAX,
        lambda n: LINE + HOST + b"A: " + b"b" * (n - 3) + b"\r\n\r\n",
        431,
    ),
    ("name", limits.FIELD_NAME_BYTES_MAX, lambda n: LINE + HOST + b"a" * n + b": b\r\n\r\n", 400),
    ("fields", limits.FIELDS_MAX, lambda n: LINE + HOST + b"A: b\r\n" * (n - 1) + b"\r\n", 431),
    ("method", limits.METHOD_BYTES_MAX, lambda n: b"M" * n + LINE[3:] + HOST + b"\r\n", 400),
    (
        "length",
        limits.BODY_BYTES_MAX,
        lambda n: LINE + HOST + b"Content-Length: %d\r\n\r\n" % n,
        400,
    ),
)
RESPONSES: tuple[tuple[str, int, Callable[[int], bytes]], ...] = (
    (
        "field line",
        limits.FIELD_LINE_BYTES_MAX,
        lambda n: STATUS + b"A: " + b"b" * (n - 3) + b"\r\n\r\n",
    ),
    ("name", limits.FIELD_NAME_BYTES_MAX, lambda n: STATUS + b"a" * n + b": b\r\n\r\n"),
    ("fields", limits.FIELDS_MAX, lambda n: STATUS + b"A: b\r\n" * n + b"\r\n"),
    ("length", limits.BODY_BYTES_MAX, lambda n: STATUS + b"Content-Length: %d\r\n\r\n" % n),
)


@pytest.mark.parametrize(("name", "limit", "make", "status"), REQUESTS, ids=lambda v: str(v)[:12])
def test_request_heads(name: str, limit: int, make: Callable[[int], bytes], status: int) -> None:
    """A head at the limit is a request, one past it a refusal with its own status."""
    assert isinstance(parse_request_head(make(limit)), RequestHead), name
    past = parse_request_head(make(limit + 1))
    assert isinstance(past, Malformed)
    assert past.status == status


@pytest.mark.parametrize(("name", "limit", "make"), RESPONSES, ids=lambda v: str(v)[:12])
def test_response_heads(name: str, limit: int, make: Callable[[int], bytes]) -> None:
    """A response head at the limit is one, one past it is not."""
    assert isinstance(parse_response_head(make(limit)), ResponseHead), name
    assert isinstance(parse_response_head(make(limit + 1)), Malformed)


@pytest.mark.parametrize("piece", [1000, 1 << 20])
@pytest.mark.parametrize("past", [0, 1])
def test_the_whole_head(piece: int, past: int) -> None:
    """A head of HEAD_BYTES_MAX is taken, one byte more is 431, also when it comes in pieces."""
    head = _pad(limits.HEAD_BYTES_MAX + past, LINE + HOST)
    assert len(head) == limits.HEAD_BYTES_MAX + past
    intake = Intake()
    found: RequestHead | Malformed | None = None
    for at in range(0, len(head), piece):
        intake.add(head[at : at + piece])
        found = intake.next_head()
        if found is not None:
            break
    if past:
        assert isinstance(found, Malformed)
        assert found.status == 431
    else:
        assert isinstance(found, RequestHead)


@pytest.mark.parametrize("past", [0, 1])
def test_a_request_line_without_end(past: int) -> None:
    """Bytes without a line end are waited for up to the line's limit only: 414."""
    intake = Intake()
    intake.add(b"GET /" + b"a" * (limits.REQUEST_LINE_BYTES_MAX - 4 + past))
    found = intake.next_head()
    if past:
        assert isinstance(found, Malformed)
        assert found.status == 414
    else:
        assert found is None


def _chunk_line(size: int) -> bytes:
    return b"1;" + b"x" * (size - 2) + b"\r\na\r\n0\r\n\r\n"


def _trailers(size: int) -> bytes:
    return b"0\r\nA: " + b"b" * (size - 5) + b"\r\n\r\n"


def _chunk_size(size: int) -> bytes:
    return b"%x\r\n" % size


@pytest.mark.parametrize(
    ("limit", "make"),
    [
        (limits.CHUNK_LINE_BYTES_MAX, _chunk_line),
        (limits.TRAILER_BYTES_MAX, _trailers),
        (limits.BODY_BYTES_MAX, _chunk_size),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_chunks(limit: int, make: Callable[[int], bytes], piece: int) -> None:
    """A chunk line, a trailer section or a chunk at the limit is read, one past it is an error."""
    for past in (0, 1):
        body, data = ChunkedBody(), make(limit + past)
        for at in range(0, len(data), piece):
            body.feed(data[at : at + piece])
        assert bool(body.error) == bool(past)


def test_recorded_query_keys() -> None:
    """At most QUERY_KEYS_MAX names of parameters are recorded; all are forwarded."""
    for count in (limits.QUERY_KEYS_MAX, limits.QUERY_KEYS_MAX + 1):
        query = b"&".join(b"k=1" for _ in range(count))
        head = parse_request_head(b"GET /?" + query + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert isinstance(head, RequestHead)
        keys = dict(head.attributes)["query-keys"].split(",")
        assert len(keys) == limits.QUERY_KEYS_MAX
        assert head.query == query


@pytest.mark.parametrize("size", [limits.ATTRIBUTE_CHARS_MAX, limits.ATTRIBUTE_CHARS_MAX + 1])
def test_recorded_attributes(size: int) -> None:
    """An attribute at the limit is recorded whole, one past it by head, hash and tail."""
    head = parse_request_head(LINE + HOST + b"User-Agent: " + b"a" * size + b"\r\n\r\n")
    assert isinstance(head, RequestHead)
    agent = dict(head.attributes)["user-agent"]
    assert ("sha256:" in agent) == (size > limits.ATTRIBUTE_CHARS_MAX)
    assert len(agent) <= limits.ATTRIBUTE_CHARS_MAX


@pytest.mark.parametrize("size", [limits.CACHED_HEAD_BYTES_MAX, limits.CACHED_HEAD_BYTES_MAX + 1])
def test_kept_heads(size: int) -> None:
    """A short head that recurs is parsed once; a longer one each time, to the same model."""
    first = parse_request_head(_pad(size, LINE + HOST))
    second = parse_request_head(_pad(size, LINE + HOST))
    assert first == second
    assert (first is second) == (size <= limits.CACHED_HEAD_BYTES_MAX)
