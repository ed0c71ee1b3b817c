"""One target of the policy."""

import re
from collections.abc import Callable

from agent.model.credential import Shape
from agent.model.grant import Durability, UpstreamTls
from agent.model.ids import TargetName
from agent.policy.address import Address, AddressError, is_literal, parse_host_port, parse_url
from agent.policy.document import Node
from agent.policy.errors import Problem
from agent.policy.reading import Fields, Problems, choice, flag, text
from agent.policy.schema import CredentialSource, TargetPolicy

PROTOCOLS = ("http",)
LATER_PROTOCOLS = frozenset(
    {"postgres", "mysql", "redis", "mongodb", "ssh", "websocket", "http2", "grpc", "opaque"}
)
LATER_PROVIDERS = frozenset(
    {"vault", "postgres", "oauth2", "aws_sts", "github_app", "kubernetes", "mysql", "file"}
)
STATIC_SOURCES = ("file", "systemd_credential", "environment")
CA_PEM_BYTES_MAX = 24 << 10  # it crosses to the proxy in one frame, with the rules
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 section 5.6.2
_QUERY_NAME = re.compile(r"[A-Za-z0-9._~-]{1,100}")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_CREDENTIAL_FILE = re.compile(r"[A-Za-z0-9_.@:-]{1,100}")
# fields that frame or route a message: a credential never stands in one of them
_FRAMING_FIELDS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade",
     "keep-alive", "proxy-connection", "expect", "content-encoding", "accept-encoding", "range"}
)  # fmt: skip
TARGET_KEYS = (
    "protocol", "address", "tls", "ca", "dial", "allow_cleartext", "durability", "credential",
)  # fmt: skip
CREDENTIAL_KEYS = ("provider", *STATIC_SOURCES, "shape", "name", "user")


def read_target(
    name: TargetName,
    node: Node,
    problems: Problems,
    read_ca: Callable[[str], str],
    warnings: list[Problem],
) -> TargetPolicy:
    """Return a target; what is wrong is added to problems."""
    fields = Fields(node, f"target {name!r}", TARGET_KEYS, problems)
    protocol = fields.required("protocol", _protocol, "http")
    address = fields.required("address", _url, Address("https", "", 443))
    tls = _tls(fields, address)
    dial = fields.optional("dial", _host_port, Address("", address.host, address.port))
    ca_pem = _ca(fields, tls, read_ca)
    credential = fields.optional("credential", _credential, None)
    allow_cleartext = fields.optional("allow_cleartext", flag, default=False)
    if credential is not None and tls is UpstreamTls.NONE and not allow_cleartext:
        text_ = (
            f"target {name!r} has a credential but no TLS: every operation with it is refused, "
            "until the target says allow_cleartext: true (anyone on the way can then read it)"
        )
        warnings.append(Problem(fields.place, text_))
    durability = fields.optional("durability", choice("disk", "process"), "disk")
    return TargetPolicy(
        name,
        protocol,
        address.host,
        address.port,
        tls,
        ca_pem,
        dial.host,
        dial.port,
        allow_cleartext,
        Durability(durability),
        credential,
    )


def _protocol(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    if written in LATER_PROTOCOLS:
        problems.add(node.place, f"protocol {written!r} needs a later version; this one has: http")
        return "http"
    return choice(*PROTOCOLS)(node, problems) if written else "http"


def _url(node: Node, problems: Problems) -> Address:
    return _address(node, problems, parse_url) or Address("https", "", 443)


def _host_port(node: Node, problems: Problems) -> Address:
    return _address(node, problems, parse_host_port) or Address("", "", 443)


def _address(node: Node, problems: Problems, parse: Callable[[str], Address]) -> Address | None:
    written = text(node, problems)
    try:
        return parse(written) if written else None
    except AddressError as error:
        problems.add(node.place, str(error))
        return None


def _tls(fields: Fields, address: Address) -> UpstreamTls:
    natural = "verify-full" if address.scheme == "https" else "none"
    written = fields.optional("tls", choice(natural, "verify-full", "none"), natural)
    if written != natural:
        fields.problem("tls", f"an {address.scheme}:// address means tls: {natural}")
    return UpstreamTls(natural)


def _ca(fields: Fields, tls: UpstreamTls, read_ca: Callable[[str], str]) -> str:
    path = fields.optional("ca", text, "")
    if not path:
        return ""
    if tls is UpstreamTls.NONE:
        fields.problem("ca", "a CA without TLS: the address is http://")
        return ""
    if not path.startswith("/"):
        fields.problem("ca", "write the CA file's absolute path")
        return ""
    try:
        pem = read_ca(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        fields.problem("ca", f"{path}: {reason or error}")
        return ""
    if "-----BEGIN CERTIFICATE-----" not in pem:
        fields.problem("ca", f"{path} holds no PEM certificate")
    if len(pem.encode("utf-8", "replace")) > CA_PEM_BYTES_MAX:
        fields.problem("ca", f"{path} has more than {CA_PEM_BYTES_MAX} bytes")
        return ""
    return pem


def _credential(node: Node, problems: Problems) -> CredentialSource | None:
    fields = Fields(node, "a credential", CREDENTIAL_KEYS, problems)
    provider = fields.required("provider", text, "")
    if provider in LATER_PROVIDERS:
        problems.add(node.place, f"provider {provider!r} needs a later version; now: static")
    elif provider and provider != "static":
        fields.problem("provider", f"unknown provider {provider[:40]!r}; this version has: static")
    settings = _settings(fields, problems)
    shape = Shape(fields.required("shape", choice(*(each.value for each in Shape)), "bearer"))
    return CredentialSource(
        provider, settings, shape, _name(fields, shape), _user(fields, shape, problems)
    )


def _settings(fields: Fields, problems: Problems) -> tuple[tuple[str, str], ...]:
    given = [key for key in STATIC_SOURCES if key in fields]
    if len(given) != 1:
        problems.add(fields.place, f"a static credential has one of {', '.join(STATIC_SOURCES)}")
        return ()
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
    return ((key, value),)


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


def _user(fields: Fields, shape: Shape, problems: Problems) -> str:
    user = fields.optional("user", text, "")
    if shape is not Shape.BASIC:
        if "user" in fields:
            fields.problem("user", f"shape {shape} has no user")
        return ""
    if not user:
        problems.add(fields.place, "shape basic needs a user")
    if ":" in user:
        fields.problem("user", "a user of basic has no ':' (RFC 7617 section 2)")
    return user


def target_is_literal(target: TargetPolicy) -> bool:
    """Whether the target's host is an IP literal: it then has no synthetic address."""
    return is_literal(target.host)
