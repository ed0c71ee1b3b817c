"""The resolver on its sockets, while a worker has just begun."""

import asyncio
import socket

from dnslib import DNSQuestion, DNSRecord

from agent.proxy.dns import Names
from agent.proxy.resolver import Resolver
from tests.servers.netns import listening

QUERY = bytes(DNSRecord(q=DNSQuestion("api.example.com")).pack())
NAMES = Names.of([("api.example.com", "198.18.0.1", "")])
TURNS = 20  # of the event loop, in which nothing may happen


def bound() -> socket.socket:
    """Return a UDP socket on a free port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_queries_wait_until_there_is_a_policy() -> None:
    """No name is "not known" while none are: what came before is answered right after."""

    async def claim() -> None:
        event_loop = asyncio.get_running_loop()
        resolver, udp, tcp = Resolver(), bound(), listening("127.0.0.1", 0)
        with bound() as asker, socket.create_connection(tcp.getsockname()) as stream:
            asker.setblocking(False)
            asker.sendto(QUERY, udp.getsockname())
            stream.sendall(len(QUERY).to_bytes(2, "big") + QUERY)
            stream.setblocking(False)
            resolver.listen([udp], [tcp])
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert resolver.connections == 0
            resolver.use(NAMES)
            async with asyncio.timeout(10):
                replies = [
                    await event_loop.sock_recv(asker, 4096),
                    (await event_loop.sock_recv(stream, 4096))[2:],
                ]
            for reply in map(DNSRecord.parse, replies):
                assert [str(record.rdata) for record in reply.rr] == ["198.18.0.1"]
            resolver.close()

    asyncio.run(claim())


def test_a_policy_that_is_known_serves_new_sockets_too() -> None:
    """Listeners that come after the names are served at once."""

    async def claim() -> None:
        resolver, udp = Resolver(), bound()
        resolver.use(NAMES)
        resolver.listen([udp], [])
        with bound() as asker:
            asker.setblocking(False)
            asker.sendto(QUERY, udp.getsockname())
            async with asyncio.timeout(10):
                data = await asyncio.get_running_loop().sock_recv(asker, 4096)
            assert DNSRecord.parse(data).rr
            resolver.close()

    asyncio.run(claim())
