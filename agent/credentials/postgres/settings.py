"""What a target says of its runs' roles, read from the journal's or the policy's texts.

Lists are JSON. They are read again, as strictly as by the policy: the journal is a file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.credentials.spec import Client, CredentialError, SqlServer
from agent.model.secret import Secret
from agent.policy.sql_grants import (
    GRANTS_MAX,
    NAMES_MAX,
    GrantError,
    RoleGrant,
    parse_grant,
    parse_identifier,
)

PASSWORD_SOURCES = ("file", "systemd_credential", "environment")
SETTINGS = (
    "admin", *PASSWORD_SOURCES, "address", "server_name", "ca", "database", "grants", "member_of",
    "search_path", "statement_timeout", "connection_limit", "on_drop", "reassign_to",
)  # fmt: skip
CONNECTION_LIMIT, CONNECTION_LIMIT_MAX = 50, 10_000
STATEMENT_TIMEOUT_S_MAX = 7 * 86_400
# predefined roles that reach the server's files and programs, or other people's sessions
REFUSED_ROLES = frozenset(
    {"pg_execute_server_program", "pg_write_server_files", "pg_read_server_files",
     "pg_signal_backend", "pg_create_subscription"}
)  # fmt: skip
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]{1,253})):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class RoleSettings:
    """Checked. name "": without TLS. reassign_to "": what the role owns is dropped with it."""

    admin: str
    source: tuple[str, str]
    host: str
    port: int
    name: str
    ca: str
    database: str
    grants: tuple[RoleGrant, ...]
    member_of: tuple[str, ...]
    search_path: tuple[str, ...]
    statement_timeout_s: int
    connection_limit: int
    reassign_to: str

    def server(self, label: str) -> SqlServer:
        """Return where the admin goes; label: as which application."""
        return SqlServer(self.host, self.port, self.name, self.ca, self.admin, self.database, label)

    async def password(self, client: Client) -> Secret:
        """Return the admin's password.

        Raises:
            CredentialError: it can't be read.
        """
        kind, value = self.source
        read = {
            "file": client.file,
            "systemd_credential": client.systemd_credential,
            "environment": client.environment,
        }[kind]
        secret = (await read(value)).reveal()
        if secret.endswith(b"\n"):  # editors and echo(1) add one line end, no password has it
            secret = secret[:-1].removesuffix(b"\r")
        if not secret:
            raise CredentialError("the admin's password is empty", nothing_made=True)
        return Secret(secret)


def read_settings(settings: Mapping[str, str]) -> RoleSettings:
    """Check and return the settings.

    Raises:
        CredentialError: one is missing, unknown or wrong.
    """
    try:
        return _read(settings)
    except ValueError as error:
        text = f"a credential of provider postgres: {error}"
        raise CredentialError(text, nothing_made=True) from error


def _read(settings: Mapping[str, str]) -> RoleSettings:
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ValueError(f"unknown setting {unknown[0][:40]!r}")
    sources = [(key, settings[key]) for key in PASSWORD_SOURCES if key in settings]
    if len(sources) != 1:
        raise ValueError(f"the admin's password has one of {', '.join(PASSWORD_SOURCES)}")
    admin = parse_identifier(_required(settings, "admin"))
    host, port = _address(_required(settings, "address"))
    members = _identifiers(settings, "member_of")
    if admin in members or REFUSED_ROLES & set(members):
        raise ValueError("member_of: not the admin, and no role that reaches the server's files, "
                         "programs or sessions")  # fmt: skip
    return RoleSettings(
        admin,
        sources[0],
        host,
        port,
        settings.get("server_name", ""),
        settings.get("ca", ""),
        _required(settings, "database"),
        tuple(map(_grant, _texts(settings, "grants", GRANTS_MAX))),
        members,
        _identifiers(settings, "search_path"),
        _number(settings, "statement_timeout", 0, STATEMENT_TIMEOUT_S_MAX),
        _number(settings, "connection_limit", CONNECTION_LIMIT, CONNECTION_LIMIT_MAX),
        _reassign_to(settings, admin),
    )


def _required(settings: Mapping[str, str], key: str) -> str:
    value = settings.get(key, "")
    if not value or not value.isprintable():
        raise ValueError(f"the setting {key!r} is needed")
    return value


def _address(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3]) < 1 << 16:
        raise ValueError(f"address: write host:port, not {text[:80]!r}")
    return match[1] or match[2], int(match[3])


def _texts(settings: Mapping[str, str], key: str, most: int) -> tuple[str, ...]:
    try:
        found = json.loads(settings.get(key, "[]"))
    except (ValueError, RecursionError):
        raise ValueError(f"{key} is no JSON list") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"{key} is no list of texts")
    if len(found) > most:
        raise ValueError(f"{key}: more than {most}")
    return tuple(found)


def _grant(text: str) -> RoleGrant:
    try:
        return parse_grant(text)
    except GrantError as error:
        raise ValueError(f"grants: {text[:80]!r}: {error}") from error


def _identifiers(settings: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(map(parse_identifier, _texts(settings, key, NAMES_MAX)))


def _number(settings: Mapping[str, str], key: str, default: int, most: int) -> int:
    text = settings.get(key, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) > most:
        raise ValueError(f"{key}: a number of 0 to {most}")
    return int(text)


def _reassign_to(settings: Mapping[str, str], admin: str) -> str:
    """Nothing that a run made is destroyed, unless the policy says so."""
    match settings.get("on_drop", "reassign"):
        case "reassign":
            return parse_identifier(settings["reassign_to"]) if "reassign_to" in settings else admin
        case "drop" if "reassign_to" not in settings:
            return ""
        case _:
            raise ValueError("on_drop: reassign (with reassign_to), or drop (without)")
