"""The routes of the synthetic addresses."""

import ipaddress
import socket

import pytest

from agent.kernel import routes
from tests.servers.netns import namespace

pytestmark = pytest.mark.kernel
SYNTHETIC = (ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("fd4c:5700::/32"))


def test_a_source_that_stays() -> None:
    """A flow's source is no address of an interface, which could leave it while a session is on."""
    with namespace("routes") as inside:
        inside.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "end")
        inside.run("ip", "link", "set", "end", "up")
        inside.run("ip", "address", "add", "10.203.250.1/24", "dev", "other")
        inside.run("ip", "-6", "address", "add", "fd4c:7761:fa::1/64", "dev", "other", "nodad")
        inside.run("ip", "link", "set", "other", "up")

        def sources() -> list[str]:
            found = []
            for network in SYNTHETIC:
                assert routes.ensure(network)
                assert not routes.ensure(network)
                family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
                target = str(network.network_address + 77)
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.connect((target, 5432))
                    found.append(sock.getsockname()[0])
                assert routes.owner(network) == routes.ROUTE_PROTOCOL
                assert routes.withdraw(network)
                assert routes.owner(network) is None
            return found

        assert inside.call(sources) == ["198.18.0.77", "::1"]
