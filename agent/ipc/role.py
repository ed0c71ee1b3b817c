"""How a role's process starts: import everything, then give up power, then serve.

The supervisor starts `python -m agent.<role> --config FILE --name NAME --fd N`, where fd N is the
role's end of its pair with `kernel`. All other ends arrive over it as Wire notices. The process
ends when that pair closes, so that no role outlives the supervisor.
"""

import argparse
import asyncio
import ctypes
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import uvloop

from agent.config.daemon import ConfigError, Daemon, load
from agent.ipc.endpoint import Endpoint, PeerGone, Received
from agent.ipc.messages import Drain, Message, Pulse, Ready, Wire
from agent.runtime import confine, log, priority, seccomp

PULSE_INTERVAL_S = 1.0
logger = logging.getLogger(__name__)


class Role(Protocol):
    """What a role's main gives to `run_role`. All methods run on the event loop."""

    async def start(self, kernel: Endpoint) -> None:
        """Begin; other peers are not wired yet. Return when ready for them."""
        ...

    def wired(self, peer: str, sock: socket.socket) -> None:
        """A (new) pair end to that peer; the role makes its Endpoint of it."""
        ...

    def receive(self, received: Received) -> None:
        """A message of kernel other than Wire and Drain (Listeners, RunEmptied, …)."""
        ...

    async def drain(self, within_s: float) -> None:
        """Take nothing new, finish what runs, return within the time."""
        ...


def run_role(
    argv: list[str],
    user: Callable[[Daemon], str],
    make: Callable[[Daemon, str], Role],
    prepare: Callable[[Daemon], None] | None = None,
    *,
    read_only: bool = False,
    nice: int = 0,
) -> int:
    """Run a role's process until it is drained or kernel is gone; return the exit code.

    prepare runs as root, before power is given up (open root-only files here). read_only: the
    role opens no file for writing ever after. nice: below 0 for who must act at once.
    """
    parser = argparse.ArgumentParser(prog="loopwarden role", add_help=False)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args(argv)
    try:
        config = load(arguments.config)
        log.configure(arguments.name, config.log_level)
        priority.prompt(nice) if nice else priority.ordinary()
        if prepare is not None:
            prepare(config)
        confine.become(confine.account(user(config)))
        seccomp.confine_calls(read_only=read_only)
    except (ConfigError, LookupError, OSError) as error:
        sys.stderr.write(f"loopwarden {arguments.name}: {error}\n")
        return 2
    _name_process(arguments.name)
    sock = socket.socket(fileno=arguments.fd)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(make(config, arguments.name), arguments.name, sock))


def _name_process(name: str) -> None:
    """Show the role in ps(1): PR_SET_NAME (15), 15 characters."""
    buffer = ctypes.create_string_buffer(f"lw-{name}".encode()[:15])
    confine.prctl(15, ctypes.addressof(buffer))


async def _serve(role: Role, name: str, sock: socket.socket) -> int:
    """Serve until drained (0), orphaned (1) or unable to start (2)."""
    return await _Service(role, name, sock).ended()


class _Service:
    """A role being served: its life from start to drain, told by the pair with kernel."""

    def __init__(self, role: Role, name: str, sock: socket.socket) -> None:
        event_loop = asyncio.get_running_loop()
        self._role = role
        self._ended: asyncio.Future[int] = event_loop.create_future()
        self._started = asyncio.Event()
        self._draining = False
        self._held: list[Received] | None = []
        self._tasks: set[asyncio.Future[None]] = set()
        # the supervisor drains us by message; a terminal's Ctrl-C reaches the whole group
        event_loop.add_signal_handler(signal.SIGINT, lambda: None)
        event_loop.add_signal_handler(signal.SIGTERM, self._drain_once, 5.0)
        self._kernel = Endpoint(
            sock, own=name, peer="kernel", receive=self._receive, on_closed=self._orphaned
        )

    async def ended(self) -> int:
        """Begin, and return the exit code when it is over."""
        self._tasks.add(asyncio.ensure_future(self._begin()))
        code = await self._ended
        self._kernel.close()
        for task in self._tasks:
            task.cancel()
        return code

    def _receive(self, received: Received) -> None:
        """Hold what arrives before the role has started; its replies do not come this way."""
        if self._held is not None:
            self._held.append(received)
        else:
            self._deliver(received)

    def _deliver(self, received: Received) -> None:
        match received.message:
            case Wire(peer):
                self._role.wired(peer, socket.socket(fileno=received.fds[0]))
            case Drain(within_s):
                self._drain_once(within_s)
            case Message():
                self._role.receive(received)

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def _orphaned(self, why: str) -> None:
        if not self._ended.done():
            logger.info("kernel: %s", why)
        self._end(0 if self._draining else 1)

    def _drain_once(self, within_s: float) -> None:
        if not self._draining:
            self._draining = True
            self._tasks.add(asyncio.ensure_future(self._drain(within_s)))

    async def _drain(self, within_s: float) -> None:
        await self._started.wait()
        try:
            async with asyncio.timeout(within_s):
                await self._role.drain(within_s)
        except TimeoutError:
            logger.warning("not drained within %.1f s", within_s)
        self._end(0)

    async def _begin(self) -> None:
        try:
            await self._role.start(self._kernel)
            self._started.set()
            held, self._held = self._held or [], None
            for received in held:
                self._deliver(received)
            self._kernel.notify(Ready())
            while not self._kernel.closed:
                self._kernel.notify(Pulse())
                await asyncio.sleep(PULSE_INTERVAL_S)
        except PeerGone:
            return  # _orphaned was told
        except Exception:
            logger.exception("cannot start")
            self._end(2)
