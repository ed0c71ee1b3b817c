"""A connection that is gone keeps nothing."""

import asyncio
import ssl

import uvloop

from agent.proxy.channel import NOBODY, Channel
from agent.proxy.secure import SecureChannel
from agent.wire.side import Side
from agent.wire.tls import TlsEngine
from tests.unit.proxy.test_channel import connected


class Watching:
    """An owner that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.gone = asyncio.Event()

    def arrived(self, channel: Channel, data: bytes) -> None:
        """Nothing comes in this test."""
        self.told.append("arrived")

    def ended(self, channel: Channel, *, clean: bool) -> None:
        """Before lost, and it may still be asked."""
        self.told.append(f"ended {channel.established}")

    def lost(self, channel: Channel) -> None:
        """The last call."""
        self.told.append("lost")
        self.gone.set()

    def pressed(self, channel: Channel, *, high: bool) -> None:
        """Nothing is sent."""


def test_a_lost_connection_refers_to_nobody() -> None:
    """Its owner is told once, and is not referred to after that; TLS has given all back."""

    async def scenario() -> None:
        own, peer = connected()
        owner = Watching()
        context = ssl.create_default_context()
        engine = TlsEngine(context, server_hostname="api.example.com")
        channel = SecureChannel(Side.UPSTREAM, owner, engine, lambda: owner.told.append("secured"))
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=own)
        peer.close()
        async with asyncio.timeout(60):
            channel.abort()
            await owner.gone.wait()
        await asyncio.sleep(0)
        assert owner.told[-2:] == ["ended False", "lost"]
        assert channel.owner is NOBODY
        assert channel.peer_certificate() is None
        assert not channel.open

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
