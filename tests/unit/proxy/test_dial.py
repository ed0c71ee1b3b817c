"""Opening an upstream connection that does not stay."""

import asyncio
import gc
import socket
from typing import Any

import pytest
import uvloop

from agent.model.grant import UpstreamTls
from agent.proxy.accept import NO_LINGER
from agent.proxy.dial import Dialler
from agent.proxy.upstream import DialRules
from tests.unit.proxy.harness import target


@pytest.mark.parametrize("reset", [False, True])
def test_a_clear_upstream_that_goes_at_once_is_nobodys_error(*, reset: bool) -> None:
    """It is found to have ended, and nothing is logged of a handshake that there never was."""
    told: list[dict[str, Any]] = []

    async def scenario(server: socket.socket) -> None:
        event_loop = asyncio.get_running_loop()
        event_loop.set_exception_handler(lambda _, context: told.append(context))
        port = server.getsockname()[1]
        one = target(tls=UpstreamTls.NONE, dial_port=port)
        upstream = await Dialler(DialRules(frozenset())).open(one, (), clear=False)
        accepted, _ = server.accept()
        if reset:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        accepted.close()
        while not upstream.channel.has_ended:  # noqa: ASYNC110 - uvloop's own work
            await asyncio.sleep(0.001)
        upstream.channel.abort()
        while upstream.channel.transport is not None:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.001)
        del upstream
        gc.collect()

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(scenario(server))
    assert not told
