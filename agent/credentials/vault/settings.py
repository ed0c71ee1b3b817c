"""What a target says of its vault, read from the journal's or the policy's texts, and strictly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from agent.credentials.spec import Client, CredentialError
from agent.model.secret import Secret
from agent.policy.vault_words import (
    AUTHS,
    NEEDS,
    NOT_OF,
    POLICIES_MAX,
    SOURCES,
    VAULT_KEYS,
    parse_path,
    parse_server,
    parse_word,
)


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
    token_role: str
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
    try:
        return _read(settings)
    except ValueError as error:
        text = f"a credential of provider vault: {error}"
        raise CredentialError(text, nothing_made=True) from error


def _read(settings: Mapping[str, str]) -> VaultSettings:
    unknown = sorted(set(settings) - set(VAULT_KEYS))
    if unknown:
        raise ValueError(f"unknown setting {unknown[0][:40]!r}")
    auth = settings.get("auth", "")
    if auth not in AUTHS:
        raise ValueError(f"auth is one of {', '.join(AUTHS)}")
    for key in (*NEEDS[auth], "address", "token_role", "path"):
        if not settings.get(key):
            raise ValueError(f"the setting {key!r} is needed")
    for key in NOT_OF[auth]:
        if key in settings:
            raise ValueError(f"auth: {auth} has no {key}")
    sources = [(key, settings[key]) for key in SOURCES if key in settings]
    if len(sources) != 1:
        raise ValueError(f"the login's secret has one of {', '.join(SOURCES)}")
    cleartext = _flag(settings, "allow_cleartext")
    server = parse_server(settings["address"], cleartext=cleartext)
    return VaultSettings(
        f"{server.scheme}://{server}",
        _path(settings, "namespace"),
        settings.get("ca", ""),
        cleartext,
        auth,
        _path(settings, "mount") or auth,
        _word(settings, "role_id") or _word(settings, "role"),
        sources[0],
        _flag(settings, "wrapped"),
        _word(settings, "token_role"),
        _policies(settings),
        _path(settings, "path"),
        _word(settings, "common_name"),
        _word(settings, "field"),
        _word(settings, "user_field"),
    )


def _path(settings: Mapping[str, str], key: str) -> str:
    return parse_path(settings[key]) if key in settings else ""


def _word(settings: Mapping[str, str], key: str) -> str:
    return parse_word(settings[key]) if key in settings else ""


def _flag(settings: Mapping[str, str], key: str) -> bool:
    text = settings.get(key, "false")
    if text not in {"true", "false"}:
        raise ValueError(f"{key} is true or false")
    return text == "true"


def _policies(settings: Mapping[str, str]) -> tuple[str, ...]:
    try:
        found = json.loads(settings.get("policies", "[]"))
    except (ValueError, RecursionError):
        raise ValueError("policies is no JSON list") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError("policies is no list of names")
    if len(found) > POLICIES_MAX:
        raise ValueError(f"at most {POLICIES_MAX} policies")
    return tuple(map(parse_word, found))
