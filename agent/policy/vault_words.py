"""The words of a credential of provider vault: read by the policy, and again by the provider."""

import ipaddress
import re

from agent.policy.address import Address, AddressError, parse_url

SOURCES = ("file", "systemd_credential", "environment")
VAULT_KEYS = (
    "address", "namespace", "ca", "allow_cleartext", "auth", "mount", "role_id", "role", *SOURCES,
    "wrapped", "token_role", "policies", "path", "common_name", "field", "user_field",
)  # fmt: skip
AUTHS = ("approle", "jwt", "token")
# which keys a way to log in needs, and which it does not have
NEEDS = {"approle": ("role_id",), "jwt": ("role",), "token": ()}
NOT_OF = {
    "approle": ("role",),
    "jwt": ("role_id", "wrapped"),
    "token": ("role_id", "role", "wrapped", "mount"),
}
POLICIES_MAX = 32
_PATH = re.compile(r"(?=.{1,256}\Z)[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._@-]*)*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@:-]{0,127}")


def parse_server(text: str, *, cleartext: bool) -> Address:
    """Return the address of a server.

    Raises:
        AddressError: another form; or http:// where a token would go out in clear.
    """
    address = parse_url(text)
    if address.scheme == "http" and not cleartext and not _is_loopback(address.host):
        raise AddressError(
            "tokens go in clear to a loopback address alone: write https://, or say "
            "allow_cleartext: true (anyone on the way can then read them)"
        )
    return address


def parse_path(text: str) -> str:
    """Return a path below /v1/ (of an engine, a mount, a namespace).

    Raises:
        ValueError: it has other characters, an empty part, or begins or ends with a slash.
    """
    if not _PATH.fullmatch(text):
        raise ValueError(
            "a path is words of letters, digits, '_', '.' and '-' with '/' between, at most 256 "
            "characters, without /v1/ before it"
        )
    return text


def parse_word(text: str) -> str:
    """Return a name of a role, policy, field or subject.

    Raises:
        ValueError: it has other characters, or more than 128.
    """
    if not _NAME.fullmatch(text):
        raise ValueError("a name is letters, digits, '_', '.', '@', ':' and '-', at most 128")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
