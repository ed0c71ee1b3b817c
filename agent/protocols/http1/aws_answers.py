"""Answers of ours to clients of AWS, in the form that their SDK shows to a person.

Sources: Amazon S3 API Reference, "Error Responses"; Smithy, AWS JSON 1.0, restJson1, awsQuery and
ec2Query error serialisation.
"""

import html
import json

from agent.model.grant import AwsOptions
from agent.model.reason import Reason
from agent.protocols.http1.answers import Refusal
from agent.protocols.http1.payload import field_values
from agent.protocols.http1.request import RequestHead
from agent.wire.aws.sigv4 import S3_LIKE

XML, JSON = "application/xml", "application/x-amz-json-1.0"
_DENIED = frozenset({Reason.POLICY_DENIED, Reason.METHOD_REFUSED})


def serialize_aws_body(
    refusal: Refusal, next_step: str, session: str, aws: AwsOptions, head: RequestHead | None
) -> tuple[str, str, bytes]:
    """Return an answer's content type, error code and body."""
    denied = refusal.reason in _DENIED and refusal.status == 403
    code = "AccessDenied" if denied else refusal.reason.value.title().replace("-", "")
    message = f"{refusal.explanation} {next_step} (loopwarden: {refusal.rule}, session {session})"
    request_id = html.escape(session)
    error = f"<Code>{code}</Code><Message>{html.escape(message)}</Message>"
    if aws.service in S3_LIKE:
        text = f"<Error>{error}<RequestId>{request_id}</RequestId></Error>"
    elif aws.service == "ec2":
        errors = f"<Errors><Error>{error}</Error></Errors>"
        text = f"<Response>{errors}<RequestID>{request_id}</RequestID></Response>"
    elif _asks_by_form(head):
        whole = f"<Error><Type>Sender</Type>{error}</Error>"
        text = f"<ErrorResponse>{whole}<RequestId>{request_id}</RequestId></ErrorResponse>"
    else:
        code = "AccessDeniedException" if denied else code
        said = {"__type": code, "code": code, "message": message, "rule": refusal.rule}
        return JSON, code, json.dumps(said).encode()
    return XML, code, b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()


def _asks_by_form(head: RequestHead | None) -> bool:
    if head is None:
        return False
    kinds = field_values(head, b"content-type")
    by_body = any(kind.lower().startswith(b"application/x-www-form-urlencoded") for kind in kinds)
    return by_body or (head.method == b"GET" and b"Action=" in (head.query or b""))
