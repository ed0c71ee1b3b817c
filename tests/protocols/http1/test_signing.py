"""Requests to AWS are signed anew: a server that checks as AWS does takes them, and ours alone."""

import hashlib

import pytest

from agent.model.grant import AwsOptions
from agent.model.ids import OperationId
from agent.model.operation import Operation
from agent.protocols.http1 import limits
from agent.protocols.http1.exchange import Exchange
from agent.protocols.http1.payload import Payload, plan_payload
from agent.protocols.http1.request import RequestHead, parse_request_head
from agent.wire.commands import RecordIntent
from tests.protocols.http1.server import read_answers
from tests.protocols.http1.signed import (
    DYNAMODB,
    FAKE,
    HOST,
    KEY_ID,
    OK,
    SECRET,
    TOKEN,
    fake,
    refused,
    sent,
    stage,
)
from tests.unit.spent import is_quick

ZERO = b"0" * 64
JSON = b"Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\n"
CHUNKED = (
    b"4;chunk-signature=" + ZERO + b"\r\nabcd\r\n" + b"2;chunk-signature=" + ZERO + b"\r\nef\r\n"
    b"0;chunk-signature=" + ZERO + b"\r\n"
)  # fmt: skip
TRAILER = b"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:" + ZERO + b"\r\n\r\n"
PRESIGNED = (
    b"/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=none%2F20270115%2Feu-west-1%2Fs3%2F"
    b"aws4_request&X-Amz-Date=20270115T080000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host"
    b"&X-Amz-Security-Token=x&x-id=GetObject&X-Amz-Signature=00"
)
PLAIN_CHUNKS = b"6\r\nabcdef\r\n0\r\nx-amz-checksum-crc32:7Q9qIw==\r\n\r\n"


def put(body: bytes, fields: bytes, path: bytes = b"/a%20b/c", framed: bytes = b"") -> bytes:
    """Return a PUT."""
    framing = framed or b"Content-Length: %d\r\n" % len(body)
    return b"PUT " + path + b" HTTP/1.1\r\n" + HOST + fields + framing + b"\r\n" + body


