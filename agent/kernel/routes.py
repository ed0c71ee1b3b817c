"""Local routes for the synthetic addresses, so that connect() finds a route and the hook runs.

They carry a protocol number of ours: what is there under another number was there before us,
is used as it is, and is never removed.
"""

import errno
import ipaddress
import socket

from pyroute2.netlink.rtnl.rtmsg import rtmsg

from agent.kernel.netlink import (
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    dump,
    exchange,
)

ROUTE_PROTOCOL = 76  # unassigned in /etc/iproute2/rt_protos
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_CREATE_EXCL = 0x600
_LOCAL_TABLE = 255
_TYPE_LOCAL = 2
_SCOPE_HOST = 254
_LOOPBACK_INDEX = 1  # in every network namespace

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _message(network: Network, kind: int, flags: int) -> bytes:
    message = rtmsg()
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    message["family"] = family
    message["dst_len"] = network.prefixlen
    message["table"] = _LOCAL_TABLE
    message["proto"] = ROUTE_PROTOCOL
    message["type"] = _TYPE_LOCAL
    message["scope"] = _SCOPE_HOST if network.version == 4 else 0
    if kind != _GETROUTE:
        message["attrs"] = [
            ("RTA_DST", str(network.network_address)),
            ("RTA_OIF", _LOOPBACK_INDEX),
            ("RTA_TABLE", _LOCAL_TABLE),
        ]
    if kind == _NEWROUTE and network.version == 6:
        # Else the source is whichever global address resembles most: a session would hang when
        # that address leaves its interface. For IPv4 the kernel takes the destination itself.
        message["attrs"].append(("RTA_PREFSRC", "::1"))
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message["header"]["sequence_number"] = 1
    message.encode()
    return bytes(message.data)


def owner(network: Network) -> int | None:
    """Return the protocol number of the local route of exactly this network, None without."""
    for answer in dump(NETLINK_ROUTE, _message(network, _GETROUTE, NLM_F_DUMP)):
        family, length, _, _, table, protocol, _, kind = answer.payload[:8]
        expected = socket.AF_INET if network.version == 4 else socket.AF_INET6
        if (family, length, table, kind) != (
            expected,
            network.prefixlen,
            _LOCAL_TABLE,
            _TYPE_LOCAL,
        ):
            continue
        if network.network_address.packed in answer.payload:
            return protocol
    return None


def ensure(network: Network) -> bool:
    """Add the route if none is there; return whether it was added. Raises OSError."""
    try:
        exchange(NETLINK_ROUTE, _message(network, _NEWROUTE, _CREATE_EXCL | NLM_F_ACK), 1)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def withdraw(network: Network) -> bool:
    """Remove the route if it is ours; return whether it was. Raises OSError."""
    if owner(network) != ROUTE_PROTOCOL:
        return False
    exchange(NETLINK_ROUTE, _message(network, _DELROUTE, NLM_F_ACK), 1)
    return True
