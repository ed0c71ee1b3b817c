"""What programs print: our own form, and Kubernetes' ExecCredential.

Ours: one JSON object with `token`, or `user` and `password`, or `certificate` and `key` (PEM), or
`access_key_id`, `secret_access_key` and `session_token` (AWS' credential_process form is read too);
`expires_at` (RFC 3339) or `expires_in` (seconds), neither for what does not expire; `handle`, what
`revoke_command` is told besides the lease.
"""

import json
import re
from dataclasses import dataclass, field

from agent.credentials.replies import END_MS_MAX, moment_ms
from agent.credentials.spec import CredentialError, Wanted
from agent.model.credential import (
    AwsKeys,
    Basic,
    Bearer,
    ClientCertificate,
    Credential,
    Header,
    Password,
    QueryParameter,
    Shape,
    secrets_of,
)
from agent.model.secret import Secret

OWN_HANDLE_CHARACTERS_MAX = 512
WHO = "the program"
_KEYS = frozenset(
    {"token", "user", "password", "certificate", "key", "expires_at", "expires_in", "handle",
     "access_key_id", "secret_access_key", "session_token"}
)  # fmt: skip
_IN_FIELDS = frozenset({"token", "access_key_id", "session_token"})
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~\t]*[!-~])?")


@dataclass(frozen=True, slots=True)
class Printed:
    """Checked. end_ms 0: it does not expire."""

    credential: Credential = field(repr=False)
    end_ms: int
    handle: str


def read_printed(secret: Secret, wanted: Wanted, now_ms: int) -> Printed:
    """Return the credential of the target's shape.

    Raises:
        CredentialError: there is none.
    """
    try:
        found = json.loads(secret.reveal())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CredentialError(f"{WHO} prints no JSON object")
    if found.get("kind") == "ExecCredential":
        found = _exec_credential(found)
    if "AccessKeyId" in found:
        found = _process_credential(found)
    unknown = sorted(set(found) - _KEYS)
    if unknown:
        raise CredentialError(f"{WHO} prints keys that are not known")
    credential = _shaped(found, wanted)
    handle = found.get("handle", "")
    _check_handle(handle, credential)
    return Printed(credential, _end_ms(found, now_ms), handle)


def _exec_credential(found: dict[str, object]) -> dict[str, object]:
    status = found.get("status")
    if not isinstance(status, dict):
        raise CredentialError(f"{WHO} prints an ExecCredential without status")
    names = {
        "token": "token",
        "expirationTimestamp": "expires_at",
        "clientCertificateData": "certificate",
        "clientKeyData": "key",
    }
    return {ours: status[theirs] for theirs, ours in names.items() if theirs in status}


def _process_credential(found: dict[str, object]) -> dict[str, object]:
    """Read AWS' credential_process form (AWS CLI user guide, "external process")."""
    names = {
        "AccessKeyId": "access_key_id",
        "SecretAccessKey": "secret_access_key",
        "SessionToken": "session_token",
        "Expiration": "expires_at",
    }
    if found.get("Version") != 1 or set(found) - set(names) - {"Version"}:
        raise CredentialError(f"{WHO} prints AWS keys of a form that is not Version 1")
    return {ours: found[theirs] for theirs, ours in names.items() if theirs in found}


def _shaped(found: dict[str, object], wanted: Wanted) -> Credential:
    match wanted.shape:
        case Shape.BEARER:
            return Bearer(_value(found, "token"))
        case Shape.HEADER:
            return Header(wanted.name, _value(found, "token"))
        case Shape.QUERY_PARAMETER:
            return QueryParameter(wanted.name, _value(found, "token"))
        case Shape.BASIC:
            return Basic(_user(found, wanted), _value(found, "password"))
        case Shape.PASSWORD:
            return Password(_user(found, wanted), _value(found, "password"))
        case Shape.CLIENT_CERTIFICATE:
            chain = found.get("certificate")
            if not isinstance(chain, str) or "BEGIN CERTIFICATE" not in chain:
                raise CredentialError(f"{WHO} prints no certificate (PEM)")
            key = found.get("key")
            if not isinstance(key, str) or "PRIVATE KEY" not in key:
                raise CredentialError(f"{WHO} prints no key (PEM)")
            return ClientCertificate(wanted.user, chain, Secret(key.encode()))
        case Shape.AWS_KEYS:
            key_id, secret = (_value(found, key) for key in ("access_key_id", "secret_access_key"))
            given = found.get("session_token") is not None
            return AwsKeys(key_id, secret, _value(found, "session_token") if given else None)
        case Shape.SSH_CERTIFICATE:
            raise CredentialError("provider exec makes no SSH certificates")


def _value(found: dict[str, object], key: str) -> Secret:
    value = found.get(key)
    if not isinstance(value, str) or not value:
        raise CredentialError(f"{WHO} prints no {key}, which the target's shape needs")
    if key in _IN_FIELDS and not _FIELD_VALUE.fullmatch(value):
        raise CredentialError(f"{WHO} prints a {key} that no HTTP field may carry")
    return Secret(value.encode())


def _user(found: dict[str, object], wanted: Wanted) -> str:
    user = found.get("user", wanted.user)
    if not isinstance(user, str) or not user.isprintable() or not user:
        raise CredentialError(f"{WHO} prints no user, and the target has none")
    if wanted.shape is Shape.BASIC and ":" in user:
        raise CredentialError("a user of basic has no ':' (RFC 7617 section 2)")
    return user


def _check_handle(handle: object, credential: Credential) -> None:
    """A handle is kept in the journal: nothing of the secret may be in it."""
    if not isinstance(handle, str) or len(handle) > OWN_HANDLE_CHARACTERS_MAX:
        raise CredentialError(f"{WHO} prints a handle of more than {OWN_HANDLE_CHARACTERS_MAX}")
    if not handle.isprintable():
        raise CredentialError(f"{WHO} prints a handle that is no printable text")
    for secret in secrets_of(credential):
        text = secret.reveal().decode()
        if handle and (text in handle or handle in text):
            raise CredentialError(f"{WHO} prints a handle with the secret in it")


def _end_ms(found: dict[str, object], now_ms: int) -> int:
    if "expires_at" in found:
        value = found["expires_at"]
        return moment_ms(value if isinstance(value, str) else "", WHO)
    if "expires_in" not in found:
        return 0
    seconds = found["expires_in"]
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds <= 0:
        raise CredentialError(f"{WHO} prints no possible expires_in")
    return min(now_ms + 1000 * seconds, END_MS_MAX - 1)
