"""One target of the policy."""

from collections.abc import Callable

from agent.model.credential import Shape
from agent.model.grant import Durability, PostgresOptions, UpstreamTls
from agent.model.ids import TargetName
from agent.policy.address import (
    POSTGRES_PORT,
    Address,
    AddressError,
    parse_host_port,
    parse_url,
)
from agent.policy.document import Mapping, Node, Scalar
from agent.policy.errors import Problem
from agent.policy.parse_aws import read_aws
from agent.policy.parse_credential import read_credential
from agent.policy.parse_postgres import POSTGRES_KEYS, read_postgres
from agent.policy.parse_role import Server
from agent.policy.reading import Fields, Problems, choice, flag, text
from agent.policy.schema import CredentialSource, TargetPolicy

HTTP, POSTGRES = "http", "postgres"
PROTOCOLS = (HTTP, POSTGRES)
LATER_PROTOCOLS = frozenset(
    {"mysql", "redis", "mongodb", "ssh", "websocket", "http2", "grpc", "opaque"}
)
CA_PEM_BYTES_MAX = 24 << 10  # it crosses to the proxy in one frame, with the rules
TARGET_KEYS = (
    "protocol", "address", "tls", "ca", "dial", "allow_cleartext", "durability", "credential",
)  # fmt: skip
HTTP_KEYS = ("aws",)


def read_target(
    name: TargetName,
    node: Node,
    problems: Problems,
    read_ca: Callable[[str], str],
    warnings: list[Problem],
) -> TargetPolicy:
    """Return a target; what is wrong is added to problems."""
    protocol = _protocol_of(node)
    more = POSTGRES_KEYS if protocol == POSTGRES else HTTP_KEYS
    fields = Fields(node, f"target {name!r}", (*TARGET_KEYS, *more), problems)
    protocol = fields.required("protocol", _protocol, HTTP)
    is_postgres = protocol == POSTGRES
    read = _postgres_address if is_postgres else _url
    address = fields.required("address", read, Address("https", "", 443))
    tls = _postgres_tls(fields) if is_postgres else _tls(fields, address)
    dial = fields.optional("dial", _host_port, Address("", address.host, address.port))
    ca_pem = _ca(fields, tls, read_ca)

    postgres = read_postgres(fields, problems) if is_postgres else None
    server = Server(
        str(dial), address.host if tls is UpstreamTls.VERIFY_FULL else "",
        fields.optional("ca", text, ""), _first_database(postgres),
    )  # fmt: skip

    def credential_of(written: Node, into: Problems) -> CredentialSource | None:
        return read_credential(written, into, protocol, server)

    credential = fields.optional("credential", credential_of, None)
    allow_cleartext = fields.optional("allow_cleartext", flag, default=False)
    shape = None if credential is None else credential.shape
    if shape is Shape.CLIENT_CERTIFICATE and tls is UpstreamTls.NONE:
        fields.problem("credential", f"shape {shape} is shown in TLS, and this target has none")
    elif credential is not None and tls is UpstreamTls.NONE and not allow_cleartext:
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
        postgres,
        None if is_postgres else read_aws(fields, problems, credential),
    )


def _first_database(options: PostgresOptions | None) -> str:
    """Return the database that a role is made in."""
    if options is None:
        return ""
    return options.database or (options.databases[0] if options.databases else "")


def _protocol_of(node: Node) -> str:
    """Return the protocol as written: it says which keys a target has."""
    if isinstance(node, Mapping):
        for key, value in node.entries:
            if key.text == "protocol" and isinstance(value, Scalar):
                return value.text
    return ""


def _protocol(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    if written in LATER_PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        problems.add(node.place, f"protocol {written!r} needs a later version; now: {known}")
        return HTTP
    return choice(*PROTOCOLS)(node, problems) if written else HTTP


def _url(node: Node, problems: Problems) -> Address:
    return _address(node, problems, parse_url) or Address("https", "", 443)


def _postgres_address(node: Node, problems: Problems) -> Address:
    def parse(written: str) -> Address:
        return parse_host_port(written, POSTGRES_PORT)

    return _address(node, problems, parse) or Address("", "", POSTGRES_PORT)


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


def _postgres_tls(fields: Fields) -> UpstreamTls:
    return UpstreamTls(fields.optional("tls", choice("verify-full", "none"), "verify-full"))


def _ca(fields: Fields, tls: UpstreamTls, read_ca: Callable[[str], str]) -> str:
    path = fields.optional("ca", text, "")
    if not path:
        return ""
    if tls is UpstreamTls.NONE:
        fields.problem("ca", "a CA without TLS: the target says http:// or tls: none")
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
