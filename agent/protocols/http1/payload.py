"""What of a request to AWS its signature needs: how the body is signed, and for what.

The loop's own signature is not checked: it is made with keys of nobody. What it says of itself
counts: a request that was made for another region or service is refused, not signed for ours.
Source: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from urllib.parse import unquote_to_bytes

from agent.model.grant import AwsOptions
from agent.model.reason import Reason
from agent.protocols.http1.answers import Refusal
from agent.protocols.http1.limits import PARAMETERS_MAX, SIGNED_BODY_BYTES_MAX
from agent.protocols.http1.request import RequestHead, bounded
from agent.wire.aws.sigv4 import EMPTY_SHA256, S3_LIKE, UNSIGNED, query_values

STREAMING = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
TRAILER = b"-TRAILER"
STREAMING_UNSIGNED = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_NAME = re.compile(rb"[a-z0-9._-]+")
_SHA256 = re.compile(rb"[0-9a-f]{64}")
# without "Credential=" before it: looking from each of many of them to the end costs a second
_SCOPE = re.compile(rb"/([0-9]{8})/([^/,\s]*)/([^/,\s]*)/aws4_request")
_QUERY_SCOPE = re.compile(rb".*/[0-9]{8}/([^/]*)/([^/]*)/aws4_request", re.DOTALL)
_SIGNED_FIELDS = frozenset({b"content-type", b"content-md5"})
_CONTENT, _REGIONS = b"x-amz-content-sha256", b"x-amz-region-set"
_ACTION = "aws-action"
_NAME_BYTES_MAX = 3 * len(b"action")  # of a parameter's name, each byte of it escaped
ACTIONS_MAX = 4  # told of one form
VALUE_BYTES_MAX = 1024  # looked at of each
_TARGET, _COPIED = b"x-amz-target", b"x-amz-copy-source"


class Handling(Enum):
    """What is done with the body."""

    PASS = auto()  # it goes as it comes
    HOLD = auto()  # until it is whole: its hash is signed
    CHUNKS = auto()  # signed chunk by chunk
    CHUNKS_AND_TRAILER = auto()


@dataclass(frozen=True, slots=True)
class Payload:
    """How a body is signed. word: what stands for its hash; b"" where it is held.

    declared: the loop said the word itself. stored: what comes back is what was stored before,
    and no echo of the request.
    """

    handling: Handling
    word: bytes
    declared: bool
    stored: bool

    @property
    def as_it_comes(self) -> bool:
        """Whether the body's bytes are neither held nor changed."""
        return self.handling is Handling.PASS


def plan_payload(head: RequestHead, aws: AwsOptions, *, encrypted: bool) -> Payload | Refusal:
    """Return how a request's body is signed, or why the request is not."""
    s3 = aws.service in S3_LIKE
    refusal = _check_meaning(head, s3=s3) or _check_scope(head, aws)
    if refusal is not None:
        return refusal
    words = field_values(head, _CONTENT)
    if len(words) > 1:
        return _bad("The field x-amz-content-sha256 comes more than once.")
    if words:
        return _declared(words[0], head, s3=s3, encrypted=encrypted)
    if not head.has_body:
        return Payload(Handling.PASS, EMPTY_SHA256, declared=False, stored=s3)
    if s3 and encrypted:
        return Payload(Handling.PASS, UNSIGNED, declared=False, stored=s3)
    return _held(head, s3=s3)


def _declared(word: bytes, head: RequestHead, *, s3: bool, encrypted: bool) -> Payload | Refusal:
    if _SHA256.fullmatch(word):
        return Payload(Handling.PASS, word, declared=True, stored=s3)
    if word == UNSIGNED and not (s3 and encrypted):
        return _held(head, s3=s3)
    if word == UNSIGNED:
        return Payload(Handling.PASS, word, declared=True, stored=True)
    if s3 and word == STREAMING_UNSIGNED:
        if not encrypted:
            return _bad("A body without a signature goes to an upstream under TLS only.")
        return Payload(Handling.PASS, word, declared=True, stored=True)
    if s3 and word in (STREAMING, STREAMING + TRAILER):
        trailer = word.endswith(TRAILER)
        handling = Handling.CHUNKS_AND_TRAILER if trailer else Handling.CHUNKS
        return Payload(handling, word, declared=True, stored=True)
    if b"ECDSA" in word:
        return _SIGV4A
    return _bad("The field x-amz-content-sha256 names a way to sign that is not known here.")


def _held(head: RequestHead, *, s3: bool) -> Payload | Refusal:
    if (head.length or 0) > SIGNED_BODY_BYTES_MAX:
        return TOO_LONG
    return Payload(Handling.HOLD, b"", declared=False, stored=s3)


