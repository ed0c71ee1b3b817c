"""Commands to connected hosts: looked up while any is connected, and told in its stream."""

import asyncio
import logging
from typing import TypeAlias

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from agent.collector import kills
from agent.pb import collector_pb2 as pb
from agent.runtime.offload import Offload

LOOK_INTERVAL_S = 0.5
Queue: TypeAlias = "asyncio.Queue[pb.Acknowledgement]"
logger = logging.getLogger(__name__)


class Outbox:
    """What one stream is to be told, each kill once."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        self.queue: Queue = asyncio.Queue()
        self._told: set[str] = set()

    def put(self, kill: kills.Waiting) -> None:
        """Tell of a kill, if this stream was not told before."""
        if kill.kill_id not in self._told:
            self._told.add(kill.kill_id)
            message = pb.Acknowledgement.Kill(kill_id=kill.kill_id, name=kill.name)
            self.queue.put_nowait(pb.Acknowledgement(kill=message))


class Dispatch:
    """All methods run on the event loop; the store is read in the worker."""

    def __init__(self, engine: Engine, offload: Offload) -> None:
        self._engine = engine
        self._offload = offload
        self._open: set[Outbox] = set()
        self._task: asyncio.Task[None] | None = None

    def opened(self, host_id: str) -> Outbox:
        """A host's stream began."""
        outbox = Outbox(host_id)
        self._open.add(outbox)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look())
        return outbox

    def closed(self, outbox: Outbox) -> None:
        """It ended; without any, nothing is looked up."""
        self._open.discard(outbox)
        if not self._open and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look(self) -> None:
        while True:
            try:
                waiting = await self._offload.run(kills.waiting, self._engine)
            except SQLAlchemyError:
                logger.exception("kills can't be looked up")
                waiting = []
            for outbox in self._open:
                for kill in waiting:
                    if kill.host_id == outbox.host_id:
                        outbox.put(kill)
            await asyncio.sleep(LOOK_INTERVAL_S)
