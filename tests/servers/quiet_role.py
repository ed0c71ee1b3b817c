"""A role that says that it is ready, and then nothing: it hangs, as far as its supervisor sees."""

import argparse
import asyncio
import socket

from agent.ipc.endpoint import Endpoint
from agent.ipc.messages import Ready


async def serve(name: str, descriptor: int) -> None:
    """Be there until the supervisor is not."""
    over = asyncio.Event()
    kernel = Endpoint(
        socket.socket(fileno=descriptor),
        own=name,
        peer="kernel",
        receive=lambda received: received.close_fds(),
        on_closed=lambda _why: over.set(),
    )
    kernel.notify(Ready())
    await over.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--name", required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.name, arguments.fd))
