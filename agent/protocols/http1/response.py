"""Response heads. The server is untrusted too: same framing strictness as for requests.

What goes downstream is `canonical`: end-to-end field lines only, without framing (written anew
from how the body is really sent), Alt-Svc and fields of ours.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from agent.protocols.http1 import fields as names
from agent.protocols.http1.fields import BAD, DROPPED, PLAIN
from agent.protocols.http1.limits import (
    BODY_BYTES_MAX,
    CACHED_HEAD_BYTES_MAX,
    CACHED_HEADS,
    FIELD_LINE_BYTES_MAX,
    FIELDS_MAX,
)
from agent.protocols.http1.malformed import Malformed, bad
from agent.protocols.http1.request import FIELD_BYTES, SPACE, connection_tokens

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_VERSION = b"HTTP/1."
NO_STATUS_LINE = "the upstream's status line is not HTTP/1.0 or HTTP/1.1"
_NO_CONTENT = 204
_LENGTH = re.compile(rb"[0-9]{1,16}")
_IDENTITY = frozenset((b"", b"identity"))
_KEPT = frozenset((b"content-length", b"transfer-encoding", b"content-type", b"set-cookie"))


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """One response head. length None and not chunked: the body ends with the connection."""

    status: int
    status_line: bytes  # "HTTP/1.1 200 OK", always 1.1: our own version
    length: int | None
    chunked: bool
    keep_alive: bool
    coded: bool  # a content-coding that the scrubber can't look into
    canonical: bytes  # "Name: value\r\n" lines


def parse_response_head(block: bytes) -> ResponseHead | Malformed:
    """Parse a head that ends with its empty line. The last CACHED_HEADS short ones are kept."""
    return _recurring(block) if len(block) <= CACHED_HEAD_BYTES_MAX else _parse(block)


def may_begin(data: bytes) -> bool:
    """Whether a head may begin so. A server that speaks something else may never end its head."""
    line, newline, _ = data.partition(b"\n")
    if not newline:
        return line[: len(_VERSION)] == _VERSION[: len(line)]
    return line[-1:] == b"\r" and _STATUS_LINE.fullmatch(line[:-1]) is not None


def _parse(block: bytes) -> ResponseHead | Malformed:
    lines = block.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(lines[0])
    if not status:
        return bad(NO_STATUS_LINE, 502)
    if len(lines) - 3 > FIELDS_MAX:
        return bad("the upstream sent too many header fields", 502)
    if len(block.translate(None, FIELD_BYTES)) != 2 * (len(lines) - 1):
        return bad("the upstream's head has a bare CR, a bare LF or a control byte", 502)
    if len(block) > FIELD_LINE_BYTES_MAX and len(max(lines, key=len)) > FIELD_LINE_BYTES_MAX:
        return bad("the upstream sent a header field that is too long", 502)
    draft = _Draft()
    for line in lines[1:-2]:
        problem = draft.add(line)
        if problem is not None:
            return problem
    minor, code, reason = status.groups()
    return draft.finish(int(code), b"HTTP/1.1 %b %b" % (code, reason or b""), one_one=minor == b"1")


class _Draft:
    """What the field lines have said so far."""

    __slots__ = ("canonical", "chunked", "coded", "connection", "length", "seen")

    def __init__(self) -> None:
        self.canonical: list[tuple[bytes, bytes]] = []
        self.seen: set[bytes] = set()
        self.connection: bytes | None = None
        self.length: int | None = None
        self.chunked = False
        self.coded = False

    def add(self, line: bytes) -> Malformed | None:
        """Take one field line."""
        name, colon, value = line.partition(b":")
        role, lower = names.response_field(name)
        if role == BAD or not colon:
            return bad("the upstream sent what is not a header field line", 502)
        bare = value.strip(b" \t")
        if len(value) != len(bare) + 1 or value[0] != SPACE:
            line = name + b": " + bare
        if role == PLAIN:
            self.canonical.append((lower, line))
            return None
        return None if role == DROPPED else self._add_known(role, lower, line, bare)

    def _add_known(self, role: int, lower: bytes, line: bytes, value: bytes) -> Malformed | None:
        if role == names.CONNECTION:
            self.connection = value if self.connection is None else self.connection + b"," + value
            return None
        if role == names.CODING:
            self.coded = self.coded or value.lower() not in _IDENTITY
            self.canonical.append((lower, line))
            return None
        if lower in self.seen:
            return bad(f"the upstream sent {lower.decode()} more than once", 502)
        self.seen.add(lower)
        if role == names.LENGTH:
            if not _LENGTH.fullmatch(value) or int(value) > BODY_BYTES_MAX:
                return bad("the upstream's content-length is not one number", 502)
            self.length = int(value)
        elif role == names.TRANSFER:
            if value.lower() != b"chunked":
                return bad("the upstream's transfer-encoding is not exactly chunked", 502)
            self.chunked = True
        else:
            self.canonical.append((lower, line))
        return None

    def finish(self, status: int, status_line: bytes, *, one_one: bool) -> ResponseHead | Malformed:
        """Check what only the whole head can tell, and return the model."""
        if self.chunked and (self.length is not None or not one_one):
            return bad("the upstream's framing has two meanings", 502)
        tokens = connection_tokens(self.connection)
        dropped = tokens - _KEPT
        lines = [line for lower, line in self.canonical if lower not in dropped]
        keep = b"close" not in tokens and (one_one or b"keep-alive" in tokens)
        if status == _NO_CONTENT and (self.chunked or self.length):
            keep = False  # it has no body, and this server sends one
        return ResponseHead(
            status, status_line, self.length, self.chunked, keep, self.coded,
            b"".join([line + b"\r\n" for line in lines]),
        )  # fmt: skip


_recurring = lru_cache(CACHED_HEADS)(_parse)
