"""Orders are taken between two events of a long turn."""

import asyncio

from agent.ipc.endpoint import Endpoint, Received, pair
from agent.ipc.messages import CutRun, Message
from agent.model.ids import RunId
from agent.model.reason import Reason
from agent.proxy.peers import LOOK_INTERVAL_NS, Peers

CUT = CutRun(RunId("01JD0000000000000000000000"), Reason.RUN_ENDED)


def test_orders_of_both_are_taken_when_nobody_looked_for_a_while() -> None:
    """Within LOOK_INTERVAL_NS of a look nothing is read; from then on, what both sent."""

    async def scenario() -> None:
        orders: list[tuple[str, Message]] = []

        def ends(peer: str) -> tuple[Endpoint, Endpoint]:
            theirs, ours = pair()

            def take(received: Received) -> None:
                orders.append((peer, received.message))

            sender = Endpoint(
                theirs, own=peer, peer="proxy@0", receive=lambda _: None, on_closed=lambda _: None
            )
            return sender, Endpoint(
                ours, own="proxy@0", peer=peer, receive=take, on_closed=lambda _: None
            )

        kernel, own_kernel = ends("kernel")
        broker, own_broker = ends("broker")
        peers = Peers(own_kernel)
        now_ns = 10 * LOOK_INTERVAL_NS
        peers.look(now_ns)  # without a broker
        peers.broker = own_broker
        kernel.notify(CUT)
        broker.notify(CUT)
        peers.look(now_ns + LOOK_INTERVAL_NS - 1)
        assert not orders
        peers.look(now_ns + LOOK_INTERVAL_NS)
        assert orders == [("kernel", CUT), ("broker", CUT)]
        for end in (kernel, broker, own_kernel, own_broker):
            end.close()

    asyncio.run(scenario())
