"""Shapes of credentials. A new shape is a security decision: agent/README.md records it."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.secret import Secret


class Shape(StrEnum):
    """What a provider issues and a protocol accepts."""

    BEARER = "bearer"
    BASIC = "basic"
    HEADER = "header"
    QUERY_PARAMETER = "query-parameter"
    PASSWORD = "password"  # noqa: S105 - the name of a shape
    CLIENT_CERTIFICATE = "client-certificate"
    AWS_KEYS = "aws-keys"
    SSH_CERTIFICATE = "ssh-certificate"  # made, and taken by no protocol yet


@dataclass(frozen=True, slots=True)
class Bearer:
    """RFC 6750 token for the Authorization header."""

    token: Secret


@dataclass(frozen=True, slots=True)
class Basic:
    """RFC 7617 user and password."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Header:
    """A named header field that carries the whole value."""

    name: str
    value: Secret


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """A named query parameter that carries the value (percent-encoded when used)."""

    name: str
    value: Secret


@dataclass(frozen=True, slots=True)
class Password:
    """A user and password for a protocol's own login (PostgreSQL, not HTTP)."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate chain and its key, PEM, for the TLS handshake; user "" when not told."""

    user: str
    chain_pem: str
    key_pem: Secret


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Keys that sign requests to AWS (SigV4). None of the three ever goes downstream.

    session_token: of temporary keys, None for long-lived ones.
    """

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret | None


@dataclass(frozen=True, slots=True)
class SshCertificate:
    """A user's certificate of an SSH CA (one line, as OpenSSH writes it), and its key (PEM)."""

    user: str
    certificate: str
    key_pem: Secret


type_of = {
    Shape.BEARER: Bearer,
    Shape.BASIC: Basic,
    Shape.HEADER: Header,
    Shape.QUERY_PARAMETER: QueryParameter,
    Shape.PASSWORD: Password,
    Shape.CLIENT_CERTIFICATE: ClientCertificate,
    Shape.AWS_KEYS: AwsKeys,
    Shape.SSH_CERTIFICATE: SshCertificate,
}
Credential = (
    Bearer
    | Basic
    | Header
    | QueryParameter
    | Password
    | ClientCertificate
    | AwsKeys
    | SshCertificate
)


def secrets_of(credential: Credential) -> tuple[Secret, ...]:
    """Return what must never appear downstream."""
    match credential:
        case Bearer(token):
            return (token,)
        case Basic(_, password) | Password(_, password):
            return (password,)
        case Header(_, value) | QueryParameter(_, value):
            return (value,)
        case ClientCertificate(_, _, key_pem) | SshCertificate(_, _, key_pem):
            return (key_pem,)
        case AwsKeys(key_id, secret, token):
            return (key_id, secret) if token is None else (key_id, secret, token)
