"""A key for each run and target, the same in all workers.

What a relay gives out can come back by another worker's session, and means nothing to another run.
"""

import hashlib
import hmac

from agent.model.ids import RunId, TargetName


class RunKeys:
    """Derived from one secret, which lives as long as the broker: so do all sessions."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, run_id: RunId, target: TargetName) -> bytes:
        """Return 32 bytes, the same each time."""
        name = f"loopwarden run key\0{run_id}\0{target}".encode()
        return hmac.digest(self._secret, name, hashlib.sha256)
