"""One request, query or command within a session."""

from dataclasses import dataclass

from agent.model.ids import OperationId
from agent.model.sql import Statement


@dataclass(frozen=True, slots=True)
class Operation:
    """What a relay asks to have judged, and what is recorded: exactly what would be forwarded.

    verb is the protocol's own word (an HTTP method); resource is canonical (an HTTP path in
    origin form without query; the text of a query). attributes are protocol specific, already
    redacted, bounded. statements are what a classifier says of a query, empty for others.
    """

    operation_id: OperationId
    protocol: str
    verb: str
    resource: str
    attributes: tuple[tuple[str, str], ...]
    statements: tuple[Statement, ...] = ()