@pytest.mark.parametrize("piece", [1, 50, 65_536])
@pytest.mark.parametrize(
    ("word", "body"),
    [
        (b"UNSIGNED-PAYLOAD", b"abcdef"),
        (hashlib.sha256(b"abcdef").hexdigest().encode(), b"abcdef"),
        (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", CHUNKED + b"\r\n"),
        (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", CHUNKED + TRAILER),
        (b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", PLAIN_CHUNKS),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_payloads_of_s3(word: bytes, body: bytes, piece: int, chunked: bool) -> None:
    """Signed, unsigned, streamed with and without a trailer, in any pieces and both framings."""
    fields = fake() + b"X-Amz-Content-Sha256: " + word + b"\r\nx-amz-meta-a: 1\r\n"
    framed, sent_body = b"", body
    if chunked:
        framed = b"Transfer-Encoding: chunked\r\n"
        sent_body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    seen, verified = sent(put(sent_body, fields, framed=framed), piece=piece)
    assert verified.access_key_id == KEY_ID
    assert verified.payload.encode() == word
    assert verified.body == b"abcdef"
    assert len(seen.body) == len(body)
    assert seen.header(b"x-amz-meta-a") == [b"1"]
    assert ZERO not in seen.body
    assert b"none" not in b"".join(value for _, value in seen.headers)


@pytest.mark.parametrize("fields", [b"", fake()])
@pytest.mark.parametrize("piece", [1, 65_536])
def test_a_body_without_a_hash(fields: bytes, piece: int) -> None:
    """To S3 under TLS it goes unsigned; without TLS, and to others, its hash is signed."""
    _, verified = sent(put(b"abcdef", fields), piece=piece)
    assert verified.payload == "UNSIGNED-PAYLOAD"
    digest = hashlib.sha256(b"abcdef").hexdigest()
    _, verified = sent(put(b"abcdef", fields), encrypted=False, piece=piece)
    assert verified.payload == digest
    unsigned = b"X-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\n"
    _, verified = sent(put(b"abcdef", fields + unsigned), encrypted=False, piece=piece)
    assert verified.payload == digest
    post = put(b"{}", fields.replace(b"/s3/", b"/dynamodb/") + JSON, b"/")
    seen, verified = sent(post.replace(b"PUT", b"POST"), DYNAMODB, piece=piece)
    assert (verified.service, verified.body) == ("dynamodb", b"{}")
    assert seen.header(b"x-amz-content-sha256") == []


def test_a_chunked_body_that_is_held_gets_a_length() -> None:
    """Its length is known when it goes; a declared hash of another service is kept."""
    chunked = b"Transfer-Encoding: chunked\r\n"
    request = put(b"2\r\n{}\r\n0\r\n\r\n", JSON, b"/", framed=chunked)
    seen, verified = sent(request, DYNAMODB)
    assert verified.body == b"{}"
    assert seen.header(b"content-length") == [b"2"]
    digest = hashlib.sha256(b"{}").hexdigest().encode()
    declared = JSON + b"x-amz-content-sha256: " + digest + b"\r\n"
    seen, verified = sent(put(b"{}", declared, b"/"), DYNAMODB)
    assert seen.header(b"x-amz-content-sha256") == [digest]


@pytest.mark.parametrize(
    ("target", "left"),
    [
        (b"/a", b"/a"),
        (b"/", b"/"),
        (b"/a=b/(c)/d@e:f", b"/a=b/(c)/d@e:f"),
        (b"/%C3%A4/%e2%82%ac", b"/%C3%A4/%E2%82%AC"),
        (b"/a?acl", b"/a?acl"),
        (b"/?list-type=2&prefix=a/b+c&d=%2f", b"/?list-type=2&prefix=a%2Fb%20c&d=%2F"),
        (PRESIGNED, b"/a?x-id=GetObject"),
        (b"/a?x%2Damz%2Dsignature=1&X-AMZ-CREDENTIAL=a", b"/a"),
        (b"/a?AWSAccessKeyId=none&Signature=a%3D&Expires=1&versionId=3", b"/a?versionId=3"),
        (b"/a?Signature=mine&Expires=1", b"/a?Signature=mine&Expires=1"),
    ],
)  # fmt: skip
def test_targets(target: bytes, left: bytes) -> None:
    """Paths as they come, queries in one encoding, signatures of others taken out of them."""
    seen, _ = sent(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert seen.target == left


def test_what_is_taken_out() -> None:
    """Whatever else would sign, and the dates of the loop; other fields stay."""
    fields = (
        b"authorization: AWS none:abc=\r\nAUTHORIZATION: Bearer x\r\nDate: yesterday\r\n"
        b"X-AMZ-DATE: 20000101T000000Z\r\nx-amz-security-token: fake\r\n"
        b"x-amz-s3session-token: fake\r\nX-Amz-Meta-A: 1\r\nx-amz-meta-a:  2  3 \r\n"
        b"User-Agent: Boto3/1\r\nRange: bytes=0-9\r\nAccept-Encoding: gzip\r\n"
    )
    seen, _ = sent(b"GET /a HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert seen.header(b"x-amz-security-token") == [TOKEN.encode()]
    assert seen.header(b"x-amz-date") == [b"20270115T080000Z"]
    assert seen.header(b"date") == []
    assert seen.header(b"x-amz-s3session-token") == []
    assert seen.header(b"x-amz-meta-a") == [b"1", b"2  3"]
    assert seen.header(b"range") == [b"bytes=0-9"]
    assert seen.header(b"accept-encoding") == [b"identity"]
    seen, _ = sent(b"GET /a HTTP/1.1\r\n" + HOST + b"Range: bytes=0-9\r\n\r\n", DYNAMODB)
    assert seen.header(b"range") == []


SIGV4A = b"Authorization: AWS4-ECDSA-P256-SHA256 Credential=none/20270115/s3/aws4_request\r\n"
REFUSED = [
    (put(b"", fake().replace(b"eu-west-1", b"us-east-1")), 403, b"eu-west-1"),
    (put(b"", fake(b"dynamodb")), 403, b"another region or service"),
    (put(b"", fake() + fake(b"sqs")), 403, b"another region or service"),
    (put(b"", b"", b"/a?X-Amz-Credential=a%2F20270115%2Fus-east-1%2Fs3%2Faws4_request"), 403,
     b"another region"),
    (put(b"", SIGV4A), 400, b"SigV4a"),
    (put(b"", b"X-Amz-Region-Set: *\r\n"), 400, b"SigV4a"),
    (put(b"", b"", b"/a?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"), 400, b"SigV4a"),
    (put(b"", b"x-amz-content-sha256: STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD\r\n"), 400,
     b"SigV4a"),
    (put(b"", b"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-EVENTS\r\n"), 400, b"not known"),
    (put(b"", b"x-amz-content-sha256: " + ZERO[:-1] + b"\r\n"), 400, b"not known"),
    (put(b"", (b"x-amz-content-sha256: " + ZERO + b"\r\n") * 2), 400, b"more than once"),
    (b"GET /?session HTTP/1.1\r\n" + HOST + b"\r\n", 403, b"CreateSession"),
    (put(b"", b"x-amz-meta-a: \xc3\xa4\r\n"), 400, b"read differently"),
    (put(b"", b"x-amz-meta|a: 1\r\n"), 400, b"read differently"),
    (put(b"", b"").replace(b"PUT", b"Put"), 400, b"upper case"),
    (put(b"", b"x-amz-copy-source: /a/b\r\nX-Amz-Copy-Source: /c/d\r\n"), 400, b"one thing"),
    (put(b"", b"x-amz-target: A.B\r\n" * 2), 400, b"one thing"),
    (put(b"", b"", b"/?Action=A&a%63tion=B"), 400, b"more than one Action"),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400, b"needs a path"),
    (put(b"", b"", b"/a%2fb"), 400, b"no encoded slash"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "status", "said"), REFUSED)
def test_what_is_refused(request_: bytes, status: int, said: bytes) -> None:
    """Another scope, another kind of signature, keys in an answer: with the cause, in XML."""
    found, body = refused(request_)
    assert found == status
    assert said in body
    assert b"<Error><Code>" in body


def test_what_is_refused_elsewhere() -> None:
    """Streamed bodies are S3's; without TLS none goes unsigned."""
    word = b"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n"
    assert refused(put(CHUNKED, word), DYNAMODB)[0] == 400
    word = b"x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"
    status, body = refused(put(PLAIN_CHUNKS, word), encrypted=False)
    assert status == 400
    assert b"under TLS only" in body


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [limits.SIGNED_BODY_BYTES_MAX, limits.SIGNED_BODY_BYTES_MAX + 1])
def test_the_bound_of_a_held_body(size: int, declared: bool) -> None:
    """SIGNED_BODY_BYTES_MAX go; one more is 413, whether its length was said or not."""
    body = b"x" * size
    if declared:
        request = put(body, JSON, b"/")
    else:
        framed = b"Transfer-Encoding: chunked\r\n"
        request = put(b"%x\r\n%b\r\n0\r\n\r\n" % (size, body), JSON, b"/", framed=framed)
    if size <= limits.SIGNED_BODY_BYTES_MAX:
        _, verified = sent(request, DYNAMODB)
        assert len(verified.body) == size
    else:
        status, said = refused(request, DYNAMODB)
        assert status == 413
        assert b"x-amz-content-sha256" in said


@pytest.mark.parametrize("count", [limits.PARAMETERS_MAX, limits.PARAMETERS_MAX + 1])
def test_the_bound_of_a_query(count: int) -> None:
    """PARAMETERS_MAX are read and encoded anew; one more is 414."""
    request = b"GET /a?" + b"&".join([b"%61"] * count) + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    if count <= limits.PARAMETERS_MAX:
        seen, _ = sent(request)
        assert seen.target == b"/a?" + b"&".join([b"a"] * count)
    else:
        assert refused(request)[0] == 414


def test_expect_is_answered_where_the_body_is_held() -> None:
    """The loop waits for 100 before it sends what has to be whole before anything goes."""
    conductor, server = stage(DYNAMODB)
    head = b"POST / HTTP/1.1\r\n" + HOST + JSON
    conductor.down(head + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert conductor.to_loop == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not server.requests
    conductor.down(b"{}")
    [seen] = server.requests
    assert seen.header(b"expect") == []
    assert seen.body == b"{}"
    conductor.down_eof()
    conductor.check_ended()


def test_one_connection_after_another_request() -> None:
    """Kept alive: held, streamed and plain requests in turn, each signed for itself."""
    word = b"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n"
    requests = [
        put(CHUNKED + b"\r\n", word),
        put(b"abc", b""),
        b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n",
    ]
    conductor, server = stage()
    conductor.down(b"".join(requests * 3))
    conductor.down_eof()
    conductor.check_ended()
    assert len(server.requests) == 9
    first = server.requests[0].header(b"authorization")
    assert server.requests[3].header(b"authorization") == first  # the same second, the same bytes
    assert server.requests[1].header(b"authorization") != first


def test_a_broken_stream_ends_the_request() -> None:
    """What is no signed chunk goes no further: 400, and the connection ends."""
    word = b"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n"
    for body in (CHUNKED, CHUNKED[:-10] + b"\r\n\r\n", b"4\r\nabcd\r\n0\r\n\r\n"):
        conductor, server = stage()
        conductor.down(put(body, word))
        conductor.down_eof()
        conductor.check_ended()
        assert not server.requests
        assert conductor.to_loop.startswith(b"HTTP/1.1 400 ")
        assert b"chunk" in conductor.to_loop


@pytest.mark.parametrize("secret", [KEY_ID, SECRET, TOKEN])
def test_nothing_of_the_keys_comes_back(secret: str) -> None:
    """Not from an error that quotes the request, as those of S3 do."""
    spaced = secret.encode().hex(" ").encode()
    body = b"<Error><CanonicalRequest>" + secret.encode() + b"</CanonicalRequest>"
    body += b"<CanonicalRequestBytes>" + spaced + b"</CanonicalRequestBytes></Error>"
    answer = b"HTTP/1.1 403 Forbidden\r\nx-echo: %b\r\nContent-Length: %d\r\n\r\n%b"
    conductor, _ = stage(answers=(answer % (secret.encode(), len(body), body),))
    conductor.down(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
    conductor.down_eof()
    conductor.check_ended()
    assert secret.encode() not in conductor.to_loop
    assert spaced not in conductor.to_loop
    assert b"*" * len(secret) in conductor.to_loop


PART = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nok"
CODED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"
CODED_ERROR = CODED.replace(b"200 OK", b"403 Forbidden")


@pytest.mark.parametrize(
    ("aws", "answer", "status"),
    [
        (AwsOptions("s3", "eu-west-1"), PART, 206),
        (AwsOptions("s3", "eu-west-1"), CODED, 200),
        (AwsOptions("s3", "eu-west-1"), CODED_ERROR, 502),
        (AwsOptions("execute-api", "eu-west-1"), PART, 502),
        (AwsOptions("execute-api", "eu-west-1"), CODED, 502),
    ],
)
def test_what_was_stored_may_come_in_parts(aws: AwsOptions, answer: bytes, status: int) -> None:
    """S3's ranges and stored codings pass; an error, or another service, might echo the keys."""
    conductor, _ = stage(aws, answers=(answer,))
    conductor.down(b"GET /a HTTP/1.1\r\n" + HOST + b"Range: bytes=0-1\r\n\r\n")
    conductor.down_eof()
    [(found, _, _)] = read_answers(conductor.to_loop, [b"GET"], eof=True)
    assert found == status


FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


@pytest.mark.parametrize(
    ("service", "fields", "said"),
    [
        ("s3", b"", b"<Error><Code>DestinationMismatch</Code><Message>The request was"),
        ("ec2", FORM, b"<Response><Errors><Error><Code>DestinationMismatch</Code>"),
        ("sns", FORM, b"<ErrorResponse><Error><Type>Sender</Type><Code>DestinationMismatch</Code>"),
        ("dynamodb", JSON, b'"__type": "DestinationMismatch"'),
        ("lambda", b"", b'"code": "DestinationMismatch"'),
    ],
)
def test_answers_have_the_form_that_an_sdk_shows(service: str, fields: bytes, said: bytes) -> None:
    """XML or JSON as the service answers, with a code, a message and what to do."""
    other = FAKE % (b"other", ZERO)
    status, body = refused(put(b"", other + fields, b"/"), AwsOptions(service, "eu-west-1"))
    assert status == 403
    assert said in body
    assert b"Set the client" in body
    assert b"session SSSS" in body


FORMS = [
    (b"Action=TerminateInstances&Version=2016-11-15", ["TerminateInstances"]),
    (b"a=1&act%69on=Get%4Fne", ["GetOne"]),
    (b"Action=A&Action=B&" + b"Action=C&" * 9, ["A", "B", "C", "C"]),
    (b"Actions=1&x=Action", []),
    (b"x=1&" * limits.PARAMETERS_MAX + b"Action=A", ["(too many parameters)"]),
]


@pytest.mark.parametrize(("body", "actions"), FORMS)
@pytest.mark.parametrize("piece", [7, 65_536])
def test_the_record_says_what_a_form_asks_for(body: bytes, actions: list[str], piece: int) -> None:
    """Services with one path are told by the body what to do: so the record has it, before it."""
    conductor, server = stage(AwsOptions("ec2", "eu-west-1"))
    conductor.down(put(body, FORM, b"/").replace(b"PUT", b"POST"), piece)
    [intent] = [each for each in conductor.commands if isinstance(each, RecordIntent)]
    assert [said for key, said in intent.operation.attributes if key == "aws-action"] == actions
    assert [seen.body for seen in server.requests] == [body]


def test_the_record_says_what_a_call_is() -> None:
    """The action of a JSON service, that of a query, and what a copy reads."""
    conductor, _ = stage(DYNAMODB)
    path = b"/?Action=Get%49tem&Version=1"
    conductor.down(put(b"{}", JSON + b"x-amz-copy-source: /other/key\r\n", path))
    [operation] = [each.operation for each in conductor.commands if hasattr(each, "operation")][:1]
    said = dict(operation.attributes)
    assert said["aws-target"] == "DynamoDB_20120810.GetItem"
    assert said["aws-copy-source"] == "/other/key"
    assert said["aws-action"] == "GetItem"
    assert OK not in conductor.to_server


@pytest.mark.parametrize(
    "value",
    [b"Credential=", b"Credential=/", b"Credential=/11111111/", b"Credential=a/20270115/a/"],
)
def test_no_authorization_is_slow_to_read(value: bytes) -> None:
    """As much of it as a head may have is read within 50 ms, before anybody is asked about it."""
    lines = b"Authorization: " + value * (15_000 // len(value)) + b"\r\n"
    request = b"GET /a HTTP/1.1\r\n" + HOST + 2 * lines + b"\r\n"
    head = parse_request_head(request)
    assert isinstance(head, RequestHead)
    aws = AwsOptions("s3", "eu-west-1")
    assert is_quick(lambda: plan_payload(head, aws, encrypted=True), 0.05)


def test_a_body_in_many_pieces_is_held_at_the_cost_of_few() -> None:
    """Whoever sends it byte by byte keeps no other connection of the worker waiting."""
    size = 100_000
    head = parse_request_head(put(b"", JSON, b"/", framed=b"Content-Length: %d\r\n" % size))
    assert isinstance(head, RequestHead)
    payload = plan_payload(head, DYNAMODB, encrypted=True)
    assert isinstance(payload, Payload)
    operation = Operation(OperationId("o"), "http", "PUT", "/", ())
    exchanges = []

    def take() -> None:
        exchanges.append(exchange := Exchange(head, operation, 0, payload))
        for number in range(size):
            exchange.take_body(b"%c" % (number % 256))
            assert exchange.pending_bytes == number + 1

    assert is_quick(take, 2.0)
    body = bytes(number % 256 for number in range(size))
    assert exchanges[-1].whole_body() == (body, hashlib.sha256(body).hexdigest().encode())
    assert exchanges[-1].pending_bytes == 0
