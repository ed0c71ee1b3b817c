"""What a target says of its vault, read from the journal's or the policy's texts.

They are checked again, by the policy's own table: the journal is a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.credentials.settings import check_settings
from agent.credentials.spec import Client, CredentialError
from agent.model.secret import Secret
from agent.policy.address import parse_url
from agent.policy.declared import items_of, source_of
from agent.policy.vault_words import VAULT


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Checked. source: where the SecretID, the JWT or the token is. "" is what there is none of."""

    url: str  # https://HOST:PORT
    namespace: str
    ca: str
    allow_cleartext: bool
    auth: str
    mount: str
    role: str  # the AppRole's RoleID, or the JWT's role
    source: tuple[str, str]
    wrapped: bool
    token_role: str  # how a run's token is made: by it, or by a login of the run's own
    run_mount: str
    run_role: str
    policies: tuple[str, ...]
    path: str
    common_name: str
    field: str
    user_field: str

    @property
    def login_key(self) -> str:
        """What tells one login of ours from another."""
        parts = (self.url, self.namespace, self.ca, self.auth, self.mount, self.role, *self.source)
        return "\0".join(("vault", *parts))

    async def secret(self, client: Client) -> Secret:
        """Return the SecretID, the token that wraps it, the JWT, or the token.

        Raises:
            CredentialError: it can't be read.
        """
        kind, value = self.source
        read = {
            "file": client.file,
            "systemd_credential": client.systemd_credential,
            "environment": client.environment,
        }[kind]
        try:
            secret = (await read(value)).reveal().strip()
        except CredentialError as error:
            error.nothing_made = True
            raise
        if not secret or not all(0x21 <= byte <= 0x7E for byte in secret):
            text = f"{kind} {value} is no token of one line: is it the right one?"
            raise CredentialError(text, nothing_made=True)
        return Secret(secret)


def read_settings(settings: Mapping[str, str]) -> VaultSettings:
    """Check and return the settings.

    Raises:
        CredentialError: one is missing, unknown or wrong.
    """
    check_settings("vault", settings, VAULT)
    said = settings.get
    server = parse_url(settings["address"])
    return VaultSettings(
        f"{server.scheme}://{server}",
        said("namespace", ""),
        said("ca", ""),
        said("allow_cleartext") == "true",
        settings["auth"],
        said("mount") or settings["auth"],
        said("role_id") or said("role", ""),
        source_of(settings),
        said("wrapped") == "true",
        said("token_role", ""),
        said("run_mount", "jwt"),
        said("run_role", ""),
        items_of(settings, "policies"),
        settings["path"],
        said("common_name", ""),
        said("field", ""),
        said("user_field", ""),
    )