def _check_scope(head: RequestHead, aws: AwsOptions) -> Refusal | None:
    """Refuse what was signed for something else, or in a way that we can't repeat."""
    algorithms = query_values(head.query, b"x-amz-algorithm")
    signed_by = [head.authorization.lstrip(), *algorithms]
    if any(b"AWS4-ECDSA" in each for each in signed_by) or field_values(head, _REGIONS):
        return _SIGV4A
    if query_values(head.query, _REGIONS):
        return _SIGV4A
    scopes = [match.groups()[1:] for match in _SCOPE.finditer(head.authorization)]
    for value in query_values(head.query, b"x-amz-credential"):
        found = _QUERY_SCOPE.fullmatch(value)
        if found is not None:
            scopes.append(found.groups())
    ours = (aws.region.encode(), aws.service.encode())
    if any(scope != ours for scope in scopes):
        return Refusal(
            403,
            Reason.DESTINATION_MISMATCH,
            f"The request was signed for another region or service than {aws.region} and "
            f"{aws.service}, which this target is.",
            next_step=f"Set the client's region to {aws.region}; a service is a target of its own.",
        )
    return None


def _check_meaning(head: RequestHead, *, s3: bool) -> Refusal | None:
    if head.path == b"*":
        return _bad("A signature needs a path.")
    if b"%2F" in head.path:
        return _bad("A path that is signed has no encoded slash.")
    if (head.query or b"").count(b"&") >= PARAMETERS_MAX:
        text = f"The query has more than {PARAMETERS_MAX} parameters."
        return Refusal(414, Reason.LIMIT_EXCEEDED, text)
    if not head.method.isupper():
        return _bad("A signature is over the method in upper case.")
    for _, lower, line in head.canonical:
        if is_signed(lower) and not (line.isascii() and _NAME.fullmatch(lower)):
            return _bad("A field that is signed has a character that servers read differently.")
    if any(len(field_values(head, name)) > 1 for name in (_TARGET, _COPIED)):
        return _bad("The fields x-amz-target and x-amz-copy-source say one thing each.")
    if len(query_values(head.query, b"action")) > 1:
        return _bad("The query has more than one Action.")
    if s3 and query_values(head.query, b"session"):
        return Refusal(
            403,
            Reason.METHOD_REFUSED,
            "CreateSession answers with keys, which never go to a loop.",
            next_step="Use a bucket that is no directory bucket, or switch express sessions off.",
        )
    return None


def is_signed(lower: bytes) -> bool:
    """Whether a field is under our signature, beside Host."""
    return lower.startswith(b"x-amz-") or lower in _SIGNED_FIELDS


def aws_attributes(head: RequestHead) -> tuple[tuple[str, str], ...]:
    """Return what a record says besides: what a call does, as far as its head says, or copies."""
    names = ((_TARGET, "aws-target"), (_COPIED, "aws-copy-source"))
    found = [(key, value) for name, key in names for value in field_values(head, name)]
    found += [(_ACTION, value) for value in query_values(head.query, b"action")]
    return tuple((key, bounded(value)) for key, value in found)


def is_form(head: RequestHead) -> bool:
    """Whether the body says what is asked for, as parameters do (EC2, IAM, STS)."""
    kinds = field_values(head, b"content-type")
    return any(kind.lower().startswith(b"application/x-www-form-urlencoded") for kind in kinds)


def form_attributes(body: bytes) -> tuple[tuple[str, str], ...]:
    """Return what a record says of a form: its actions, ACTIONS_MAX at most."""
    if body.count(b"&") >= PARAMETERS_MAX:
        return ((_ACTION, "(too many parameters)"),)
    pairs = (pair.partition(b"=") for pair in body.split(b"&"))
    found = (value for name, _, value in pairs if len(name) <= _NAME_BYTES_MAX and _acts(name))
    told = islice(found, ACTIONS_MAX)
    return tuple((_ACTION, bounded(unquote_to_bytes(value[:VALUE_BYTES_MAX]))) for value in told)


def _acts(name: bytes) -> bool:
    return unquote_to_bytes(name).lower() == b"action"


def field_values(head: RequestHead, name: bytes) -> list[bytes]:
    """Return the values of a field's lines."""
    return [value_of(line) for _, lower, line in head.canonical if lower == name]


def value_of(line: bytes) -> bytes:
    """Return the value of a field line."""
    return line.partition(b":")[2].strip(b" \t")


def _bad(text: str) -> Refusal:
    return Refusal(400, Reason.PROTOCOL_ERROR, text)


_SIGV4A = Refusal(
    400,
    Reason.PROTOCOL_ERROR,
    "The request is signed with SigV4a (ECDSA, several regions), which can't be signed anew here.",
    next_step="Set the client to Signature Version 4, and name one region.",
)
TOO_LONG = Refusal(
    413,
    Reason.LIMIT_EXCEEDED,
    f"The body has more than {SIGNED_BODY_BYTES_MAX} bytes, and its hash is needed before it goes.",
    next_step="Make it smaller, or send its hash in the field x-amz-content-sha256.",
)
