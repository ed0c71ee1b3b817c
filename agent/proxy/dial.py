"""Opening a verified upstream connection."""

import asyncio

from agent.model.grant import Target, UpstreamTls
from agent.model.reason import Reason
from agent.proxy.channel import NOBODY, Channel
from agent.proxy.pool import Upstream
from agent.proxy.upstream import DialRules, Unreachable, addresses_of, connect
from agent.wire.side import Side


class Dialler:
    """Connects to targets, and proves that they are who the policy says."""

    def __init__(self, rules: DialRules) -> None:
        self._rules = rules

    async def open(self, target: Target) -> Upstream:
        """Connect and verify.

        Raises:
            Unreachable: no connection, or not the server that the policy names.
        """
        sock, address = await connect(await addresses_of(target, self._rules))
        channel = Channel(Side.UPSTREAM, NOBODY)
        try:
            if target.tls is not UpstreamTls.NONE:
                raise Unreachable(Reason.UPSTREAM_UNTRUSTED, "no TLS yet")
            await asyncio.get_running_loop().create_connection(lambda: channel, sock=sock)
        except BaseException:
            sock.close()
            raise
        return Upstream(channel, str(address))
