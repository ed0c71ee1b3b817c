"""From what an engine answers to a credential of the wanted shape."""

import re
from collections.abc import Mapping
from typing import Any

from agent.credentials.spec import CredentialError, Wanted
from agent.credentials.vault.settings import VaultSettings
from agent.model.credential import (
    Basic,
    Bearer,
    ClientCertificate,
    Credential,
    Header,
    Password,
    QueryParameter,
    Shape,
    SshCertificate,
)
from agent.model.secret import Secret

USER_FIELD, PASSWORD_FIELD, TOKEN_FIELD = "username", "password", "token"
# RFC 9110 section 5.5 without obs-text: what a field value may carry, no space at either end
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~\t]*[!-~])?")


def shaped(settings: VaultSettings, wanted: Wanted, data: Mapping[str, Any]) -> Credential:
    """Return the credential.

    Raises:
        CredentialError: the answer lacks a field, or it does not fit.
    """
    match wanted.shape:
        case Shape.PASSWORD | Shape.BASIC:
            user = _user(settings, wanted, data)
            secret = _secret(data, settings.field or PASSWORD_FIELD)
            made = Password if wanted.shape is Shape.PASSWORD else Basic
            if made is Basic and ":" in user:
                raise CredentialError("the user has a ':', which basic can't carry")
            return made(user, secret)
        case Shape.BEARER:
            return Bearer(_field_value(data, settings.field or TOKEN_FIELD))
        case Shape.HEADER:
            return Header(wanted.name, _field_value(data, settings.field or TOKEN_FIELD))
        case Shape.QUERY_PARAMETER:
            return QueryParameter(wanted.name, _secret(data, settings.field or TOKEN_FIELD))
        case Shape.CLIENT_CERTIFICATE:
            chain = [_text(data, "certificate"), *_chain(data)]
            return ClientCertificate(
                wanted.user or settings.common_name,
                "".join(f"{pem.strip()}\n" for pem in chain),
                _secret(data, "private_key"),
            )
        case Shape.SSH_CERTIFICATE:
            user = wanted.user or _text(data, USER_FIELD)
            return SshCertificate(
                user, _text(data, "signed_key").strip(), _secret(data, "private_key")
            )
        case Shape.AWS_KEYS:
            raise CredentialError("provider vault makes no AWS keys: see provider aws_sts")


def _user(settings: VaultSettings, wanted: Wanted, data: Mapping[str, Any]) -> str:
    """Return whom the server made; the policy's own word is for answers that name nobody."""
    if wanted.user and not settings.user_field and USER_FIELD not in data:
        return wanted.user
    return _text(data, settings.user_field or USER_FIELD)


def _chain(data: Mapping[str, Any]) -> list[str]:
    found = data.get("ca_chain")
    if not isinstance(found, list):
        found = [data["issuing_ca"]] if isinstance(data.get("issuing_ca"), str) else []
    return [str(pem) for pem in found]


def _field_value(data: Mapping[str, Any], field: str) -> Secret:
    secret = _secret(data, field)
    if not _FIELD_VALUE.fullmatch(secret.reveal().decode("utf-8", "replace")):
        raise CredentialError(f"the field {field!r} has characters that no HTTP field may carry")
    return secret


def _secret(data: Mapping[str, Any], field: str) -> Secret:
    return Secret(_text(data, field).removesuffix("\n").removesuffix("\r").encode())


def _text(data: Mapping[str, Any], field: str) -> str:
    found = data.get(field)
    if not isinstance(found, str) or not found:
        names = ", ".join(sorted(str(key)[:40] for key in data)[:10]) or "none"
        raise CredentialError(f"the server's answer has no field {field!r}; it has {names}")
    return found
