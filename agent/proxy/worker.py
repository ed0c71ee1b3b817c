"""One proxy worker: its peers, its listeners, its sessions."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Coroutine

from agent.config.daemon import Daemon
from agent.ipc.endpoint import Endpoint, PeerGone, Received
from agent.ipc.messages import (
    CutLease,
    CutRun,
    Durable,
    HeldStopped,
    Listeners,
    PolicyNames,
    SessionEnded,
    SpoolState,
    StopHeld,
)
from agent.model.audit import SessionClosed
from agent.model.ids import LeaseId, RunId
from agent.model.reason import Reason
from agent.proxy import classifier
from agent.proxy.accept import Acceptor
from agent.proxy.apart import Apart
from agent.proxy.arrival import Arrivals
from agent.proxy.dial import Dialler
from agent.proxy.dns import Names
from agent.proxy.leaves import Leaves
from agent.proxy.peers import Peers
from agent.proxy.pool import IDLE_MAX, Pool
from agent.proxy.recorder import Recorder
from agent.proxy.relays import SPECS
from agent.proxy.resolver import Resolver
from agent.proxy.services import Services
from agent.proxy.session import Session
from agent.proxy.sessions import CONNECTIONS_MAX, Sessions
from agent.proxy.upstream import DialRules
from agent.runtime.allocator import keep_freed_memory
from agent.runtime.clock import boot_ns

DESCRIPTORS_A_CONNECTION = 2  # downstream and upstream
DESCRIPTORS_RESERVED = 256  # peers, listeners, DNS over TCP
IDLE_SHARE = 8  # this part of the descriptors may lie idle in the pool
GARBAGE_THRESHOLD = 20_000  # objects made and not freed before the collector looks
DRAIN_MARGIN_S = 0.5  # kept of the drain's time for the last records

logger = logging.getLogger(__name__)


class Worker:
    """The role `proxy@N` (see agent.ipc.role.Role)."""

    def __init__(self, config: Daemon, name: str) -> None:
        self._config = config
        self._name = name
        descriptors = allow_descriptors()
        self._connections_max = connections_max(descriptors)
        self._idle_max = idle_max(descriptors)
        dialects = {name: spec.classify for name, spec in SPECS.items() if spec.classify}
        self._kinships = {name: spec.kinship for name, spec in SPECS.items() if spec.kinship}
        self._expendables = classifier.start(dialects), classifier.start(dialects)
        self._serving: set[asyncio.Task[None]] = set()
        self._draining = False
        self._idle = asyncio.Event()

    async def start(self, kernel: Endpoint) -> None:
        """See Role."""
        peers = Peers(kernel)
        dialler = Dialler(DialRules(frozenset({self._config.proxy_port, self._config.dns_port})))
        self._services = Services(
            peers,
            Recorder(lambda _: self._balance()),
            Sessions(self._closed, self._connections_max, self._config.proxy_workers),
            Pool(self._idle_max),
            dialler,
            Leaves(peers),
            classifier.Classifier(*self._expendables, self._classifier_gone, self._kinships),
            Apart(dialler),
        )
        self._arrivals = Arrivals(self._services)
        self._acceptor = Acceptor(self._take)
        self._resolver = Resolver()
        keep_freed_memory()
        # what is loaded now lives on; garbage of sessions is rare, most goes by reference count
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)

    def wired(self, peer: str, sock: socket.socket) -> None:
        """See Role."""
        match peer:
            case "broker":
                self._broker_gone("replaced")
                self._services.peers.broker = Endpoint(
                    sock,
                    own=self._name,
                    peer=peer,
                    receive=self._from_broker,
                    on_closed=self._broker_gone,
                )
            case "reporter":
                self._services.recorder.wired(
                    Endpoint(
                        sock,
                        own=self._name,
                        peer=peer,
                        receive=self._from_reporter,
                        on_closed=self._reporter_gone,
                    )
                )
            case _:
                logger.error("wired to %s, which is no peer of a proxy", peer)
                sock.close()

    def receive(self, received: Received) -> None:
        """See Role."""
        match received.message:
            case Listeners(tcp, dns_udp, dns_tcp):
                socks = [socket.socket(fileno=fd) for fd in received.fds]
                if len(socks) != tcp + dns_udp + dns_tcp:
                    raise AssertionError(f"{len(socks)} descriptors for {received.message}")
                self._acceptor.listen(socks[:tcp])
                self._resolver.listen(socks[tcp : tcp + dns_udp], socks[tcp + dns_udp :])
            case CutRun(run_id, reason):
                self._cut_run(run_id, reason)
            case message:
                logger.error("kernel sent a %s", type(message).__name__)
                received.close_fds()

    async def drain(self, within_s: float) -> None:
        """See Role."""
        self._draining = True
        self._acceptor.close()
        self._balance()
        self._resolver.close()
        self._services.sessions.drain()
        try:
            async with asyncio.timeout(max(within_s - DRAIN_MARGIN_S, 0.0)):
                await self._idle.wait()
        except TimeoutError:
            self._services.sessions.cut_all(Reason.DRAINING)
        self._services.pool.close()
        await self._services.apart.settle(DRAIN_MARGIN_S / 2)
        self._services.classifier.close()
        await self._services.recorder.settle()

    def _take(self, sock: socket.socket) -> None:
        self._spawn(self._arrivals.serve(sock))
        self._balance()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._serving.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a connection was dropped", exc_info=task.exception())
        self._balance()

    def _balance(self) -> None:
        """Accept while there is room for a connection and for its records."""
        count = len(self._services.sessions) + len(self._serving)
        if self._draining:
            if not count:
                self._idle.set()
            return
        self._acceptor.set_open(
            open_=count < self._connections_max and self._services.recorder.accepting_connections
        )

    def _closed(self, session: Session, last: SessionClosed) -> None:
        self._services.recorder.record(last)
        broker = self._services.peers.broker
        if broker is not None:
            try:
                broker.notify(SessionEnded(session.session_id))
            except PeerGone:
                logger.debug("the broker went away with session %s", session.session_id)
        self._balance()

    def _from_broker(self, received: Received) -> None:
        match received.message:
            case CutRun(run_id, reason):
                self._cut_run(run_id, reason)
            case CutLease(run_id, lease_id, reason, when_idle):
                self._cut_lease(run_id, lease_id, reason, when_idle=when_idle)
            case StopHeld(run_id, target, name):
                taken = self._services.sessions.stop(run_id, target, name)
                received.reply(HeldStopped(taken))
            case PolicyNames(_, names):
                self._resolver.use(Names.of(names))
            case message:
                logger.error("the broker sent a %s", type(message).__name__)

    def _cut_run(self, run_id: RunId, reason: Reason) -> None:
        heard_ns = boot_ns()
        self._services.sessions.cut_run(run_id, reason)
        self._services.pool.drop_run(run_id)
        self._services.peers.kept.drop_run(run_id)
        logger.debug("ending %s: worker %d closed %d", run_id, heard_ns, boot_ns())

    def _cut_lease(
        self, run_id: RunId, lease_id: LeaseId, reason: Reason, *, when_idle: bool
    ) -> None:
        services = self._services
        if when_idle:
            services.peers.kept.drop_lease(lease_id)
            services.sessions.drain_lease(run_id, lease_id)
        else:
            services.peers.cut_lease(lease_id)
            services.sessions.cut_lease(run_id, lease_id, reason)
        services.pool.drop_lease(lease_id)

    def _from_reporter(self, received: Received) -> None:
        match received.message:
            case Durable():
                self._services.recorder.durable(received.message)
            case SpoolState():
                self._services.recorder.spool_state(received.message)
            case message:
                logger.error("the reporter sent a %s", type(message).__name__)

    def _broker_gone(self, why: str) -> None:
        """Nobody could tell us that a run ended: its sessions end now, and all the others."""
        broker, self._services.peers.broker = self._services.peers.broker, None
        if broker is None:
            return
        logger.warning("broker: %s", why)
        broker.close()
        self._services.sessions.cut_all(Reason.INTERNAL)
        self._services.pool.close()
        self._services.peers.kept.clear()

    def _classifier_gone(self) -> None:
        """Nothing can be classified any more: end, and be started anew."""
        if not self._draining:
            logger.error("the classifier's keeper is gone")
            os.kill(os.getpid(), signal.SIGTERM)

    def _reporter_gone(self, why: str) -> None:
        logger.warning("reporter: %s", why)
        self._services.recorder.unwired()


def allow_descriptors() -> int:
    """Raise the soft limit of descriptors to the hard one and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connections_max(descriptors: int) -> int:
    """Return how many connections a worker takes with so many descriptors."""
    room = descriptors - DESCRIPTORS_RESERVED - idle_max(descriptors)
    return max(1, min(CONNECTIONS_MAX, room // DESCRIPTORS_A_CONNECTION))


def idle_max(descriptors: int) -> int:
    """Return how many idle upstream connections a worker keeps with so many descriptors."""
    return min(IDLE_MAX, descriptors // IDLE_SHARE)
