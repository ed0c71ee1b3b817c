"""Which addresses of a target may be dialled: a table."""

import asyncio
import ipaddress
import os
import resource

import pytest

from agent.model.flow import Endpoint
from agent.model.reason import Reason
from agent.proxy.upstream import DialRules, Unreachable, addresses_of, connect, forbidden
from tests.servers.netns import Namespace
from tests.unit.proxy.harness import target

RULES = DialRules(frozenset({15001, 15053}))
NAMED = "internal.example.com"


@pytest.mark.parametrize(
    ("dial_host", "address", "port", "may"),
    [
        (NAMED, "192.0.2.7", 443, True),
        (NAMED, "10.1.2.3", 443, True),
        (NAMED, "2001:db8::7", 443, True),
        (NAMED, "127.0.0.1", 443, False),
        (NAMED, "::1", 443, False),
        (NAMED, "::ffff:127.0.0.1", 443, False),
        (NAMED, "169.254.169.254", 80, False),
        (NAMED, "::ffff:169.254.169.254", 80, False),
        (NAMED, "169.254.7.7", 443, False),
        (NAMED, "fe80::1", 443, False),
        (NAMED, "fd00:ec2::254", 80, False),
        (NAMED, "100.100.100.200", 80, False),
        (NAMED, "0.0.0.0", 443, False),
        (NAMED, "224.0.0.1", 443, False),
        (NAMED, "198.18.0.9", 443, False),
        (NAMED, "fd4c:6f6f:7000::1", 443, False),
        ("localhost", "127.0.0.1", 443, True),
        ("localhost", "127.0.0.1", 15001, False),
        ("127.0.0.1", "127.0.0.1", 443, True),
        ("127.0.0.1", "127.0.0.1", 15001, False),
        ("127.0.0.1", "127.0.0.1", 15053, False),
        ("169.254.169.254", "169.254.169.254", 80, True),
        ("0.0.0.0", "0.0.0.0", 443, False),
        ("198.18.0.9", "198.18.0.9", 443, False),
    ],
)
def test_addresses(dial_host: str, address: str, port: int, may: bool) -> None:
    """A name never leads to this host, the link, metadata; a literal may, but not to ourselves."""
    one = target(dial_host=dial_host, dial_port=port)
    assert (forbidden(ipaddress.ip_address(address), one, RULES) == "") is may


def test_a_name_that_leads_nowhere_allowed_is_unreachable() -> None:
    """Every address of the name is refused: the answer says why."""
    one = target(dial_host="localhost", dial_port=15001)
    with pytest.raises(Unreachable, match="our own listener") as caught:
        asyncio.run(addresses_of(one, RULES))
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


def test_a_name_that_does_not_resolve_is_unreachable(near: Namespace) -> None:
    """`invalid.` never resolves (RFC 6761); where there is no network, nobody is even asked."""

    def resolve() -> None:
        asyncio.run(addresses_of(target(dial_host="nothing.invalid"), RULES))

    with pytest.raises(Unreachable, match="does not resolve"):
        near.call(resolve)


def test_no_descriptor_for_a_connection_is_unreachable() -> None:
    """At the descriptors' limit there is an answer, and not a session that waits for one."""

    async def claim() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(Unreachable, match="does not answer"):
                await connect([Endpoint("127.0.0.1", 1)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    asyncio.run(claim())
