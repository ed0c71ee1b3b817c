"""Where a target's credential comes from. The tables here are those of the SPECs, by a test."""

import json
import re

from agent.model.credential import Shape
from agent.policy.document import Mapping, Node, Scalar, Sequence
from agent.policy.reading import Fields, Problems, choice, duration, text, unknown
from agent.policy.schema import CredentialSource

# protocol → the shapes that it takes; the first is the default where there is one
ACCEPTS: dict[str, tuple[Shape, ...]] = {
    "http": (Shape.BEARER, Shape.BASIC, Shape.HEADER, Shape.QUERY_PARAMETER),
    "postgres": (Shape.PASSWORD, Shape.CLIENT_CERTIFICATE),
}
DEFAULT_SHAPE = {"postgres": Shape.PASSWORD}
STATIC_SOURCES = ("file", "systemd_credential", "environment")
# provider → its settings, and the shapes that it makes
PROVIDERS: dict[str, tuple[str, ...]] = {
    "static": STATIC_SOURCES,
}
SHAPES: dict[str, frozenset[Shape]] = {
    "static": frozenset(Shape) - {Shape.CLIENT_CERTIFICATE},
}
LATER_PROVIDERS = frozenset(
    {"vault", "postgres", "oauth2", "aws_sts", "github_app", "kubernetes", "mysql", "file"}
)
COMMON_KEYS = ("provider", "shape", "name", "user", "ttl", "max_ttl")
SETTING_CHARACTERS_MAX = 4_096  # of one setting, as JSON
SETTING_ITEMS_MAX = 100
WITH_USER = frozenset({Shape.BASIC, Shape.PASSWORD, Shape.CLIENT_CERTIFICATE})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 section 5.6.2
_QUERY_NAME = re.compile(r"[A-Za-z0-9._~-]{1,100}")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_CREDENTIAL_FILE = re.compile(r"[A-Za-z0-9_.@:-]{1,100}")
# fields that frame or route a message: a credential never stands in one of them
_FRAMING_FIELDS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade",
     "keep-alive", "proxy-connection", "expect", "content-encoding", "accept-encoding", "range"}
)  # fmt: skip


def read_credential(node: Node, problems: Problems, protocol: str) -> CredentialSource | None:
    """Return a credential's source; what is wrong is added to problems."""
    provider = _provider(node, problems)
    if provider is None:
        return None
    fields = Fields(node, "a credential", (*COMMON_KEYS, *PROVIDERS[provider]), problems)
    fields.required("provider", text, "")
    settings = _settings(fields, provider)
    _check_static(fields, problems, provider)
    shape = _shape(fields, protocol, provider)
    return CredentialSource(
        provider,
        settings,
        shape,
        _name(fields, shape),
        _user(fields, shape, provider, problems),
        fields.optional("ttl", duration, 0),
        fields.optional("max_ttl", duration, 0),
    )


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


def _settings(fields: Fields, provider: str) -> tuple[tuple[str, str], ...]:
    """Return the provider's own keys in their order; lists and mappings as JSON text."""
    return tuple(
        (key, fields.optional(key, _setting, ""))
        for key in sorted(PROVIDERS[provider])
        if key in fields
    )


def _setting(node: Node, problems: Problems) -> str:
    """Return a setting's text, JSON text for a list or a mapping."""
    value: list[str] | dict[str, str]
    if isinstance(node, Scalar):
        return text(node, problems)
    if isinstance(node, Sequence):
        value = [text(each, problems) for each in node.items]
    else:
        value = {key.text: text(each, problems) for key, each in node.entries}
    written = json.dumps(value, ensure_ascii=False)
    if len(value) > SETTING_ITEMS_MAX or len(written) > SETTING_CHARACTERS_MAX:
        problems.add(
            node.place,
            f"a setting has at most {SETTING_ITEMS_MAX} items of {SETTING_CHARACTERS_MAX} "
            "characters together",
        )
    return written


def _check_static(fields: Fields, problems: Problems, provider: str) -> None:
    """One source, and one that can be."""
    if provider != "static":
        return
    given = [key for key in STATIC_SOURCES if key in fields]
    if len(given) != 1:
        problems.add(fields.place, f"a static credential has one of {', '.join(STATIC_SOURCES)}")
        return
    key = given[0]
    value = fields.optional(key, text, "")
    good = {
        "file": value.startswith("/"),
        "systemd_credential": _CREDENTIAL_FILE.fullmatch(value) and value not in {".", ".."},
        "environment": _ENVIRONMENT.fullmatch(value),
    }[key]
    wanted = {"file": "an absolute path", "systemd_credential": "the name of LoadCredential="}
    if value and not good:
        fields.problem(key, f"{key}: write {wanted.get(key, 'the name of a variable')}")


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
    if shape not in WITH_USER:
        if "user" in fields:
            fields.problem("user", f"shape {shape} has no user")
        return ""
    if not user and provider == "static" and shape is not Shape.CLIENT_CERTIFICATE:
        problems.add(fields.place, f"shape {shape} needs a user")
    if ":" in user and shape is Shape.BASIC:
        fields.problem("user", "a user of basic has no ':' (RFC 7617 section 2)")
    return user
