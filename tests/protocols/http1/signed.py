"""Conversations of clients of AWS with a server that checks signatures as AWS does."""

import datetime as dt

from agent.model.credential import AwsKeys, Shape
from agent.model.grant import AwsOptions, UpstreamTls
from agent.model.secret import Secret
from agent.protocols.http1 import SPEC
from agent.wire.events import UpstreamOpened
from tests.conformance.conductor import UNIX_MS, Conductor, World, lease, target
from tests.protocols.http1.server import Seen, Server, read_answers
from tests.servers.aws_verifier import Keys, Verified, verify

KEY_ID, SECRET, TOKEN = "ASIAEXAMPLE000000000", "c4n4ry" * 7, "t0ken/+=" * 60
KEYS = AwsKeys(Secret(KEY_ID.encode()), Secret(SECRET.encode()), Secret(TOKEN.encode()))
NOW = dt.datetime.fromtimestamp(UNIX_MS // 1000, dt.UTC)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = b"Host: api.example.com\r\n"
S3, DYNAMODB = AwsOptions("s3", "eu-west-1"), AwsOptions("dynamodb", "eu-west-1")
FAKE = (
    b"Authorization: AWS4-HMAC-SHA256 Credential=none/20270115/eu-west-1/%b/aws4_request, "
    b"SignedHeaders=host;x-amz-date, Signature=%b\r\nX-Amz-Date: 20270115T080000Z\r\n"
)


def fake(service: bytes = b"s3") -> bytes:
    """Return the fields of a signature with keys of nobody."""
    return FAKE % (service, b"0" * 64)


def stage(
    aws: AwsOptions = S3, *, encrypted: bool = True, answers: tuple[bytes, ...] = (OK,)
) -> tuple[Conductor, Server]:
    """Return a conversation and its server."""
    server = Server(answers)
    tls = UpstreamTls.VERIFY_FULL if encrypted else UpstreamTls.NONE
    asked = target(shape=Shape.AWS_KEYS, aws=aws, tls=tls, allow_cleartext=not encrypted)
    opened = UpstreamOpened("192.0.2.1:443", encrypted=encrypted)
    world = World(target=asked, lease=lease(KEYS), server=server, opened=opened)
    return Conductor(SPEC, world), server


def sent(
    request: bytes, aws: AwsOptions = S3, *, encrypted: bool = True, piece: int = 65_536
) -> tuple[Seen, Verified]:
    """Send one request; return what came to the server, and what it says of it."""
    conductor, server = stage(aws, encrypted=encrypted)
    conductor.down(request, piece)
    conductor.down_eof()
    conductor.check_ended()
    assert len(server.requests) == 1, conductor.to_loop
    [seen] = server.requests
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in seen.headers]
    known = {KEY_ID: Keys(SECRET, TOKEN)}
    target_ = seen.target.decode()
    return seen, verify(seen.method.decode(), target_, headers, seen.body, known, now=NOW)


def refused(request: bytes, aws: AwsOptions = S3, *, encrypted: bool = True) -> tuple[int, bytes]:
    """Send what is refused; return status and body. Nothing of it goes upstream."""
    conductor, server = stage(aws, encrypted=encrypted)
    conductor.down(request)
    conductor.down_eof()
    conductor.check_ended()
    assert not server.requests
    method = request.partition(b" ")[0]
    [(status, _, body)] = read_answers(conductor.to_loop, [method], eof=True)
    return status, body
