"""The collector's process: store, CA, both ports, until SIGTERM."""

import asyncio
import logging
import signal
from dataclasses import dataclass
from pathlib import Path

import uvloop

from agent.collector.authority import open_authority, server_pair
from agent.collector.service import Service
from agent.collector.store import open_store, store_url
from agent.collector.tokens import utc_now
from agent.runtime.notify import notify

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve. The store is SQLite in the state directory, where the questions look."""

    state_dir: Path
    listen: str
    enroll_listen: str


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        StoreError, AuthorityError: state that can't be used.
        RuntimeError: an address can't be bound.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    authority = open_authority(settings.state_dir, utc_now())
    engine = open_store(store_url(settings.state_dir))
    service = Service(engine, authority, server_pair(settings.state_dir))
    stop = asyncio.Event()
    event_loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        event_loop.add_signal_handler(number, stop.set)
    ports = await service.start(settings.listen, settings.enroll_listen)
    status = f"ingest on port {ports.ingest}, enrolment on port {ports.enrollment}"
    logger.info("%s", status)
    notify(READY="1", STATUS=status)
    try:
        await stop.wait()
    finally:
        notify(STOPPING="1")
        await service.stop()
        engine.dispose()
    return 0
