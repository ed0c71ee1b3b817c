"""The words of a credential of provider vault: read by the policy, and again by the provider."""

import ipaddress
import re
from collections.abc import Mapping

from agent.policy.address import AddressError, parse_url
from agent.policy.declared import (
    FLAG,
    PATH,
    SOURCES,
    Declared,
    Kind,
    fitting,
    one_of,
    one_source,
)

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


def _wrong(settings: Mapping[str, str]) -> tuple[str, str] | None:
    source = one_source(settings, "a login at a vault")
    if source is not None:
        return source
    if settings.get("allow_cleartext") != "true" and _goes_in_clear(settings.get("address", "")):
        return "address", (
            "tokens go in clear to a loopback address alone: write https://, or say "
            "allow_cleartext: true (anyone on the way can then read them)"
        )
    auth = settings.get("auth", "")
    for key in NEEDS.get(auth, ()):
        if key not in settings:
            return "auth", f"auth: {auth} needs the key {key!r}"
    for key in NOT_OF.get(auth, ()):
        if key in settings:
            return key, f"auth: {auth} has no {key}"
    return _wrong_run(settings)


def _wrong_run(settings: Mapping[str, str]) -> tuple[str, str] | None:
    """What is wrong with how a run's token is made."""
    if "token_role" not in settings and "run_role" not in settings:
        return "", "provider vault needs the key 'token_role' or 'run_role'"
    by = "run_role" if "run_role" in settings else "token_role"
    for key in ("token_role", "policies") if by == "run_role" else ("run_mount",):
        if key in settings:
            return key, f"a run's token by {by} has no {key}"
    return None


def _goes_in_clear(text: str) -> bool:
    try:
        address = parse_url(text)
    except AddressError:
        return False  # told where it was read
    try:
        loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        loopback = False
    return address.scheme == "http" and not loopback


_PLACE = Kind(fitting(parse_path))
_WORD = Kind(fitting(parse_word))
VAULT = Declared(
    "vault",
    {
        "address": Kind(fitting(parse_url)),
        "namespace": _PLACE,
        "ca": PATH,
        "allow_cleartext": FLAG,
        "auth": Kind(one_of(*AUTHS)),
        "mount": _PLACE,
        "role_id": _WORD,
        "role": _WORD,
        **SOURCES,
        "wrapped": FLAG,
        "token_role": _WORD,
        "run_mount": _PLACE,
        "run_role": _WORD,
        "policies": Kind(fitting(parse_word), POLICIES_MAX),
        "path": _PLACE,
        "common_name": _WORD,
        "field": _WORD,
        "user_field": _WORD,
    },
    ("address", "auth", "path"),
    _wrong,
)
VAULT_KEYS = tuple(VAULT.kinds)
