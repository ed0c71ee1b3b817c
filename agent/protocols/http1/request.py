"""Request heads: validated as one block, then a model, or Malformed (RFC 9112 sections 2, 3, 5, 6).

Nothing is forwarded from here. `canonical` holds the field lines that may go upstream, in the
order and spelling they came in, with one space after the colon.
"""

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

from agent.protocols.http1 import fields as names
from agent.protocols.http1.fields import BAD, DROPPED, PLAIN
from agent.protocols.http1.limits import (
    ATTRIBUTE_CHARS_MAX,
    BODY_BYTES_MAX,
    CACHED_HEAD_BYTES_MAX,
    CACHED_HEADS,
    FIELD_LINE_BYTES_MAX,
    FIELDS_MAX,
    METHOD_BYTES_MAX,
    QUERY_KEYS_MAX,
    REQUEST_LINE_BYTES_MAX,
)
from agent.protocols.http1.malformed import Malformed, bad
from agent.protocols.http1.request_target import parse_request_target

# HTAB, printable ASCII and obs-text; what is left of a head are its CRs, LFs and bad bytes
SPACE = 0x20
FIELD_BYTES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_REQUEST_LINE = re.compile(
    rb"([!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d}) ([\x21-\x7e]+) HTTP/1\.([01])" % METHOD_BYTES_MAX
)
_LENGTH = re.compile(rb"[0-9]{1,16}")
_IGNORED_OFFERS = re.compile(rb"(?i:h2c|tls/[0-9.]+)(?:[ \t]*,[ \t]*(?i:h2c|tls/[0-9.]+))*")
_CONNECTION = frozenset(
    (b"close", b"keep-alive", b"te", b"upgrade", b"http2-settings", b"proxy-connection", b"trailer")
)
_LISTS = frozenset({names.CONNECTION, names.AUTHORIZATION})
_COMMON_CONNECTION = {
    name: frozenset((name.lower(),)) for name in (b"close", b"keep-alive", b"Close", b"Keep-Alive")
}


class RequestHead(NamedTuple):
    """One request, canonical. length None and not chunked: no body.

    A named tuple because it is made for each request: 1.4 µs less than a frozen dataclass.
    """

    method: bytes
    path: bytes
    query: bytes | None
    host: bytes | None
    minor: int
    length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    upgrade: bytes | None
    canonical: tuple[tuple[int, bytes, bytes], ...]  # role, lower-case name, "Name: value"
    attributes: tuple[tuple[str, str], ...]
    verb: str
    resource: str
    authorization: bytes = b""  # the sender's own, of all its lines: it is never forwarded

    @property
    def has_body(self) -> bool:
        """Whether at least one body byte (or a chunked body) follows."""
        return self.chunked or bool(self.length)


def parse_request_head(block: bytes) -> RequestHead | Malformed:
    """Parse a head that ends with its empty line. The last CACHED_HEADS short ones are kept."""
    return _recurring(block) if len(block) <= CACHED_HEAD_BYTES_MAX else _parse(block)


def check_request_line(line: bytes) -> re.Match[bytes] | Malformed:
    """Match a request line given without its CRLF."""
    if len(line) > REQUEST_LINE_BYTES_MAX:
        return bad("the request line is too long", 414)
    match = _REQUEST_LINE.fullmatch(line)
    return match or bad("not a request line of HTTP/1.0 or HTTP/1.1")


def _parse(block: bytes) -> RequestHead | Malformed:
    lines = block.split(b"\r\n")
    first = check_request_line(lines[0])
    if isinstance(first, Malformed):
        return first
    if len(lines) - 3 > FIELDS_MAX:
        return bad("too many header fields", 431)
    if len(block.translate(None, FIELD_BYTES)) != 2 * (len(lines) - 1):
        return bad("the head has a bare CR, a bare LF or a control byte")
    method, target, minor = first.groups()
    parts = parse_request_target(method, target)
    if isinstance(parts, Malformed):
        return parts
    if len(block) > FIELD_LINE_BYTES_MAX and len(max(lines[1:], key=len)) > FIELD_LINE_BYTES_MAX:
        return bad("a header field is too long", 431)
    draft = _Draft()
    canonical, request_field = draft.canonical, names.request_field
    for line in lines[1:-2]:
        name, colon, value = line.partition(b":")
        role, lower = request_field(name)
        if role == BAD or not colon:
            return bad("not a header field line")
        bare = value.strip(b" \t")
        spaced = len(value) == len(bare) + 1 and value[0] == SPACE
        text = line if spaced else name + b": " + bare
        if role == PLAIN:
            canonical.append((role, lower, text))
        elif role != DROPPED:
            problem = draft.add(role, lower, text, bare)
            if problem is not None:
                return problem
    return draft.finish(method, parts, one_one=minor == b"1")


