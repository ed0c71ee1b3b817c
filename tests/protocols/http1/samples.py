"""What the conformance suite plays for HTTP/1.1, and how to read what came of it."""

import re

from tests.conformance.conductor import CANARY, Conductor, lease, no_idle, none_ahead, target
from tests.conformance.sample import Sample
from tests.protocols.http1.server import Server, read_answers

TARGET = target("http")
LEASE = lease()
idle = no_idle
ahead = none_ahead
TLS_NAME = "api.example.com"
HOST = b"Host: api.example.com\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n"
)
ECHO = b"HTTP/1.1 200 %b\r\nX-Echo: Bearer %b\r\nContent-Length: %d\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
GET = b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
POST_CHUNKED = (
    b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: dropped\r\n\r\n"
)
HEAD = b"HEAD /a HTTP/1.1\r\n" + HOST + b"\r\n"
CLOSING = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
OLD = b"GET /old HTTP/1.0\r\n" + HOST + b"\r\n"


def _echo(body: bytes) -> bytes:
    return ECHO % (CANARY, CANARY, len(body)) + body


SAMPLES = (
    Sample("get", GET, (OK,)),
    Sample("post", POST, (OK,)),
    Sample("post, chunked both ways", POST_CHUNKED, (CHUNKED,)),
    Sample("head", HEAD, (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",)),
    Sample("kept alive", GET + POST + HEAD + POST_CHUNKED + GET, (OK, OK, OK[:-2], CHUNKED, OK)),
    Sample("no content", GET + GET, (b"HTTP/1.1 204 No Content\r\n\r\n", OK)),
    Sample("not modified", GET + GET, (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", OK)),
    Sample("interim", GET, (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,)),
    Sample("closing", GET + CLOSING, (OK, OK)),
    Sample("http/1.0", OLD, (OK,)),
    Sample("empty line before", b"\r\n" + GET, (OK,)),
    Sample("server closes", GET, (LAST,)),
    Sample("the secret comes back", GET, (_echo(b"<" + CANARY + b">" + CANARY),)),
    Sample("malformed behind a good one", GET + b"GET / HTTP/3\r\n\r\n" + GET, (OK,)),
    Sample("other host", GET.replace(b"api.example", b"evil.example") + GET, (OK,)),
    Sample("trace", b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n" + GET, (OK,)),
)  # fmt: skip


def server(sample: Sample) -> Server:
    """Return the server of a sample."""
    return Server(sample.answers)


def reading(sample: Sample, conductor: Conductor) -> object:
    """Return what both ends read, however the bytes were cut into pieces."""
    methods = re.findall(rb"(GET|POST|HEAD|TRACE) /", sample.downstream)
    answers = read_answers(conductor.to_loop, methods, eof=True)
    found = conductor.world.server
    assert isinstance(found, Server)
    return answers, found.requests


def operations(conductor: Conductor) -> bytes:
    """Return what the policy decides over: all that goes upstream."""
    return conductor.to_server
