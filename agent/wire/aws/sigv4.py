"""AWS Signature Version 4: what of a request is signed, and the signature.

Source: AWS General Reference, "Create a signed AWS API request"; Amazon S3 API Reference,
"Authenticating Requests". The oracle of the tests is botocore. What is hashed is what is sent:
the caller puts exactly `path`, `sent_query(query)`, `fields` and `Signed.lines` on the wire.
"""

import datetime as dt
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

from agent.model.credential import AwsKeys

ALGORITHM = b"AWS4-HMAC-SHA256"
UNSIGNED = b"UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest().encode()
# paths are encoded once, and the payload's hash is a field; elsewhere paths are encoded twice
S3_LIKE = frozenset({"s3", "s3-outposts", "s3-object-lambda"})
QUERIES_CACHED = 8  # read apart for one request several times
_UNRESERVED = re.compile(rb"[A-Za-z0-9\-._~]*")
_UNRESERVED_PATH = re.compile(rb"[A-Za-z0-9\-._~/]*")


@dataclass(frozen=True, slots=True)
class Moment:
    """A second, as signatures name it: 20261123T063000Z."""

    text: bytes

    @property
    def day(self) -> bytes:
        """Its date."""
        return self.text[:8]


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A request's signed parts. fields: lower-case names and values; Host is one of them.

    payload: the hexadecimal SHA-256 of the body, or one of SigV4's words in its place.
    """

    method: bytes
    path: bytes
    query: bytes | None
    fields: tuple[tuple[bytes, bytes], ...]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """The field lines to add, and what signatures of chunks go on from. No repr shows a line."""

    lines: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)
    chain: "Chain"


class Chain:
    """Signatures of a streamed body: each is over its chunk and the signature before."""

    __slots__ = ("_key", "_last", "_moment", "_scope")

    def __init__(self, key: bytes, moment: Moment, scope: bytes, seed: bytes) -> None:
        self._key = key
        self._moment = moment
        self._scope = scope
        self._last = seed

    def chunk(self, data: bytes) -> bytes:
        """Return the signature of the next chunk; the last one is empty."""
        digest = hashlib.sha256(data).hexdigest().encode()
        return self._next(ALGORITHM + b"-PAYLOAD", EMPTY_SHA256 + b"\n" + digest)

    def trailer(self, canonical: bytes) -> bytes:
        """Return the signature of the trailer: "name:value" lines, each with its LF."""
        digest = hashlib.sha256(canonical).hexdigest().encode()
        return self._next(ALGORITHM + b"-TRAILER", digest)

    def _next(self, algorithm: bytes, digests: bytes) -> bytes:
        lines = (algorithm, self._moment.text, self._scope, self._last, digests)
        self._last = _hex(self._key, b"\n".join(lines))
        return self._last


class Signer:
    """Signs with some keys for one region and service. It has no repr that shows them.

    Raises:
        ValueError: the keys can't stand in a request. The text does not quote them.
    """

    __slots__ = (
        "_id",
        "_key",
        "_key_day",
        "_region",
        "_s3",
        "_second",
        "_secret",
        "_service",
        "_text",
        "_token",
    )  # fmt: skip

    def __init__(self, keys: AwsKeys, region: str, service: str) -> None:
        self._id = keys.access_key_id.reveal()
        self._secret = keys.secret_access_key.reveal()
        self._token = b"" if keys.session_token is None else keys.session_token.reveal()
        plain = re.compile(rb"[!-+\--~]*")  # printable, no space and no comma
        if not self._id or not all(plain.fullmatch(each) for each in (self._id, self._token)):
            raise ValueError("the keys do not fit a header field")
        self._region, self._service = region.encode(), service.encode()
        self._s3 = service in S3_LIKE
        self._key_day = self._key = b""
        self._second, self._text = -1, b""

    def sign(self, request: Unsigned, unix_ms: int) -> Signed:
        """Sign a request at a moment."""
        moment = self._moment(unix_ms // 1000)
        fields = [*request.fields, (b"x-amz-date", moment.text)]
        if self._token:
            fields.append((b"x-amz-security-token", self._token))
        if self._s3:
            fields.append((b"x-amz-content-sha256", request.payload))
        added = fields[len(request.fields) :]
        names, canonical_fields = _canonical_fields(fields)
        uri = canonical_uri(request.path, s3=self._s3)
        canonical = b"\n".join(
            (request.method, uri, canonical_query(request.query), canonical_fields, names,
             request.payload)
        )  # fmt: skip
        scope = b"/".join((moment.day, self._region, self._service, b"aws4_request"))
        digest = hashlib.sha256(canonical).hexdigest().encode()
        key = self._derived(moment.day)
        signature = _hex(key, b"\n".join((ALGORITHM, moment.text, scope, digest)))
        lines = [name + b": " + value for name, value in added]
        lines.append(
            b"authorization: %b Credential=%b/%b, SignedHeaders=%b, Signature=%b"
            % (ALGORITHM, self._id, scope, names, signature)
        )
        return Signed(tuple(lines), signature, Chain(key, moment, scope, signature))

    def _moment(self, second: int) -> Moment:
        if second != self._second:
            when = dt.datetime.fromtimestamp(second, dt.UTC)
            self._second, self._text = second, f"{when:%Y%m%dT%H%M%SZ}".encode()
        return Moment(self._text)

    def _derived(self, day: bytes) -> bytes:
        """Return the day's key: the secret itself signs nothing."""
        if day != self._key_day:
            key = b"AWS4" + self._secret
            for part in (day, self._region, self._service, b"aws4_request"):
                key = hmac.digest(key, part, "sha256")
            self._key_day, self._key = day, key
        return self._key