class _Draft:
    """What the field lines have said so far."""

    __slots__ = (
        "authorization",
        "canonical",
        "chunked",
        "connection",
        "expect",
        "host",
        "length",
        "seen",
        "upgrade",
    )

    def __init__(self) -> None:
        self.canonical: list[tuple[int, bytes, bytes]] = []
        self.seen: dict[bytes, bytes] = {}  # fields that may come once
        self.connection: bytes | None = None
        self.authorization = b""
        self.host: bytes | None = None
        self.length: bytes | None = None
        self.chunked = False
        self.expect = False
        self.upgrade: bytes | None = None

    def add(self, role: int, lower: bytes, line: bytes, value: bytes) -> Malformed | None:
        """Take a field that has a role of its own."""
        if role in _LISTS:
            self._join(role, value)
            return None
        if role == names.REFUSED:
            return bad(f"the field {lower.decode()} says another method or path: send that itself")
        if lower in self.seen:
            return bad(f"the field {lower.decode()} comes more than once")
        self.seen[lower] = value
        match role:
            case names.HOST:
                self.host = value
            case names.LENGTH:
                if not _LENGTH.fullmatch(value) or int(value) > BODY_BYTES_MAX:
                    return bad("content-length is not one number")
                self.length = value
            case names.TRANSFER:
                if value.lower() != b"chunked":
                    return bad("transfer-encoding is not exactly chunked")
                self.chunked = True
            case names.EXPECT:
                if value.lower() != b"100-continue":
                    return bad("only Expect: 100-continue is known", 417)
                self.expect = True
            case names.UPGRADE:
                self.upgrade = value
            case _:
                self.canonical.append((role, lower, line))
        return None

    def _join(self, role: int, value: bytes) -> None:
        if role == names.AUTHORIZATION:
            self.authorization += b"," + value if self.authorization else value
        else:
            self.connection = value if self.connection is None else self.connection + b"," + value

    def finish(
        self, method: bytes, parts: tuple[bytes, bytes | None, bytes | None], *, one_one: bool
    ) -> RequestHead | Malformed:
        """Check what only the whole head can tell, and return the model."""
        path, query, authority = parts
        problem = self._check(authority, one_one=one_one)
        if problem is not None:
            return problem
        tokens = connection_tokens(self.connection)
        if not tokens <= _CONNECTION:
            return bad("Connection names a field that is not hop-by-hop")
        keep = b"close" not in tokens and (one_one or b"keep-alive" in tokens)
        length = None if self.length is None else int(self.length)
        resource = path.decode("ascii")
        return RequestHead(
            method, path, query, self.host, int(one_one), length, self.chunked, keep,
            self.expect and one_one and (self.chunked or bool(length)),
            self._upgrade(), tuple(self.canonical), self._attributes(query),
            method.decode(), resource, self.authorization,
        )  # fmt: skip

    def _check(self, authority: bytes | None, *, one_one: bool) -> Malformed | None:
        if self.host is None and one_one:
            return bad("no Host")
        if authority is not None and authority.lower() != (self.host or b"").lower():
            return bad("the absolute-form's authority is not Host")
        if self.chunked and self.length is not None:
            return bad("content-length and transfer-encoding together")
        if self.chunked and not one_one:
            return bad("transfer-encoding in HTTP/1.0")
        return None

    def _upgrade(self) -> bytes | None:
        """Offers of h2c (RFC 9113 removed it) and TLS may be ignored, others change the protocol.

        Clients that make these two offers in clear text go on without (RFC 9110 section 7.8).
        """
        offer = self.upgrade
        return None if offer is None or _IGNORED_OFFERS.fullmatch(offer) else offer

    def _attributes(self, query: bytes | None) -> tuple[tuple[str, str], ...]:
        found: list[tuple[str, str]] = []
        if query:
            keys = [pair.partition(b"=")[0] for pair in query.split(b"&", QUERY_KEYS_MAX)]
            found.append(("query-keys", bounded(b",".join(keys[:QUERY_KEYS_MAX]))))
        if self.length is not None:
            found.append(("content-length", self.length.decode()))
        for name, key in ((b"content-type", "content-type"), (b"user-agent", "user-agent")):
            if name in self.seen:
                found.append((key, bounded(self.seen[name])))
        return tuple(found)


def connection_tokens(value: bytes | None) -> frozenset[bytes]:
    """Return the options of all Connection fields, in lower case."""
    if value is None:
        return frozenset()
    known = _COMMON_CONNECTION.get(value)
    if known is not None:
        return known
    tokens = (token.strip(b" \t").lower() for token in value.split(b","))
    return frozenset(token for token in tokens if token)


def bounded(value: bytes) -> str:
    """Return text for a record: escaped, and over-long as head, hash and tail."""
    if len(value) <= ATTRIBUTE_CHARS_MAX and value.isascii():
        return value.decode()
    text = value.decode("ascii", "backslashreplace")
    if len(text) <= ATTRIBUTE_CHARS_MAX:
        return text
    return f"{text[:150]}…sha256:{hashlib.sha256(value).hexdigest()[:32]}…{text[-50:]}"


_recurring = lru_cache(CACHED_HEADS)(_parse)
