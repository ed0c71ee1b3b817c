"""What is not one request, or not one response."""

from dataclasses import dataclass

from agent.model.reason import Reason


@dataclass(frozen=True, slots=True)
class Malformed:
    """A refusal by grammar. detail is fixed text: it never quotes what was sent."""

    status: int
    reason: Reason
    detail: str


class FramingError(ValueError):
    """A body does not follow its framing. The text is fixed and safe to show."""


def bad(detail: str, status: int = 400) -> Malformed:
    """Return the refusal of bytes with no one meaning."""
    reason = Reason.LIMIT_EXCEEDED if status in (413, 414, 431) else Reason.PROTOCOL_ERROR
    return Malformed(status, reason, detail)
