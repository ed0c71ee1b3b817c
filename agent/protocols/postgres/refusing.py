"""What the loop is told when a statement is refused and the session goes on."""

from agent.model.ids import SessionId
from agent.model.reason import Reason
from agent.model.sql import Statement
from agent.model.verdict import Deny
from agent.protocols.postgres.answers import Refusal, serialize_refusal
from agent.protocols.postgres.messages import cstring, error_response, message

# Sent in place of a refused message, so that the server's transaction fails as the loop's does:
# a syntax error is raised before anything is looked up, in a failed transaction too.
_TEXT = "loopwarden_refused_this"
FAILING_PARSE_WIRE = message(b"P", cstring("loopwarden") + cstring(_TEXT) + bytes(2))
FAILING_QUERY_WIRE = message(b"Q", cstring(_TEXT))
COPY_FAIL_WIRE = message(b"f", cstring("loopwarden: a message that is no part of COPY came"))

NOT_NORMAL = "A COPY in both directions was not granted to this session."


def of_deny(verdict: Deny) -> Refusal:
    """Return the refusal of a verdict."""
    return Refusal(verdict.reason, verdict.explanation, verdict.rule, next_step=verdict.next_step)


def of_pinned(statement: Statement, name: str) -> Refusal:
    """Return the refusal of a statement that would change what text means, or who speaks."""
    setting = "a setting that only the server could name" if name == "?" else f"the setting {name}"
    return Refusal(
        Reason.POLICY_DENIED,
        f"{statement.kind or 'The statement'} would change {setting}, which is pinned",
        detail="Pinned settings decide what text means or who speaks; no rule can allow it.",
        next_step="Leave the setting as it is: the session began with the value that it needs.",
    )


def of_record_failed() -> Refusal:
    """Return the refusal of an operation that could not be recorded."""
    return Refusal(Reason.RECORD_FAILED, "the operation could not be recorded, so it was not sent")


def of_busy() -> Refusal:
    """Return the refusal of a text that nobody had the time to classify."""
    return Refusal(
        Reason.OVERLOADED,
        "too many statements of this run, or of a busy host, wait to be classified",
        next_step="Try again; send fewer different statements at a time.",
    )


def of_names() -> Refusal:
    """Return the refusal of one prepared statement or portal too many."""
    return Refusal(
        Reason.LIMIT_EXCEEDED,
        "the session has too many prepared statements or portals, or too much text in them",
        next_step="Close or DEALLOCATE those that are not needed any more.",
    )


def of_rows(rule: str, most: int) -> Refusal:
    """Return the refusal of a result with more rows than a rule allows."""
    return Refusal(
        Reason.LIMIT_EXCEEDED,
        f"the result has more than the {most} rows that rule {rule} allows",
        detail=f"max_rows is {most}: those rows were sent, and the statement then ended.",
        next_step=f"Ask for fewer rows: add LIMIT {most}, a narrower WHERE, or aggregate.",
    )


def serialize_error(refusal: Refusal, session: SessionId) -> bytes:
    """Return the ErrorResponse after which the session goes on."""
    if refusal.reason is not Reason.POLICY_DENIED:
        return serialize_refusal(refusal, session, "ERROR")
    detail = refusal.explanation[:1].upper() + refusal.explanation[1:]
    detail = f"{detail.rstrip('.')}. {refusal.detail}".rstrip()
    return error_response(
        "ERROR",
        refusal.status,
        f"loopwarden: denied by rule {refusal.rule}",
        f"{detail} (session {session})",
        refusal.next_step or "Ask for a rule in the policy that allows it.",
    )
