"""Synthetic addresses: one IPv4 and one IPv6 address for each target host.

A function of the host's name, so that they survive reloads and restarts. Names whose hashes meet
are probed one after another; those that had an address before keep it.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping

NETWORK4 = ipaddress.IPv4Network("198.18.0.0/15")  # RFC 2544: never on the Internet
NETWORK6 = ipaddress.IPv6Network("fd4c:5700::/64")  # RFC 4193
HOSTS_MAX = 4_096
_FIRST4, _LAST4 = 256, NETWORK4.num_addresses - 257  # leave out what looks like a network's ends

Pair = tuple[str, str]  # IPv4, IPv6


def assign(hosts: Iterable[str], before: Mapping[str, Pair] | None = None) -> dict[str, Pair]:
    """Return an address pair for each host.

    Raises:
        ValueError: more than HOSTS_MAX hosts.
    """
    wanted = sorted(set(hosts))
    if len(wanted) > HOSTS_MAX:
        raise ValueError(f"more than {HOSTS_MAX} hosts")
    kept = {host: before[host] for host in wanted if before and host in before}
    taken = {pair[0] for pair in kept.values()}
    for host in wanted:
        if host not in kept:
            kept[host] = _fresh(host, taken)
            taken.add(kept[host][0])
    return kept


def _fresh(host: str, taken: set[str]) -> Pair:
    digest = hashlib.sha256(b"loopwarden synthetic\0" + host.encode("ascii")).digest()
    span = _LAST4 - _FIRST4 + 1
    start = int.from_bytes(digest[:8], "big") % span
    for step in range(HOSTS_MAX + 1):
        offset = _FIRST4 + (start + step) % span
        address4 = str(NETWORK4[offset])
        if address4 not in taken:
            # the IPv4 offset is in it: two hosts of one policy never share an IPv6 address either
            low = int.from_bytes(digest[8:13], "big") << 24 | offset
            return address4, str(NETWORK6[low])
    raise AssertionError("more addresses taken than hosts")
