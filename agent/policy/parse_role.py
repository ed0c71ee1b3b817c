"""A credential of provider postgres: a role for each run, made by an admin that the broker knows.

What the target says already (address, name for TLS, CA file, database) need not be said again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.policy.address import parse_host_port
from agent.policy.declared import (
    PATH,
    SOURCES,
    TEXT,
    Declared,
    Kind,
    Settings,
    any_text,
    fitting,
    items_of,
    one_of,
    one_source,
    read_declared,
)
from agent.policy.reading import Fields, Problems
from agent.policy.sql_grants import GRANTS_MAX, NAMES_MAX, parse_grant, parse_identifier

STATEMENT_TIMEOUT_S_MAX = 7 * 86_400
CONNECTION_LIMIT_MAX = 10_000
# predefined roles that reach the server's files and programs, or other people's sessions
REFUSED_ROLES = frozenset(
    {"pg_execute_server_program", "pg_write_server_files", "pg_read_server_files",
     "pg_signal_backend", "pg_create_subscription"}
)  # fmt: skip
_NAME = Kind(fitting(parse_identifier))


@dataclass(frozen=True, slots=True)
class Server:
    """What the target says of its server. name "": without TLS. ca "": the system's roots."""

    address: str
    name: str
    ca: str
    database: str


def _wrong(settings: Mapping[str, str]) -> tuple[str, str] | None:
    source = one_source(settings, "the admin's password")
    if source is not None:
        return source
    if "database" not in settings:
        return "", "a role is made in one database: give the target a database, or the credential"
    if settings.get("on_drop") == "drop" and "reassign_to" in settings:
        return "reassign_to", "with on_drop: drop nothing is reassigned"
    if _reaches_too_far(settings):
        return "member_of", (
            "member_of: not the admin, and no role that reaches the server's files, programs or "
            "sessions"
        )
    return None


def _reaches_too_far(settings: Mapping[str, str]) -> bool:
    try:
        members = set(map(parse_identifier, items_of(settings, "member_of")))
        admin = parse_identifier(settings.get("admin", ""))
    except ValueError:
        return False  # told where it was read
    return admin in members or bool(REFUSED_ROLES & members)


ROLE = Declared(
    "postgres",
    {
        "admin": _NAME,
        **SOURCES,
        "address": Kind(fitting(parse_host_port)),
        "server_name": TEXT,
        "ca": PATH,
        "database": TEXT,
        "grants": Kind(fitting(parse_grant), GRANTS_MAX),
        "member_of": Kind(fitting(parse_identifier), NAMES_MAX),
        "search_path": Kind(fitting(parse_identifier), NAMES_MAX),
        "statement_timeout": Kind(any_text, seconds=(1, STATEMENT_TIMEOUT_S_MAX)),
        "connection_limit": Kind(any_text, numbers=(1, CONNECTION_LIMIT_MAX)),
        "on_drop": Kind(one_of("reassign", "drop")),
        "reassign_to": _NAME,
    },
    ("admin", "address"),
    _wrong,
)
ROLE_KEYS = tuple(ROLE.kinds)


def read_role(fields: Fields, problems: Problems, server: Server) -> Settings:
    """Return the provider's settings, in the order of keys; what is wrong is added to problems."""
    known = (
        ("address", server.address),
        ("server_name", server.name),
        ("ca", server.ca),
        ("database", server.database),
    )
    return read_declared(fields, problems, ROLE, known)
