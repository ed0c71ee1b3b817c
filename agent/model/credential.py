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


type_of = {
    Shape.BEARER: Bearer,
    Shape.BASIC: Basic,
    Shape.HEADER: Header,
    Shape.QUERY_PARAMETER: QueryParameter,
}
Credential = Bearer | Basic | Header | QueryParameter


def secrets_of(credential: Credential) -> tuple[Secret, ...]:
    """Return what must never appear downstream."""
    match credential:
        case Bearer(token):
            return (token,)
        case Basic(_, password):
            return (password,)
        case Header(_, value) | QueryParameter(_, value):
            return (value,)
