"""Invariant: whatever goes to AWS has one signature, ours, as AWS checks it.

The oracle is botocore, behind h11.
"""

from tests.conformance.conductor import READ_BYTES
from tests.fuzz.engine import main
from tests.protocols.http1.signed import DYNAMODB, HOST, KEY_ID, NOW, S3, SECRET, TOKEN, fake, stage
from tests.servers.aws_verifier import Keys, verify

ZERO = b"0" * 64
CHUNKS = b"2;chunk-signature=" + ZERO + b"\r\nab\r\n0;chunk-signature=" + ZERO + b"\r\n\r\n"
SEEDS = (
    b"GET /a%20b/c=d?list-type=2&prefix=a/b+c&acl HTTP/1.1\r\n" + HOST + fake() + b"\r\n",
    b"PUT /a HTTP/1.1\r\n" + HOST + b"x-amz-meta-a: 1  2\r\nx-amz-meta-a: 3\r\n"
    b"Content-Length: 2\r\n\r\nab",
    b"PUT /a HTTP/1.1\r\n" + HOST + b"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n"
    b"Content-Length: %d\r\n\r\n" % len(CHUNKS) + CHUNKS,
    b"GET /a?X-Amz-Signature=0&X-Amz-Credential=a%2F20270115%2Feu-west-1%2Fs3%2Faws4_request"
    b" HTTP/1.1\r\n" + HOST + b"Content-Type:  text/plain ;x\r\nContent-MD5: a\r\n\r\n",
)  # fmt: skip


def check(data: bytes) -> None:
    """Send it to S3 and to a JSON service."""
    for aws in (S3, DYNAMODB):
        conductor, server = stage(aws)
        conductor.down(data, READ_BYTES)
        conductor.down_eof()
        known = {KEY_ID: Keys(SECRET, TOKEN)}
        for seen in server.requests:
            headers = [(name.decode(), value.decode("latin-1")) for name, value in seen.headers]
            target = seen.target.decode()
            verify(seen.method.decode(), target, headers, seen.body, known, now=NOW)


if __name__ == "__main__":
    main("aws_request")
