"""What a loop does with AWS' own SDK, unmodified and with keys of nobody. Prints a line each."""

import hashlib
import http.client
import io
import json
import os
import ssl
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

REGION, BUCKET = "eu-west-1", "reports"
VIRTUAL = f"{BUCKET}.s3.{REGION}.amazonaws.com"
BIG = os.urandom(1 << 20) * 12 + b"end"
ODD = "odd/a b+c=d&(e)~f/ä€'*!@$,:;.txt"
ZERO = b"0" * 64


def s3(**settings: Any) -> Any:
    """Return a client."""
    settings.setdefault("retries", {"total_max_attempts": 1})
    return boto3.client("s3", config=Config(**settings))


def say(name: str, value: object) -> None:
    """Print a line."""
    print(json.dumps({name: value}), flush=True)


def attempt(name: str, call: Callable[[], object]) -> None:
    """Print what came of a call, or the error as the SDK shows it."""
    try:
        say(name, call())
    except ClientError as error:
        say(name, f"{type(error).__name__}: {error}")


def read(client: Any, key: str) -> str:
    """Return an object's digest."""
    return hashlib.sha256(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()).hexdigest()


def same(client: Any, key: str, body: bytes) -> bool:
    """Whether an object is what was put there."""
    return read(client, key) == hashlib.sha256(body).hexdigest()


def buckets() -> None:
    """Objects of a bucket: small, big, odd, streamed, hashed, without any signature."""
    client = s3()
    client.put_object(Bucket=BUCKET, Key="small", Body=b"small", Metadata={"a": "1  2"})
    say("small", same(client, "small", b"small"))
    say("metadata", client.head_object(Bucket=BUCKET, Key="small")["Metadata"])
    client.put_object(Bucket=BUCKET, Key="stream", Body=io.BytesIO(b"streamed" * 9_999))
    say("stream", same(client, "stream", b"streamed" * 9_999))
    client.put_object(Bucket=BUCKET, Key=ODD, Body=b"odd")
    say("odd", same(client, ODD, b"odd"))
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="odd/a b+c=d&(e)~f/", Delimiter="/")
    say("listed", [each["Key"] for each in listed["Contents"]] == [ODD])
    client.upload_fileobj(io.BytesIO(BIG), BUCKET, "big")
    target = io.BytesIO()
    client.download_fileobj(BUCKET, "big", target)
    say("big", target.getvalue() == BIG)
    part = client.get_object(Bucket=BUCKET, Key="big", Range="bytes=5-9")
    say("range", (part["ResponseMetadata"]["HTTPStatusCode"], part["Body"].read() == BIG[5:10]))
    signing = {"payload_signing_enabled": True}
    hashed = s3(s3=signing, request_checksum_calculation="when_required")
    hashed.put_object(Bucket=BUCKET, Key="hashed", Body=b"hashed")
    say("hashed", same(hashed, "hashed", b"hashed"))
    nobody = s3(signature_version=UNSIGNED)
    nobody.put_object(Bucket=BUCKET, Key="nobody", Body=b"nobody")
    say("nobody", same(nobody, "nobody", b"nobody"))
    path_style = s3(s3={"addressing_style": "path"})
    say("path style", same(path_style, "small", b"small"))
    client.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "small"})
    say("copy", same(client, "copy", b"small"))


def presigned() -> None:
    """URLs of both versions, by a client that is no SDK."""
    config = Config(signature_version="s3", s3={"addressing_style": "path"})
    old = boto3.client("s3", endpoint_url=f"https://s3.{REGION}.amazonaws.com", config=config)
    new = s3(signature_version="s3v4", s3={"addressing_style": "virtual"})
    for version, client in (("s3v4", new), ("s3", old)):
        parameters = {"Bucket": BUCKET, "Key": f"by {version}"}
        url = client.generate_presigned_url("put_object", parameters)
        kind = {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, b"presigned", kind, method="PUT")
        urllib.request.urlopen(request).close()
        with urllib.request.urlopen(client.generate_presigned_url("get_object", parameters)) as got:
            say(f"presigned {version}", got.read() == b"presigned")


def chunked() -> None:
    """Signed chunks, as the SDKs for Java and Go make them; the signatures are of nobody."""
    body = b""
    for chunk in (b"a" * 65_536, b"b" * 1_024, b""):
        body += b"%x;chunk-signature=%b\r\n%b" % (len(chunk), ZERO, chunk)
        body += b"\r\n" if chunk else b""
    ends = {
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": b"\r\n",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": (
            b"x-amz-checksum-crc32:8I1D+A==\r\nx-amz-trailer-signature:" + ZERO + b"\r\n\r\n"
        ),
    }
    for word, end in ends.items():
        connection = http.client.HTTPSConnection(VIRTUAL, context=ssl.create_default_context())
        headers = {
            "x-amz-content-sha256": word,
            "Content-Encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(65_536 + 1_024),
        }
        if word.endswith("TRAILER"):
            headers["x-amz-trailer"] = "x-amz-checksum-crc32"
        connection.request("PUT", "/chunked", body + end, headers)
        status = connection.getresponse().status
        say(word, (status, same(s3(), "chunked", b"a" * 65_536 + b"b" * 1_024)))
        connection.close()


def services() -> None:
    """JSON and form-encoded services."""
    table = boto3.client("dynamodb")
    table.create_table(
        TableName="t",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    table.put_item(TableName="t", Item={"k": {"S": "a"}, "v": {"S": "x" * 300_000}})
    say("dynamodb", len(table.get_item(TableName="t", Key={"k": {"S": "a"}})["Item"]["v"]["S"]))
    items = [{"k": {"S": str(number)}, "v": {"S": "x" * 380_000}} for number in range(25)]
    writes = [{"PutRequest": {"Item": item}} for item in items]
    table.batch_write_item(RequestItems={"t": writes})
    say("nine megabytes", table.scan(TableName="t", Select="COUNT")["Count"] > 1)
    queue = boto3.client("sqs")
    url = queue.create_queue(QueueName="q")["QueueUrl"]
    queue.send_message(QueueUrl=url, MessageBody="hello")
    say("sqs", queue.receive_message(QueueUrl=url)["Messages"][0]["Body"])
    topic = boto3.client("sns").create_topic(Name="n")["TopicArn"]
    say("sns", topic.rpartition(":")[2])


def denied() -> None:
    """What the policy denies, and a region that is another one, as the SDK shows it."""
    client = s3()
    attempt("delete", lambda: client.delete_object(Bucket=BUCKET, Key="small"))
    secrets = boto3.client("secretsmanager")
    attempt("json", lambda: secrets.get_secret_value(SecretId="a"))
    attempt("session", lambda: client.create_session(Bucket=BUCKET))
    attempt("form", lambda: boto3.client("sts").get_caller_identity())
    far = boto3.client("s3", "us-east-1", endpoint_url=f"https://s3.{REGION}.amazonaws.com")
    attempt("region", lambda: far.list_objects_v2(Bucket=BUCKET))


for name in sys.argv[1:]:
    globals()[name]()
