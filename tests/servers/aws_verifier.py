"""What AWS does with a signed request: signature, body and chunks checked, by botocore's hash.

botocore makes the canonical request and the string to sign; chunks are checked by hand here, for
botocore signs none. Independent of agent/wire/aws.
"""

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SKEW_S = 900.0
EMPTY = hashlib.sha256(b"").hexdigest()
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([a-z0-9;._-]+), Signature=([0-9a-f]{64})"
)
_CHUNK = re.compile(rb"([0-9a-fA-F]+);chunk-signature=([0-9a-f]{64})\r\n")


class WrongSignature(Exception):
    """AWS would answer 403 SignatureDoesNotMatch, or 400."""


@dataclass(frozen=True, slots=True)
class Keys:
    """A pair of keys that the service knows. token "" of an operator's own."""

    secret: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """A request that is signed as it has to be."""

    access_key_id: str
    region: str
    service: str
    payload: str  # what stood for the body's hash
    body: bytes  # without the aws-chunked coding


def verify(
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    known: Mapping[str, Keys],
    *,
    now: dt.datetime,
) -> Verified:
    """Check a request. headers: names in any case, in order.

    Raises:
        WrongSignature: it is not signed, or not so.
    """
    named: dict[str, list[str]] = {}
    for name, value in headers:
        named.setdefault(name.lower(), []).append(value)
    authorization = named.get("authorization", [])
    found = _AUTHORIZATION.fullmatch(authorization[0]) if len(authorization) == 1 else None
    if found is None:
        raise WrongSignature(f"{len(authorization)} signatures")
    key_id, day, region, service, names, signature = found.groups()
    if re.search(r"[?&]x-amz-(signature|credential|security-token)=", target, re.IGNORECASE):
        raise WrongSignature("two signatures")
    keys = known.get(key_id)
    if keys is None:
        raise WrongSignature("unknown key")
    if named.get("x-amz-security-token", [""]) != [keys.token]:
        raise WrongSignature("wrong token")
    signed = names.split(";")
    _check_names(named, signed)
    stamp = named["x-amz-date"][0]
    moment = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    if abs((moment - now).total_seconds()) > SKEW_S or not stamp.startswith(day):
        raise WrongSignature("RequestTimeTooSkewed")
    s3 = service == "s3"
    request = AWSRequest(method, _url(target, named["host"][0], s3=s3), data=body)
    for name in signed:
        for value in named.get(name, []):
            request.headers[name] = value  # an email message: each adds a line
    request.context["timestamp"] = stamp
    auth = (S3SigV4Auth if s3 else SigV4Auth)(Credentials(key_id, keys.secret), service, region)
    payload = named.get("x-amz-content-sha256", [hashlib.sha256(body).hexdigest()])[0]
    if "x-amz-content-sha256" not in named and s3:
        raise WrongSignature("S3 wants x-amz-content-sha256")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    if auth.signature(text, request) != signature:
        raise WrongSignature("SignatureDoesNotMatch")
    scope = f"{day}/{region}/{service}/aws4_request"
    plain = _payload(payload, body, _key(keys.secret, scope), f"{stamp}\n{scope}", signature)
    return Verified(key_id, region, service, payload, plain)


def _check_names(named: Mapping[str, Sequence[str]], signed: Sequence[str]) -> None:
    must = {"host"} | {name for name in named if name.startswith("x-amz-")}
    if not must <= set(signed) or not set(signed) <= set(named) or list(signed) != sorted(signed):
        raise WrongSignature(f"signed headers are {signed}")


def _url(target: str, host: str, *, s3: bool) -> str:
    path, mark, query = target.partition("?")
    if s3:  # the server's own encoding of the key
        path = quote(unquote(path), safe="/~")
    return f"https://{host}{path}{mark}{query}"


def _key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _payload(word: str, body: bytes, key: bytes, context: str, seed: str) -> bytes:
    match word:
        case "UNSIGNED-PAYLOAD":
            return body
        case "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
            return _unsigned_chunks(body)
        case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
            plain, rest, _ = _chunks(body, key, context, seed)
            if rest != b"\r\n":
                raise WrongSignature("bytes behind the last chunk")
            return plain
        case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER":
            plain, rest, last = _chunks(body, key, context, seed)
            lines = rest.replace(b"\r\n", b"\n").strip(b"\n").split(b"\n")
            hashed = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
            text = f"AWS4-HMAC-SHA256-TRAILER\n{context}\n{last}\n{hashed}"
            if lines[-1] != b"x-amz-trailer-signature:" + _hex(key, text).encode():
                raise WrongSignature("the trailer")
            return plain
    if hashlib.sha256(body).hexdigest() != word:
        raise WrongSignature("XAmzContentSHA256Mismatch")
    return body


def _chunks(body: bytes, key: bytes, context: str, last: str) -> tuple[bytes, bytes, str]:
    plain = b""
    while True:
        head = _CHUNK.match(body)
        if head is None:
            raise WrongSignature("no chunk")
        size = int(head[1], 16)
        data = body[head.end() : head.end() + size]
        hashed = hashlib.sha256(data).hexdigest()
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{context}\n{last}\n{EMPTY}\n{hashed}"
        last = _hex(key, text)
        if last.encode() != head[2]:
            raise WrongSignature("a chunk's signature")
        body = body[head.end() + size :]
        if not size:
            return plain, body, last
        plain, body = plain + data, body.removeprefix(b"\r\n")


def _unsigned_chunks(body: bytes) -> bytes:
    plain = b""
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            return plain
        plain, body = plain + body[:size], body[size + 2 :]


def _hex(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
