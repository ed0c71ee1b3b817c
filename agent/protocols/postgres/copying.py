"""Data that is copied between the loop and the server: which way, how much, and its hash."""

import hashlib
from dataclasses import dataclass, field

from agent.protocols.postgres.step import Step


@dataclass(slots=True)
class Copying:
    """One COPY under way. inward: the loop may still send; outward: the server may.

    both: of a replication session. Its server goes on with data behind its own CopyDone, to the
    end of the transaction that it is decoding (PostgreSQL 15, measured).
    """

    step: Step
    inward: bool
    outward: bool
    hashed: bool  # data goes, or went, to the server
    both: bool = False
    bytes_in: int = 0
    hash_in: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def took(self, piece: bytes) -> None:
        """Count data that went to the server, without the messages' headers."""
        self.hash_in.update(piece)
        self.bytes_in += len(piece)

    def notes(self) -> list[tuple[str, str]]:
        """Return what is recorded of what went to the server."""
        return [
            ("copy_in_bytes", str(self.bytes_in)),
            ("copy_in_sha256", self.hash_in.hexdigest()),
        ]
