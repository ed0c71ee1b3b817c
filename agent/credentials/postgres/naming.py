"""Names of runs' roles, and the comments that say whose they are.

A role's name is known before the role is made, from its lease alone: what a crash left is found
without a handle. It begins with the run's id, so that the server's own logs tie to our records.
"""

import json
import re
from dataclasses import dataclass

from agent.credentials.spec import Wanted
from agent.model.ids import LeaseId, decode_ulid

PREFIX = "loopwarden"
LEASE_CHARACTERS = 16  # the lease id's random half: 80 bits
# for PostgreSQL's `~` and for `re` alike
PATTERN = f"^{PREFIX}_[0-9a-hjkmnp-tv-z]{{26}}_[0-9a-hjkmnp-tv-z]{{{LEASE_CHARACTERS}}}$"
COMMENT_CHARACTERS_MAX = 400
FIND = (  # a role: its oid and comment
    "SELECT oid::bigint, left(shobj_description(oid, 'pg_authid'), 400)"
    " FROM pg_roles WHERE rolname = $1"
)
ROLES = (  # the roles whose names fit PATTERN, and their comments
    "SELECT rolname::text, left(shobj_description(oid, 'pg_authid'), 400)"
    " FROM pg_roles WHERE rolname ~ $1 ORDER BY 1 LIMIT 1000"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose a role is, as its comment says."""

    host: str
    lease_id: LeaseId

    @property
    def lease_ms(self) -> int:
        """Unix time at which the lease was asked for."""
        return lease_ms(self.lease_id)


def role_name(wanted: Wanted) -> str:
    """Return the role's name: 54 of the 63 bytes that a name may have."""
    return f"{PREFIX}_{wanted.run_id}_{wanted.lease_id[-LEASE_CHARACTERS:]}".lower()


def comment(wanted: Wanted, host: str) -> str:
    """Return the role's comment."""
    return json.dumps(
        {
            "made_by": PREFIX,
            "host": host,
            "lease": wanted.lease_id,
            "run": wanted.run_id,
            "loop": wanted.loop,
            "target": wanted.target,
        }
    )


def parse_comment(text: object) -> Mark | None:
    """Return whose a role is, None when its comment is not of ours."""
    try:
        tree = json.loads(text) if isinstance(text, str) else None
        if not isinstance(tree, dict) or tree.get("made_by") != PREFIX:
            return None
        host, lease = tree["host"], tree["lease"]
        decode_ulid(lease)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Mark(host, LeaseId(lease)) if isinstance(host, str) else None


def lease_ms(lease_id: LeaseId) -> int:
    """Return the Unix time that a lease's id begins with."""
    return int.from_bytes(decode_ulid(lease_id)[:6], "big")


def literal(text: str) -> str:
    """Return a text as an SQL literal (standard_conforming_strings is on in our sessions)."""
    return "'" + text.replace("'", "''") + "'"


def is_role_name(text: str) -> bool:
    """Whether a name is of the form that `role_name` gives."""
    return re.fullmatch(PATTERN, text) is not None
