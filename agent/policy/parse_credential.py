"""Where a target's credential comes from. The tables here are those of the SPECs, by a test."""

import re

from agent.model.credential import Shape
from agent.policy.declared import SOURCES, Declared, one_source, read_declared
from agent.policy.document import Mapping, Node
from agent.policy.parse_aws_sts import AWS_STS
from agent.policy.parse_exec import EXEC
from agent.policy.parse_github_app import GITHUB_APP
from agent.policy.parse_kubernetes import KUBERNETES
from agent.policy.parse_oauth2 import OAUTH2
from agent.policy.parse_role import ROLE, Server, read_role
from agent.policy.parse_vault import read_vault
from agent.policy.reading import Fields, Problems, choice, duration, text, unknown
from agent.policy.schema import CredentialSource
from agent.policy.vault_words import VAULT

# protocol → the shapes that it takes; the first is the default where there is one
ACCEPTS: dict[str, tuple[Shape, ...]] = {
    "http": (
        Shape.BEARER, Shape.BASIC, Shape.HEADER, Shape.QUERY_PARAMETER, Shape.CLIENT_CERTIFICATE,
        Shape.AWS_KEYS,
    ),
    "postgres": (Shape.PASSWORD, Shape.CLIENT_CERTIFICATE),
}  # fmt: skip
DEFAULT_SHAPE = {"postgres": Shape.PASSWORD}
STATIC = Declared(
    "static", SOURCES, wrong=lambda settings: one_source(settings, "a static credential")
)
DECLARED: dict[str, Declared] = {
    each.provider: each
    for each in (STATIC, ROLE, VAULT, OAUTH2, GITHUB_APP, AWS_STS, KUBERNETES, EXEC)
}
# provider → its settings, and the shapes that it makes
PROVIDERS: dict[str, tuple[str, ...]] = {
    name: tuple(declared.kinds) for name, declared in DECLARED.items()
}
SHAPES: dict[str, frozenset[Shape]] = {
    "static": frozenset(Shape) - {Shape.CLIENT_CERTIFICATE, Shape.AWS_KEYS, Shape.SSH_CERTIFICATE},
    "postgres": frozenset({Shape.PASSWORD}),
    "vault": frozenset(Shape) - {Shape.AWS_KEYS},
    "oauth2": frozenset({Shape.BEARER}),
    "github_app": frozenset({Shape.BEARER, Shape.BASIC}),
    "aws_sts": frozenset({Shape.AWS_KEYS}),
    "kubernetes": frozenset({Shape.BEARER}),
    "exec": frozenset(Shape) - {Shape.SSH_CERTIFICATE},
}
LATER_PROVIDERS = frozenset({"mysql", "file"})
COMMON_KEYS = ("provider", "shape", "name", "user", "ttl", "max_ttl")
WITH_USER = frozenset(
    {Shape.BASIC, Shape.PASSWORD, Shape.CLIENT_CERTIFICATE, Shape.SSH_CERTIFICATE}
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 section 5.6.2
_QUERY_NAME = re.compile(r"[A-Za-z0-9._~-]{1,100}")
# fields that frame or route a message: a credential never stands in one of them
_FRAMING_FIELDS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade",
     "keep-alive", "proxy-connection", "expect", "content-encoding", "accept-encoding", "range"}
)  # fmt: skip


def read_credential(
    node: Node, problems: Problems, protocol: str, server: Server
) -> CredentialSource | None:
    """Return a credential's source; what is wrong is added to problems."""
    provider = _provider(node, problems)
    if provider is None:
        return None
    fields = Fields(node, "a credential", (*COMMON_KEYS, *PROVIDERS[provider]), problems)
    fields.required("provider", text, "")
    shape = _shape(fields, protocol, provider)
    if provider == "vault":
        settings = read_vault(fields, problems, shape)
    elif provider == "postgres":
        settings = read_role(fields, problems, server)
    else:
        settings = read_declared(fields, problems, DECLARED[provider])
    name, user = _name(fields, shape), _user(fields, shape, provider, problems)
    if "user" in fields and shape is Shape.CLIENT_CERTIFICATE and protocol == "http":
        fields.problem("user", "protocol http names no user beside a client certificate")
    return CredentialSource(provider, settings, shape, name, user, *_times(fields))


def _times(fields: Fields) -> tuple[int, int]:
    """Return ttl and max_ttl in seconds, 0 for none."""
    ttl_s = fields.optional("ttl", duration, 0)
    max_ttl_s = fields.optional("max_ttl", duration, 0)
    if 0 < max_ttl_s < ttl_s:
        fields.problem(
            "max_ttl", "max_ttl is how long renewals may take it: at least as long as ttl"
        )
    return ttl_s, max_ttl_s


def _provider(node: Node, problems: Problems) -> str | None:
    """Return the provider, "static" for one that is missing: its absence is told elsewhere."""
    if not isinstance(node, Mapping):
        Fields(node, "a credential", COMMON_KEYS, problems)
        return None
    for key, value in node.entries:
        if key.text == "provider":
            written = text(value, problems)
            if written in PROVIDERS:
                return written
            known = ", ".join(PROVIDERS)
            if written in LATER_PROVIDERS:
                said = f"provider {written!r} needs a later version; now: {known}"
                problems.add(value.place, said)
            elif written:
                problems.add(value.place, unknown("provider", written, tuple(PROVIDERS)))
            return None
    return "static"


def _shape(fields: Fields, protocol: str, provider: str) -> Shape:
    read = choice(*(each.value for each in Shape))
    default = DEFAULT_SHAPE.get(protocol)
    if default is not None:
        shape = Shape(fields.optional("shape", read, default.value))
    else:
        shape = Shape(fields.required("shape", read, "bearer"))
    accepted = ACCEPTS[protocol]
    if shape not in accepted:
        text_ = f"protocol {protocol} does not take shape {shape}; it takes {', '.join(accepted)}"
        fields.problem("shape", text_)
        return accepted[0]
    if shape not in SHAPES[provider]:
        fields.problem("shape", f"provider {provider} does not make shape {shape}")
    return shape


def _name(fields: Fields, shape: Shape) -> str:
    name = fields.optional("name", text, "")
    if shape not in {Shape.HEADER, Shape.QUERY_PARAMETER}:
        if "name" in fields:
            fields.problem("name", f"shape {shape} has no name")
        return ""
    pattern = _TOKEN if shape is Shape.HEADER else _QUERY_NAME
    if not name:
        fields.problem("name", f"shape {shape} needs a name")
    elif not pattern.fullmatch(name):
        fields.problem("name", f"not a {shape} name: {name[:40]!r}")
    elif shape is Shape.HEADER and name.lower() in _FRAMING_FIELDS:
        fields.problem("name", f"the field {name!r} frames the message: no credential goes there")
    return name


def _user(fields: Fields, shape: Shape, provider: str, problems: Problems) -> str:
    user = fields.optional("user", text, "")
    if provider == "postgres" and "user" in fields:
        fields.problem("user", "provider postgres makes the user; admin is who makes it")
    if shape not in WITH_USER:
        if "user" in fields:
            fields.problem("user", f"shape {shape} has no user")
        return ""
    if not user and provider == "static" and shape is not Shape.CLIENT_CERTIFICATE:
        problems.add(fields.place, f"shape {shape} needs a user")
    if ":" in user and shape is Shape.BASIC:
        fields.problem("user", "a user of basic has no ':' (RFC 7617 section 2)")
    return user
