"""Requests to AWS, signed anew with the leased keys (SigV4), by the Authorization field alone.

Taken out, in any spelling of case: Authorization, the fields and query parameters of another
signature (also of a presigned URL), and Date, which is ours to say.
"""

from agent.model.credential import AwsKeys
from agent.model.grant import AwsOptions
from agent.protocols.http1.exchange import Exchange, framing_lines, request_line
from agent.protocols.http1.fields import SCANNED
from agent.protocols.http1.payload import Handling, Payload, is_signed, value_of
from agent.protocols.http1.request import RequestHead
from agent.wire.aws.chunks import SignedChunks
from agent.wire.aws.sigv4 import S3_LIKE, Signer, Unsigned, query_values, sent_query

_CONTENT = b"x-amz-content-sha256"
_TAKEN_FIELDS = frozenset(
    {b"x-amz-date", b"date", b"x-amz-security-token", b"x-amz-s3session-token", _CONTENT}
)
_TAKEN_PARAMETERS = frozenset(
    {b"x-amz-algorithm", b"x-amz-credential", b"x-amz-date", b"x-amz-expires",
     b"x-amz-signedheaders", b"x-amz-signature", b"x-amz-security-token",
     b"x-amz-s3session-token", _CONTENT}
)  # fmt: skip
_VERSION_2 = frozenset({b"awsaccesskeyid", b"signature", b"expires"})  # of its presigned URLs


class Signing:
    """The keys of one session, made ready.

    Raises:
        ValueError: they can't stand in a request.
    """

    __slots__ = ("_s3", "_signer")

    def __init__(self, keys: AwsKeys, aws: AwsOptions) -> None:
        self._signer = Signer(keys, aws.region, aws.service)
        self._s3 = aws.service in S3_LIKE

    def begin(self, exchange: Exchange, host_field: bytes, unix_ms: int) -> bytes:
        """Return the head, with a body that was held behind it; a streamed one follows."""
        payload = exchange.payload
        assert payload is not None  # targets with keys plan every request
        if payload.handling is Handling.HOLD:
            body, digest = exchange.whole_body()
            return self._sign(exchange, digest, payload, host_field, unix_ms) + body
        return self._sign(exchange, payload.word, payload, host_field, unix_ms)

    def _sign(
        self, exchange: Exchange, word: bytes, payload: Payload, host_field: bytes, unix_ms: int
    ) -> bytes:
        head = exchange.head
        query = sent_query(head.query, _taken_parameters(head))
        lines = [request_line(head, query), b"Host: " + host_field]
        fields = [(b"host", host_field.lower())]
        if payload.declared and not self._s3:
            lines.append(_CONTENT + b": " + word)
            fields.append((_CONTENT, word))
        for role, lower, line in head.canonical:
            if lower in _TAKEN_FIELDS or (role == SCANNED and not self._keeps(lower)):
                continue
            lines.append(line)
            if is_signed(lower):
                fields.append((lower, value_of(line)))
        lines.append(b"Accept-Encoding: identity")
        signed = self._signer.sign(
            Unsigned(head.method, head.path, query, tuple(fields), word), unix_ms
        )
        if not payload.as_it_comes and payload.handling is not Handling.HOLD:
            with_trailer = payload.handling is Handling.CHUNKS_AND_TRAILER
            exchange.recode = SignedChunks(signed.chain, with_trailer=with_trailer)
        return b"\r\n".join([*lines, *signed.lines, *framing_lines(head)])

    def _keeps(self, lower: bytes) -> bool:
        """Ranges of stored objects may be asked for: they echo nothing."""
        return self._s3 and lower != b"accept-encoding"


def _taken_parameters(head: RequestHead) -> frozenset[bytes]:
    second = query_values(head.query, b"awsaccesskeyid")
    return _TAKEN_PARAMETERS | _VERSION_2 if second else _TAKEN_PARAMETERS
