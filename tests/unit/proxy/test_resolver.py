"""The resolver on its sockets, while a worker has just begun."""

import asyncio
import contextlib
import socket

import pytest
from dnslib import DNSQuestion, DNSRecord

from agent.proxy import resolver as bounds
from agent.proxy.dns import Names
from agent.proxy.resolver import TCP_CONNECTIONS_MAX, Resolver
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
            async with asyncio.timeout(60):
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
            async with asyncio.timeout(60):
                data = await asyncio.get_running_loop().sock_recv(asker, 4096)
            assert DNSRecord.parse(data).rr
            resolver.close()

    asyncio.run(claim())


async def ask(stream: socket.socket) -> bytes:
    """Ask over TCP; return the answer with its length, b"" when the connection was closed."""
    event_loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(60):
            await event_loop.sock_sendall(stream, len(QUERY).to_bytes(2, "big") + QUERY)
            return await event_loop.sock_recv(stream, 4096)
    return b""


async def until_nobody_is_connected(resolver: Resolver) -> None:
    """Return when it has heard of the end of each connection."""
    async with asyncio.timeout(60):
        while resolver.connections:  # noqa: ASYNC110 - the kernel's
            await asyncio.sleep(0)


def test_so_many_ask_over_tcp_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_CONNECTIONS_MAX are served, one more is closed at once, and one that ends makes room."""
    monkeypatch.setattr(bounds, "TCP_IDLE_S", 600.0)

    async def claim() -> None:
        resolver, tcp = Resolver(), listening("127.0.0.1", 0)
        resolver.use(NAMES)
        resolver.listen([], [tcp])
        with contextlib.ExitStack() as stack:

            def connect() -> socket.socket:
                stream = stack.enter_context(socket.create_connection(tcp.getsockname()))
                stream.setblocking(False)
                return stream

            streams = [connect() for _ in range(TCP_CONNECTIONS_MAX)]
            assert all([await ask(stream) for stream in streams])
            assert await ask(connect()) == b""
            streams[0].close()
            async with asyncio.timeout(60):
                while resolver.connections == TCP_CONNECTIONS_MAX:  # noqa: ASYNC110 - the kernel's
                    await asyncio.sleep(0)
            assert await ask(connect())
        await until_nobody_is_connected(resolver)
        resolver.close()

    asyncio.run(claim())


def test_who_asks_nothing_over_tcp_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After TCP_IDLE_S without a complete query; half of one is none."""
    monkeypatch.setattr(bounds, "TCP_IDLE_S", 0.05)

    async def claim() -> None:
        resolver, tcp = Resolver(), listening("127.0.0.1", 0)
        resolver.use(NAMES)
        resolver.listen([], [tcp])
        with socket.create_connection(tcp.getsockname()) as stream:
            stream.setblocking(False)
            assert await ask(stream)
            stream.sendall(QUERY[:5])
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(stream, 1) == b""
        await until_nobody_is_connected(resolver)
        resolver.close()

    asyncio.run(claim())
