"""What the loop is told when we answer: in HTTP's words, for a person and for an agent.

Texts are fixed or come from the policy; nothing of an upstream or an exception. Why there is no
lease is one bounded line, of a provider too, that was freed from secrets: the loop can act on it.
"""

import json
from dataclasses import dataclass

from agent.model.ids import RuleId
from agent.model.reason import Reason

BUILT_IN = RuleId("built-in")  # a refusal that no policy can lift

_PHRASES = {
    400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed", 408: "Request Timeout",
    413: "Content Too Large", 414: "URI Too Long", 417: "Expectation Failed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip

_NEXT_STEPS = {
    Reason.DESTINATION_MISMATCH: "Send the request to the host that its Host field names.",
    Reason.PROTOCOL_ERROR: "Correct the request: it has to have exactly one meaning.",
    Reason.LIMIT_EXCEEDED: "Make the request smaller.",
    Reason.METHOD_REFUSED: "Use another method: CONNECT and TRACE are never forwarded.",
    Reason.UPGRADE_REFUSED: "Send the request without an Upgrade field.",
    Reason.LEASE_REFUSED: "Ask the operator: `loopwarden leases --all` shows what failed.",
    Reason.LEASE_EXPIRED: "Send the request again: a new connection gets a new credential.",
    Reason.LEASE_REVOKED: "Ask the operator: the credential was taken away.",
    Reason.CREDENTIAL_MISFIT: "Ask the operator to check the target's credential.",
    Reason.RECORD_FAILED: "Try again later; the operator finds the cause in `loopwarden status`.",
    Reason.UPSTREAM_UNREACHABLE: "Try again later; check the target's address in the policy.",
    Reason.UPSTREAM_UNTRUSTED: "Ask the operator to check the target's certificate and CA.",
    Reason.CLEARTEXT_REFUSED: "Ask the operator for TLS upstream, or for allow_cleartext.",
    Reason.UNSCANNABLE: "Ask the upstream for an answer without content coding or ranges.",
}
_TRY_LATER = "Try again later."


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of ours instead of the upstream's."""

    status: int
    reason: Reason
    explanation: str
    rule: RuleId = BUILT_IN
    next_step: str = ""


def next_step_of(refusal: Refusal) -> str:
    """Return what to do now."""
    return refusal.next_step or _NEXT_STEPS.get(refusal.reason, _TRY_LATER)


def serialize_answer(refusal: Refusal, session: str, *, close: bool, bodyless: bool) -> bytes:
    """Return the complete response. bodyless: it answers a HEAD request."""
    denied = refusal.reason is Reason.POLICY_DENIED
    body = json.dumps(
        {
            "error": "denied" if denied else refusal.reason.value,
            "rule": refusal.rule,
            "reason": refusal.reason.value,
            "explanation": refusal.explanation,
            "next_step": next_step_of(refusal),
            "session": session,
        }
    ).encode()
    return serialize_with(refusal, body, close=close, bodyless=bodyless)


def serialize_with(
    refusal: Refusal,
    body: bytes,
    kind: str = "application/json",
    error_type: str = "",
    *,
    close: bool,
    bodyless: bool,
) -> bytes:
    """Return the complete response with this body. error_type: what AWS calls the error."""
    rule = refusal.rule.encode("ascii", "replace").translate(None, b"\r\n\0")
    head = (
        f"HTTP/1.1 {refusal.status} {_PHRASES[refusal.status]}\r\n"
        f"Content-Type: {kind}\r\n"
        f"{'X-Amzn-ErrorType: ' + error_type + chr(13) + chr(10) if error_type else ''}"
        f"Content-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\n"
        f"Loopwarden-Rule: {rule.decode()}\r\n"
        f"{'Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS' if refusal.status == 405 else ''}"
        f"{chr(13) + chr(10) if refusal.status == 405 else ''}"
        f"{'Connection: close' + chr(13) + chr(10) if close else ''}"
        "\r\n"
    ).encode()
    return head if bodyless else head + body