def canonical_uri(path: bytes, *, s3: bool) -> bytes:
    """Return the path as it is hashed.

    S3: each segment encoded once, whatever of it came encoded. Others: the path as sent, encoded.
    """
    if _UNRESERVED_PATH.fullmatch(path):
        return path
    if not s3:
        return quote_from_bytes(path, safe="/").encode()
    segments = (quote_from_bytes(unquote_to_bytes(each), safe="") for each in path.split(b"/"))
    return "/".join(segments).encode()


def canonical_query(query: bytes | None) -> bytes:
    """Return a query as it is hashed: sorted, and each name with its "=". Of what is sent."""
    if not query:
        return b""
    parted = (pair.partition(b"=") for pair in query.split(b"&"))
    return b"&".join(name + b"=" + value for name, _, value in sorted(parted))


def sent_query(query: bytes | None, without: frozenset[bytes]) -> bytes | None:
    """Return the query to send: no parameter of these lower-case names, and one encoding.

    A "+" is sent as the space that it is to query parsers (WHATWG URL, form-urlencoded); nothing
    but unreserved characters stays unencoded, so that server and signature read the same.
    """
    if query is None:
        return None
    kept = [
        _strict(name) + mark + _strict(value)
        for decoded, name, mark, value in _pairs(query)
        if decoded not in without
    ]
    return b"&".join(kept) or None


def query_values(query: bytes | None, name: bytes) -> list[bytes]:
    """Return the decoded values of all parameters of a lower-case name, in any spelling."""
    if not query or (b"%" not in query and name not in query.lower()):
        return []
    return [_decoded(value) for found, _, _, value in _pairs(query) if found == name]


@lru_cache(QUERIES_CACHED)
def _pairs(query: bytes) -> tuple[tuple[bytes, bytes, bytes, bytes], ...]:
    """Return decoded lower-case name, name, "=" and value of each pair that is not empty."""
    parted = (pair.partition(b"=") for pair in query.split(b"&") if pair)
    return tuple((_decoded(name).lower(), name, mark, value) for name, mark, value in parted)


def _decoded(text: bytes) -> bytes:
    if b"%" in text or b"+" in text:
        return unquote_to_bytes(text.replace(b"+", b" "))
    return text


def _strict(text: bytes) -> bytes:
    if _UNRESERVED.fullmatch(text):
        return text
    return quote_from_bytes(_decoded(text), safe="").encode()


def _canonical_fields(fields: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return the names joined by ";", and the lines; values of one name are joined by ","."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(b" ".join(value.split()))
    names = sorted(found)
    lines = b"".join(name + b":" + b",".join(found[name]) + b"\n" for name in names)
    return b";".join(names), lines


def _hex(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256").hex().encode()
