"""Addresses of targets: one canonical form, or an objection."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

HOST_CHARACTERS_MAX = 253
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
DEFAULT_PORTS = {"https": 443, "http": 80}
POSTGRES_PORT = 5432


class AddressError(ValueError):
    """Not an address; the message says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """scheme "" for HOST:PORT without one."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """HOST:PORT, as parse_host_port reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(text: str) -> Address:
    """Return the canonical address of `https://host[:port]` or `http://host[:port]`.

    Raises:
        AddressError: another form, or a path, query, fragment or user in it.
    """
    if not text.isprintable() or " " in text or "\\" in text:
        raise AddressError("a URL has no spaces, backslashes or control characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"not a URL: {error}") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise AddressError("write https://HOST[:PORT] or http://HOST[:PORT]")
    _check_bare(parts)
    host = canonical_host(parts.hostname or "")
    return Address(parts.scheme, host, _port(DEFAULT_PORTS[parts.scheme] if port is None else port))


def parse_host_port(text: str, default_port: int | None = None) -> Address:
    """Return the canonical address of `HOST:PORT` or `[IPv6]:PORT`.

    With a default, `HOST` and `[IPv6]` are addresses too.

    Raises:
        AddressError: another form.
    """
    match = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]/]*))(?::([0-9]{1,5}))?", text, re.ASCII)
    if match is None or (match[3] is None and default_port is None):
        optional = "HOST[:PORT] or [IPV6][:PORT]"
        raise AddressError("write HOST:PORT or [IPV6]:PORT" if default_port is None
                           else f"write {optional}")  # fmt: skip
    port = default_port if match[3] is None else int(match[3])
    return Address("", canonical_host(match[1] or match[2] or ""), _port(port or 0))


def canonical_host(text: str) -> str:
    """Return a lower-case A-label name without trailing dot, or an IP literal's canonical text.

    Raises:
        AddressError: neither.
    """
    if not text:
        raise AddressError("the host is missing")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _canonical_name(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise AddressError("an address with a scope id names a link, not a host")
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
    return str(address)


def is_literal(host: str) -> bool:
    """Whether a canonical host is an IP literal."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _canonical_name(text: str) -> str:
    if not text.isascii():
        raise AddressError("write an international name in its A-label form (xn--…)")
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > HOST_CHARACTERS_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise AddressError(f"not a host name: {text[:80]!r}")
    if _NUMBER.fullmatch(labels[-1]):
        raise AddressError(f"neither a host name nor a full IPv4 address: {text[:80]!r}")
    return name


def _check_bare(parts: SplitResult) -> None:
    if parts.username is not None or parts.password is not None:
        raise AddressError("an address has no user or password: credentials are leased")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise AddressError("an address has no path: paths stand in rules")


def _port(port: int) -> int:
    if not 0 < port < 1 << 16:
        raise AddressError("a port is 1 to 65535")
    return port
