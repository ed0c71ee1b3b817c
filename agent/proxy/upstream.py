"""Connections to a target: to the policy's address, verified, before anything is said on them."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from agent.model.flow import Endpoint
from agent.model.grant import Target
from agent.model.reason import Reason

RESOLVE_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0  # each address
CONNECT_TOTAL_TIMEOUT_S = 15.0
ADDRESSES_TRIED_MAX = 8

logger = logging.getLogger(__name__)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SYNTHETIC4 = ipaddress.ip_network("198.18.0.0/15")  # what our resolver answers (RFC 2544)
METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
)


class Unreachable(Exception):
    """No connection; reason and detail are safe to show."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class DialRules:
    """What may never be dialled, whatever a name resolves to."""

    own_ports: frozenset[int]  # the proxy's and the resolver's, on this host


def forbidden(address: Address, target: Target, rules: DialRules) -> str:
    """Return why this address of the target may not be dialled, "" when it may.

    A name must not lead to this host, the link, or a cloud's metadata service: whoever answers
    for the name would choose what we reach. An address that the policy itself writes may be
    any of these, but never our own listeners.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback and target.dial_port in rules.own_ports:
        return "it is our own listener"
    if address.is_unspecified or address.is_multicast:
        return "it is no host's address"
    if address in SYNTHETIC4 or str(address) in (target.synthetic4, target.synthetic6):
        return "it is a synthetic address of ours"
    if is_literal(target.dial_host):
        return ""
    if address in METADATA or address.is_link_local:
        return "a name may not lead to the link or to a metadata service"
    if address.is_loopback and target.dial_host != "localhost":
        return "a name may not lead to this host"
    return ""


def is_literal(host: str) -> bool:
    """Whether a host is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def addresses_of(target: Target, rules: DialRules) -> Sequence[Endpoint]:
    """Resolve a target's dial address with the host's resolver, keeping what may be dialled.

    Raises:
        Unreachable: it does not resolve within RESOLVE_TIMEOUT_S, or to nothing allowed.
    """
    event_loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await event_loop.getaddrinfo(
                target.dial_host, target.dial_port, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError, TimeoutError) as error:
        raise Unreachable(
            Reason.UPSTREAM_UNREACHABLE, "the target's name does not resolve"
        ) from error
    refused = ""
    usable: dict[Endpoint, None] = {}
    for *_, sockaddr in found:
        address = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
        why = forbidden(address, target, rules)
        if why:
            refused = why
        else:
            usable[Endpoint(str(address), target.dial_port)] = None
    if not usable:
        detail = f"the target's address may not be dialled: {refused}"
        raise Unreachable(Reason.UPSTREAM_UNREACHABLE, detail)
    return tuple(usable)[:ADDRESSES_TRIED_MAX]


async def connect(addresses: Sequence[Endpoint]) -> tuple[socket.socket, Endpoint]:
    """Connect to the first address that answers.

    Raises:
        Unreachable: none did, each within CONNECT_TIMEOUT_S, all within CONNECT_TOTAL_TIMEOUT_S.
    """
    try:
        async with asyncio.timeout(CONNECT_TOTAL_TIMEOUT_S):
            for address in addresses:
                sock = await _connect_one(address)
                if sock is not None:
                    return sock, address
    except TimeoutError:
        pass  # the same answer as when all refused
    raise Unreachable(Reason.UPSTREAM_UNREACHABLE, "the target's server does not answer")


async def _connect_one(address: Endpoint) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in address.address else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        # no descriptor or no such family: not the server's fault, and still no connection
        logger.warning("no socket for %s: %s", address, error.strerror)
        return None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(sock, (address.address, address.port))
    except (OSError, TimeoutError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock
