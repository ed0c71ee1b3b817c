"""One request and its response: what goes upstream, what goes downstream, and what was counted.

It decides nothing and sends nothing; the relay asks it for bytes when they may go.
"""

import hashlib
from dataclasses import dataclass, replace

from agent.masking.scrubber import Scrubber, ScrubStream
from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.protocols.http1.body import (
    LAST_CHUNK,
    Body,
    ChunkedBody,
    ClosedBody,
    LengthBody,
    serialize_chunk,
)
from agent.protocols.http1.fields import SCANNED
from agent.protocols.http1.injection import Injection
from agent.protocols.http1.limits import HEAD_BYTES_MAX, INTERIM_MAX, PIECES_MAX
from agent.protocols.http1.malformed import Malformed
from agent.protocols.http1.payload import Handling, Payload, form_attributes, is_form
from agent.protocols.http1.request import RequestHead
from agent.protocols.http1.response import (
    NO_STATUS_LINE,
    ResponseHead,
    may_begin,
    parse_response_head,
)
from agent.wire.aws.chunks import SignedChunks

SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_SWITCHING = 101
_CONTINUE = 100
_FINAL = 200
_NO_CONTENT = 204
_IN_PART = frozenset({206, 226})  # Partial Content; IM Used (RFC 3229)
_REDIRECT = 300
_NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Failure:
    """The upstream's answer can't be passed on. detail is fixed text."""

    reason: Reason
    detail: str


def serialize_request_head(
    head: RequestHead, host_field: bytes, injection: Injection | None
) -> bytes:
    """Return the canonical head for the upstream, with the credential."""
    query = head.query if injection is None else injection.query(head.query)
    lines = [request_line(head, query), b"Host: " + host_field]
    if injection is None:
        lines += [line for _, _, line in head.canonical]
    else:
        replaces = injection.replaces
        lines += [
            line for role, low, line in head.canonical if role != SCANNED and not replaces(low)
        ]
        lines.append(b"Accept-Encoding: identity")
        if injection.field_line:
            lines.append(injection.field_line)
    return b"\r\n".join(lines + framing_lines(head))


def request_line(head: RequestHead, query: bytes | None) -> bytes:
    """Return the first line."""
    target = head.path if query is None else head.path + b"?" + query
    return head.method + b" " + target + b" HTTP/1.1"


def framing_lines(head: RequestHead) -> list[bytes]:
    """Return the lines that say how the body is sent, and the head's end."""
    lines: list[bytes] = []
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.length is not None:
        lines.append(b"Content-Length: %d" % head.length)
    if head.expects_continue:
        lines.append(b"Expect: 100-continue")
    lines.append(b"\r\n")
    return lines


