"""Start the other roles, wire them, restart what dies; the same in tests, demo and service.

A role that dies is restarted after a backoff; its peers get new pairs. Meanwhile its loops fail
closed: no reporter, no records, no operations; no broker, no sessions; no proxy, nobody accepts.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.ipc.endpoint import Endpoint, PeerGone, Received, pair
from agent.ipc.messages import Drain, Pulse, Ready, Wire
from agent.kernel.environment import environment_of
from agent.kernel.roles import RoleSpec, peers_of
from agent.runtime.clock import monotonic_ns

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
STEADY_S = 30.0  # alive this long: the backoff starts anew
PULSE_MISSED_S = 20.0  # a role silent this long is hung, and ended
READY_WITHIN_S = 80.0  # less than the 90 s that the unit gives to a start

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Child:
    """One role's process of the moment."""

    role: RoleSpec
    process: asyncio.subprocess.Process
    endpoint: Endpoint
    started_ns: int
    pulse_ns: int
    ready: bool = False
    renewed: bool = False  # it was asked to end, to be started anew


class Supervisor:
    """Owner of the children. `receive` gets what they send besides Ready and Pulse."""

    def __init__(
        self,
        config_path: Path,
        roles: tuple[RoleSpec, ...],
        *,
        receive: Callable[[str, Received], Awaitable[None] | None],
        on_started: Callable[[str, Endpoint], None],
        on_died: Callable[[str, str], None],
        on_fault: Callable[[], None],
    ) -> None:
        self._config_path = config_path
        self._roles = roles
        self._receive = receive
        self._on_started = on_started
        self._on_died = on_died
        self._on_fault = on_fault
        self._children: dict[str, Child] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._one_ready = asyncio.Event()
        self._draining = False

    async def start(self) -> None:
        """Start every role and wait until all are ready.

        Raises:
            TimeoutError: some are not ready in READY_WITHIN_S; the message names them.
        """
        for role in self._roles:
            await self._spawn(role)
            keeper = asyncio.ensure_future(self._keep(role))
            keeper.add_done_callback(self._kept)
            self._keepers[role.name] = keeper
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while self._not_ready():
                    self._one_ready.clear()
                    await self._one_ready.wait()
        except TimeoutError:
            text = f"not ready in {READY_WITHIN_S:.0f} s: {self._not_ready()}"
            raise TimeoutError(text) from None

    def _not_ready(self) -> str:
        children = self._children.values()
        return ", ".join(child.role.name for child in children if not child.ready)

    def endpoint(self, name: str) -> Endpoint | None:
        """Return the live endpoint of a role, or None while it is down."""
        child = self._children.get(name)
        return child.endpoint if child and not child.endpoint.closed else None

    def pids(self) -> dict[str, int]:
        """Return the pid of each live role."""
        return {
            name: child.process.pid
            for name, child in self._children.items()
            if child.process.returncode is None
        }

    def healthy(self) -> bool:
        """Return whether every role lives, is ready and has pulsed lately; ends those that hang."""
        now = monotonic_ns()
        well = True
        for child in self._children.values():
            silent_s = (now - child.pulse_ns) / 1e9
            lives = child.process.returncode is None
            if silent_s > PULSE_MISSED_S and lives:
                logger.error("%s: no pulse for %.0f s, ended", child.role.name, silent_s)
                child.process.kill()
            well = well and lives and child.ready and silent_s <= PULSE_MISSED_S
        return well

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a role, if it lives."""
        child = self._children.get(name)
        if child and child.process.returncode is None:
            child.process.send_signal(number)

    def renew(self, name: str, within_s: float) -> None:
        """Start a role anew, so that it reads again what it reads as root; it drains before."""
        child = self._children.get(name)
        if child is not None and child.process.returncode is None:
            child.renewed = True
            with suppress(PeerGone):  # it died by itself
                child.endpoint.notify(Drain(within_s))

    async def drain(self, within_s: float) -> None:
        """End the roles in the order proxy, broker, reporter, each with what time is left."""
        self._draining = True
        for kind in ("proxy", "broker", "reporter"):
            children = [child for child in self._children.values() if child.role.kind == kind]
            for child in children:
                with suppress(PeerGone):  # it died by itself
                    child.endpoint.notify(Drain(within_s))
            for child in children:
                await self._end(child, within_s + 1.0)
        for keeper in self._keepers.values():
            keeper.cancel()

    async def _end(self, child: Child, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await child.process.wait()
        except TimeoutError:
            logger.warning("%s: not drained, killed", child.role.name)
            child.process.kill()
            await child.process.wait()
        child.endpoint.close()

    async def _spawn(self, role: RoleSpec) -> None:
        if self._draining:
            return
        ours, theirs = pair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                role.module,
                "--config",
                os.fspath(self._config_path),
                "--name",
                role.name,
                "--fd",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                env=environment_of(role.name, os.environ),
                pass_fds=(theirs.fileno(),),
                cwd="/",
            )
        finally:
            theirs.close()
        now = monotonic_ns()
        endpoint = Endpoint(
            ours,
            own="kernel",
            peer=role.name,
            receive=lambda received: self._take(role.name, received),
            on_closed=lambda why: self._gone(role.name, why),
        )
        self._children[role.name] = Child(role, process, endpoint, now, now)
        self._on_started(role.name, endpoint)
        self._wire(role)

    def _wire(self, role: RoleSpec) -> None:
        """Give the role, and each live peer of it, the ends of new pairs."""
        for other in peers_of(role, self._roles):
            peer, own = self.endpoint(other.name), self.endpoint(role.name)
            if peer is None or own is None:
                continue
            left, right = pair()
            with left, right, suppress(PeerGone):  # its keeper wires anew
                own.notify(Wire(other.name), (left.fileno(),))
                peer.notify(Wire(role.name), (right.fileno(),))

    def _take(self, name: str, received: Received) -> Awaitable[None] | None:
        child = self._children[name]
        match received.message:
            case Ready():
                child.ready = True
                self._one_ready.set()
            case Pulse():
                child.pulse_ns = monotonic_ns()
            case _:
                return self._receive(name, received)
        return None

    def _gone(self, name: str, why: str) -> None:
        """The role closed its end or broke the rules: its process has no business living on."""
        child = self._children[name]
        if child.process.returncode is None and why != "closed by peer":
            logger.error("%s: ended: %s", name, why)
            child.process.kill()

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        """A keeper ends by draining; any other end is a fault that must not pass in silence."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            logger.error("a role is no longer kept", exc_info=error)
            self._on_fault()

    async def _keep(self, role: RoleSpec) -> None:
        backoff_s = BACKOFF_FIRST_S
        while True:
            child = self._children[role.name]
            code = await child.process.wait()
            child.endpoint.close()
            if self._draining:
                return
            if child.renewed:
                logger.info("%s is started anew", role.name)
                await self._spawn(role)
                continue
            if (monotonic_ns() - child.started_ns) / 1e9 > STEADY_S:
                backoff_s = BACKOFF_FIRST_S
            why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            logger.error("%s died (%s), restarted in %.1f s", role.name, why, backoff_s)
            self._on_died(role.name, why)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
            await self._spawn(role)


def listeners(proxy_port: int, dns_port: int) -> tuple[list[socket.socket], ...]:
    """Bind the sockets that loops are redirected to, on both loopback addresses.

    Returns:
        TCP listeners, DNS UDP sockets, DNS TCP listeners; IPv4 first.

    Raises:
        OSError: a port is taken; the message names it.
    """
    tcp = [_bound(family, socket.SOCK_STREAM, proxy_port) for family in _FAMILIES]
    udp = [_bound(family, socket.SOCK_DGRAM, dns_port) for family in _FAMILIES]
    dns = [_bound(family, socket.SOCK_STREAM, dns_port) for family in _FAMILIES]
    return tcp, udp, dns


_FAMILIES = (socket.AF_INET, socket.AF_INET6)
# The loopback's 64 KiB segments stall for 200 ms each once a receiver was full: its window is then
# less than two of them, and the sender waits (tcp_clamp_window, RFC 9293 section 3.8.6.2.1).
# Smaller segments travel together all the same (segmentation offload).
SEGMENT_BYTES_MAX = 16 << 10
LISTEN_BACKLOG = 4096


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES_MAX)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(LISTEN_BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"cannot bind {address} port {port}: {error.strerror}"
        ) from error
    return sock
