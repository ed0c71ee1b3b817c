"""What the opening half hands to the steady half: a session that is ready on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.masking.scrubber import Scrubber
from agent.model.ids import LeaseId


@dataclass(frozen=True, slots=True)
class Opened:
    """Both sides have seen ReadyForQuery('I') and nothing is under way.

    leftovers: bytes that came behind what opened the session; the steady half takes them as if
    they came now, upstream's first. Downstream is not paused.
    """

    user: str  # as the server knows it: the lease's
    database: str
    version: int  # minor protocol version that both sides speak: 0 or 2
    parameters: Mapping[str, str]  # what the server told by ParameterStatus
    pinned: Mapping[str, str]  # of them, those that have to stay as they are; drift ends it
    replication: str  # "" for an ordinary session, else "true" or "database"
    upstream: str  # address, for records
    lease_id: LeaseId | None
    scrubber: Scrubber | None  # removes the leased secret from what goes down; None: no lease
    backend: tuple[bytes, bytes] | None = field(default=None, repr=False)  # process id, cancel key
    leftover_downstream: bytes = field(default=b"", repr=False)
    leftover_upstream: bytes = field(default=b"", repr=False)