class Exchange:
    """The state of one request and its response.

    payload: how its body is signed, None where it is not. recode: what a streamed body goes
    through, once its head is signed.
    """

    __slots__ = (
        "_digest",
        "_held",
        "_interims",
        "_joined",
        "_pending",
        "_pending_bytes",
        "_recoded",
        "_response_body",
        "_response_chunked",
        "_scrubber",
        "_stream",
        "answered",
        "body",
        "closing",
        "failure",
        "head",
        "leftover",
        "operation",
        "payload",
        "recode",
        "request_bytes",
        "response",
        "response_bytes",
        "rule",
        "since_ns",
        "touched",
    )

    def __init__(
        self,
        head: RequestHead,
        operation: Operation,
        since_ns: int,
        payload: Payload | None = None,
    ) -> None:
        self.head = head
        self.payload = payload
        self.recode: SignedChunks | None = None
        self._recoded = False
        self.operation = operation
        self.since_ns = since_ns
        self.rule = RuleId("")
        self.body: Body = ChunkedBody() if head.chunked else LengthBody(head.length or 0)
        self.request_bytes = 0
        self.response: ResponseHead | None = None
        self.response_bytes = 0
        self.touched = False  # a byte came from the upstream
        self.answered = False  # the response is complete
        self.leftover = False  # and more came behind it
        self.closing = not head.keep_alive
        self.failure: Failure | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._joined = 0  # how many of them are pieces that were joined already
        self._digest = hashlib.sha256() if self.gathers else None
        self._held = b""
        self._interims = 0
        self._response_body: Body | None = None
        self._response_chunked = False
        self._scrubber: Scrubber | None = None
        self._stream: ScrubStream | None = None

    # request

    def take_body(self, data: bytes) -> bytes:
        """Read request body; return what is behind it. `pending` then gives what is to be sent."""
        payload, rest = self.body.feed(data)
        if payload:
            self.request_bytes += len(payload)
            if self._digest is not None:
                self._digest.update(payload)
            self._put(serialize_chunk(payload) if self._frames else payload)
        if self.body.done and self._frames:
            self._put(LAST_CHUNK)
        return rest

    def _put(self, data: bytes) -> None:
        """Keep bytes to be sent. Many small ones become one: each has a cost of its own."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        if len(self._pending) - self._joined > PIECES_MAX:
            self._pending[self._joined :] = [b"".join(self._pending[self._joined :])]
            self._joined += 1

    @property
    def _frames(self) -> bool:
        """Whether payload is framed as it comes: not what goes through `recode` or is held."""
        return self.head.chunked and (self.payload is None or self.payload.as_it_comes)

    @property
    def gathers(self) -> bool:
        """Whether the body is held until it is whole."""
        return self.payload is not None and self.payload.handling is Handling.HOLD

    @property
    def held_bytes(self) -> int:
        """How many bytes of the body a signature waits for."""
        if self.recode is not None:
            return self.recode.held_bytes
        return self._pending_bytes if self.gathers else 0

    @property
    def fault(self) -> str:
        """What is wrong with the request's body, "" for nothing so far."""
        return self.body.error or ("" if self.recode is None else self.recode.error)

    def pending(self) -> bytes:
        """Return and forget the body bytes to be sent upstream."""
        if self.recode is None and not self._pending:
            return b""
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = self._joined = 0
        return data if self.recode is None else self._through(self.recode, data)

    def _through(self, recode: SignedChunks, data: bytes) -> bytes:
        if self._recoded:
            return b""
        self._recoded = self.body.done
        data = recode.feed(data, last=self.body.done)
        if recode.error or not self.head.chunked:
            return b"" if recode.error else data
        return serialize_chunk(data) + (LAST_CHUNK if self.body.done else b"")

    def note_form(self) -> None:
        """Say in the operation what the body asks for, once it is whole, where it is held."""
        if self.gathers and is_form(self.head):
            noted = form_attributes(b"".join(self._pending))
            attributes = self.operation.attributes + noted
            self.operation = replace(self.operation, attributes=attributes)

    def whole_body(self) -> tuple[bytes, bytes]:
        """Return and forget a body that was held, and its SHA-256; its length is known now."""
        assert self._digest is not None  # asked of exchanges that gather
        data = self.pending()
        known = self.head.has_body or self.head.length is not None
        length = len(data) if known else None
        self.head = self.head._replace(length=length, chunked=False, expects_continue=False)
        return data, self._digest.hexdigest().encode()

    @property
    def pending_bytes(self) -> int:
        """How many body bytes wait to be sent."""
        return self._pending_bytes

    # response

    def scrub_with(self, scrubber: Scrubber | None) -> None:
        """Say what to remove from the response; before its first byte."""
        self._scrubber = scrubber

    def take_response(self, data: bytes) -> bytes:
        """Read upstream bytes; return what goes downstream. Look at failure and answered after."""
        self.touched = True
        out: list[bytes] = []
        while self.response is None:
            data, self._held = self._held + data, b""
            end = data.find(b"\r\n\r\n")
            if end < 0 or end + 4 > HEAD_BYTES_MAX:
                self._hold_head(data, whole=end >= 0)
                return b"".join(out)
            out.append(self._take_head(data[: end + 4]))
            if self.failure is not None:
                return b"".join(out)
            data = data[end + 4 :]
        self._take_payload(data, out)
        return out[0] if len(out) == 1 else b"".join(out)

    def end_response(self) -> bytes:
        """Take the upstream's end; return the last bytes downstream. Look at answered after."""
        out: list[bytes] = []
        if isinstance(self._response_body, ClosedBody):
            self._complete(out, b"" if self._stream is None else self._stream.flush())
        return b"".join(out)

    def _fail(self, detail: str, reason: Reason = Reason.UPSTREAM_PROTOCOL_ERROR) -> None:
        self.failure = Failure(reason, detail)

    def _hold_head(self, data: bytes, *, whole: bool) -> None:
        """Keep a head until it is whole, unless it is too long or can't be one any more."""
        if not may_begin(data):
            self._fail(NO_STATUS_LINE)
        elif whole or len(data) > HEAD_BYTES_MAX:
            self._fail("the upstream's response head is too long")
        else:
            self._held = data

    def _take_head(self, block: bytes) -> bytes:
        head = parse_response_head(block)
        if isinstance(head, Malformed):
            self._fail(head.detail)
            return b""
        if head.status < _FINAL:
            return self._interim(head)
        bodyless = self.head.method == b"HEAD" or head.status in (_NO_CONTENT, _NOT_MODIFIED)
        if self._scrubber is not None and not bodyless:
            stored = self.payload is not None and self.payload.stored and head.status < _REDIRECT
            if (head.coded or head.status in _IN_PART) and not stored:
                self._fail("the answer's body can't be looked into", Reason.UNSCANNABLE)
                return b""
            self._stream = self._scrubber.stream()
        self.response = head
        return self._begin(head, bodyless=bodyless)

    def _interim(self, head: ResponseHead) -> bytes:
        self._interims += 1
        if head.status == _SWITCHING:
            self._fail("the upstream switched protocols without being asked")
        elif self._interims > INTERIM_MAX:
            self._fail("the upstream sent too many interim answers")
        elif head.length or head.chunked:
            self._fail("the upstream's interim answer has a body")
        elif self.head.minor and (head.status != _CONTINUE or self.head.expects_continue):
            return self._scrubbed(head.status_line + b"\r\n" + head.canonical) + b"\r\n"
        return b""

    def _scrubbed(self, data: bytes) -> bytes:
        return data if self._scrubber is None else self._scrubber.scrub(data)

    def _begin(self, head: ResponseHead, *, bodyless: bool) -> bytes:
        lines = [self._scrubbed(head.status_line + b"\r\n" + head.canonical)]
        self._response_body = _framing(head, bodyless=bodyless)
        unsized = head.length is None and not bodyless
        if head.length is not None and head.status != _NO_CONTENT:
            lines.append(b"Content-Length: %d\r\n" % head.length)
        if unsized and self.head.minor:
            self._response_chunked = True
            lines.append(b"Transfer-Encoding: chunked\r\n")
        self.closing = self.closing or not self.body.done or (unsized and not self.head.minor)
        if self.closing:
            lines.append(b"Connection: close\r\n")
        elif not self.head.minor:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _take_payload(self, data: bytes, out: list[bytes]) -> None:
        body = self._response_body
        assert body is not None  # set with the response head
        if data and body.done:
            self.leftover = True
        elif data:
            payload, rest = body.feed(data)
            self.response_bytes += len(payload)
            if rest:
                self.leftover = True
            if self._stream is not None:
                payload = self._stream.feed(payload, last=body.done)
            if payload:
                out.append(serialize_chunk(payload) if self._response_chunked else payload)
        if body.error:
            self._fail(body.error)
        elif body.done and not self.answered:
            self._complete(out, b"")  # what the scrubber held came with the last payload

    def _complete(self, out: list[bytes], last: bytes) -> None:
        self.answered = True
        if self._response_chunked:
            out.append(serialize_chunk(last) + LAST_CHUNK)
        elif last:
            out.append(last)


def _framing(head: ResponseHead, *, bodyless: bool) -> Body:
    if bodyless:
        return LengthBody(0)
    if head.chunked:
        return ChunkedBody()
    return ClosedBody() if head.length is None else LengthBody(head.length)
