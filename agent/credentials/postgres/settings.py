"""What a target says of its runs' roles, read from the journal's or the policy's texts.

They are checked again, by the policy's own table: the journal is a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.credentials.settings import check_settings
from agent.credentials.spec import Client, CredentialError, SqlServer
from agent.model.secret import Secret
from agent.policy.address import parse_host_port
from agent.policy.declared import items_of, source_of
from agent.policy.parse_role import ROLE
from agent.policy.sql_grants import RoleGrant, parse_grant, parse_identifier

CONNECTION_LIMIT = 50


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
    check_settings("postgres", settings, ROLE)
    admin = parse_identifier(settings["admin"])
    address = parse_host_port(settings["address"])
    return RoleSettings(
        admin,
        source_of(settings),
        address.host,
        address.port,
        settings.get("server_name", ""),
        settings.get("ca", ""),
        settings["database"],
        tuple(map(parse_grant, items_of(settings, "grants"))),
        _identifiers(settings, "member_of"),
        _identifiers(settings, "search_path"),
        int(settings.get("statement_timeout", "0")),
        int(settings.get("connection_limit", str(CONNECTION_LIMIT))),
        _reassign_to(settings, admin),
    )


def _identifiers(settings: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(map(parse_identifier, items_of(settings, key)))


def _reassign_to(settings: Mapping[str, str], admin: str) -> str:
    """Nothing that a run made is destroyed, unless the policy says so."""
    if settings.get("on_drop") == "drop":
        return ""
    return parse_identifier(settings["reassign_to"]) if "reassign_to" in settings else admin
