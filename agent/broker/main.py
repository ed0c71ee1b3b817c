"""The broker's process: wires its parts to kernel, the workers, the reporter and the CLI."""

import asyncio
import contextlib
import datetime as dt
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path

from agent.broker import kills, workers
from agent.broker.api import Api, Parts
from agent.broker.ca_succession import LOOK_INTERVAL_S, CaKeeper
from agent.broker.http_client import Http
from agent.broker.identity.fetch import fetch_over
from agent.broker.identity.gate import Gate
from agent.broker.identity.issuers import Issuers
from agent.broker.identity.seen import Seen
from agent.broker.journal import Journal
from agent.broker.leases import Leases
from agent.broker.loops import Loops
from agent.broker.memory import lock_memory
from agent.broker.policies import Policies
from agent.broker.recorder import Recorder
from agent.broker.run_keys import RunKeys
from agent.broker.server import Server, listen
from agent.broker.sessions import Sessions
from agent.broker.sources import BrokerClient, systemd_credentials
from agent.broker.sweep import sweep
from agent.config.daemon import Daemon
from agent.credentials.discover import providers
from agent.ipc import messages
from agent.ipc.endpoint import Endpoint, PeerGone, Received, Receiver
from agent.ipc.messages import (
    CutLease,
    CutRun,
    Durable,
    KillAsked,
    PolicyNames,
    RunEmptied,
    SessionBegan,
    SpoolState,
)
from agent.ipc.role import run_role
from agent.model.audit import Alarm
from agent.model.ids import LoopName
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.policy.errors import PolicyError
from agent.runtime import clock, confine, programs

NICE = -10  # it sleeps but for a session's beginning and a lease's
logger = logging.getLogger(__name__)


class Prepared:
    """What was opened as root, before power was given up."""

    sock: socket.socket | None = None
    keeper: programs.Programs | None = None
    systemd: dict[str, Secret] = {}  # noqa: RUF012 - filled once, by prepare


def prepare(config: Daemon) -> None:
    """As root: open the control socket, read systemd's credentials, allow memory to be locked.

    Raises:
        OSError: any of it can't be done.
    """
    if os.geteuid() == 0:  # while there is nothing to hide
        with contextlib.suppress(LookupError):  # without its user nothing is run; the error says so
            Prepared.keeper = programs.start(confine.account(config.users.exec))
    account = confine.account(config.users.broker)
    config.trust_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    config.broker_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for directory in (config.trust_dir, config.broker_dir):
            os.chown(directory, account.uid, account.gid, follow_symlinks=False)
    group = confine.group_id(config.control_group) if config.control_group else -1
    mode = 0o660 if config.control_group else 0o666
    Prepared.sock = listen(str(config.control_socket), mode, group)
    try:
        Prepared.systemd = systemd_credentials(os.environ.get("CREDENTIALS_DIRECTORY", ""))
    except ValueError as error:
        raise OSError(str(error)) from error
    lock_memory()
    providers()  # import them all: their files may be root's alone


class Broker:
    """The role; see Role in agent/ipc/role.py."""

    def __init__(self, config: Daemon, _name: str) -> None:
        self._config = config
        self._server: Server | None = None
        self._parts: Parts | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, kernel: Endpoint) -> None:
        """Read everything back, then serve.

        Raises:
            OSError: a file of ours can't be used.
            ValueError: the CA's files are no pair.
        """
        config = self._config
        recorder, sessions = Recorder(), Sessions()
        policies = Policies(directory=Path(config.policy_dir))
        journal = Journal(
            config.broker_dir / "leases.journal",
            lambda why: recorder.alarm(Alarm.JOURNAL_FAILED, f"no lease is given any more: {why}"),
        )
        if journal.bad_lines:
            detail = f"lease journal: {journal.bad_lines} bad lines, kept in leases.quarantine"
            recorder.alarm(Alarm.SPOOL_QUARANTINED, detail)
        client = BrokerClient(
            Prepared.systemd,
            dict(os.environ),
            config.instance,
            lambda text: recorder.alarm(Alarm.USED_ELSEWHERE, text),
            config.broker_dir / "remembered",
            Prepared.keeper,
        )
        leases = Leases(journal, client, recorder.note, recorder.alarm, self._cut)
        loops = Loops(policies, recorder, sessions, leases, self._cut, self._gate(recorder))
        keeper = CaKeeper(config.broker_dir, config.trust_dir)
        self._parts = Parts(
            policies=policies,
            recorder=recorder,
            sessions=sessions,
            leases=leases,
            loops=loops,
            ca=keeper.look(dt.datetime.now(dt.UTC)),
            run_keys=RunKeys(os.urandom(32)),
        )
        with contextlib.suppress(PolicyError):  # nothing is allowed until it is repaired
            self._reload()
        await loops.restore(kernel)
        self._sweep(client)
        self._spawn(self._keep_ca(keeper))
        event_loop = asyncio.get_running_loop()
        event_loop.add_signal_handler(signal.SIGHUP, self._hangup)
        if Prepared.sock is not None:
            api = Api(config, self._parts, self._reload)
            self._server = Server(Prepared.sock, api.answer, api.caller_gone)

    def wired(self, peer: str, sock: socket.socket) -> None:
        """A new end to the reporter or a worker."""
        parts = self.parts
        if peer == "reporter":
            parts.reporter = self._endpoint(sock, peer, self._from_reporter)
            parts.recorder.wired(parts.reporter)
            return
        old = parts.workers.pop(peer, None)
        if old is not None:
            old.close()
            self._worker_gone(peer)

        endpoint = self._endpoint(sock, peer, functools.partial(workers.receive, parts, peer))
        parts.workers[peer] = endpoint
        self._send_names(endpoint)

    def receive(self, received: Received) -> None:
        """A message of kernel."""
        parts = self.parts
        received.close_fds()
        match received.message:
            case SessionBegan(worker, attribution):
                parts.sessions.began(worker, attribution)
            case RunEmptied(run_id):
                logger.debug("ending %s: broker %d", run_id, clock.boot_ns())
                parts.loops.finish(run_id, Reason.RUN_ENDED)
            case messages.Alarm(alarm, detail, run_id):
                with contextlib.suppress(ValueError):
                    parts.recorder.alarm(Alarm(alarm), detail, run_id)
            case other:
                logger.error("kernel sent %s", type(other).__name__)

    async def drain(self, within_s: float) -> None:
        """Take no new runs; what runs is governed by kernel and the next broker."""
        if self._server is not None:
            self._server.close()
        await self.parts.leases.drain(within_s)

    @property
    def parts(self) -> Parts:
        """The parts, once started."""
        if self._parts is None:
            raise AssertionError("wired before started")
        return self._parts

    def _sweep(self, client: BrokerClient) -> None:
        """End what no lease is known of, beside all else."""
        leases, alarm = self.parts.leases, self.parts.recorder.alarm
        swept = sweep(
            self.parts.policies.policy.targets.values(),
            lambda: frozenset(row.lease_id for row in leases.every(past=False)),
            client,
            alarm,
        )
        self._spawn(swept)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _gate(self, recorder: Recorder) -> Gate:
        issuers = Issuers(fetch_over(Http()), lambda: clock.boot_ns() / 1e9)
        seen = Seen(self._config.broker_dir / "tokens.seen", clock.unix_ms() // 1000)
        return Gate(issuers, seen, lambda text: recorder.alarm(Alarm.TOKEN_REFUSED, text))

    async def _keep_ca(self, keeper: CaKeeper) -> None:
        """Have a CA that lasts, however long we live."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                self.parts.ca = keeper.look(dt.datetime.now(dt.UTC))
            except (OSError, ValueError) as error:
                # its text says it all: no traceback
                logger.error("the host's CA is not looked after: %s", error)  # noqa: TRY400

    def _endpoint(self, sock: socket.socket, peer: str, receive: Receiver) -> Endpoint:
        return Endpoint(
            sock,
            own="broker",
            peer=peer,
            receive=receive,
            on_closed=lambda why: self._gone(peer, why),
        )

    def _gone(self, peer: str, why: str) -> None:
        if why != "closed by peer":
            self.parts.recorder.alarm(Alarm.PEER_VIOLATION, f"{peer}: {why}")
        if peer == "reporter":
            self.parts.reporter = None
            self.parts.recorder.unwired()
        else:
            self.parts.workers.pop(peer, None)
            self._worker_gone(peer)

    def _worker_gone(self, peer: str) -> None:
        self.parts.sessions.worker_gone(peer)
        self.parts.leases.users.worker_gone(peer)

    def _from_reporter(self, received: Received) -> None:
        received.close_fds()
        match received.message:
            case Durable() as durable:
                self.parts.recorder.durable(durable)
            case SpoolState() as state:
                self.parts.recorder.spool_state(state)
            case KillAsked(kill_id, name):
                self._spawn(self._kill(kill_id, name))

    async def _kill(self, kill_id: str, name: str) -> None:
        parts = self.parts
        logger.warning("the collector asks to end %s", name[:64])
        async for word in kills.kill(parts.loops, parts.leases, kill_id, name):
            with contextlib.suppress(PeerGone):  # the collector asks again
                if parts.reporter is not None:
                    parts.reporter.notify(word)

    def _cut(self, message: CutRun | CutLease) -> None:
        for endpoint in tuple(self.parts.workers.values()):
            with contextlib.suppress(PeerGone):  # its sessions are gone with it
                endpoint.notify(message)

    def _send_names(self, endpoint: Endpoint) -> None:
        policies = self.parts.policies
        with contextlib.suppress(PeerGone):
            endpoint.notify(PolicyNames(policies.policy.revision, policies.names))

    def _reload(self) -> tuple[LoopName, ...]:
        """Load the policy; on change tell the workers and cut what changed."""
        parts = self.parts
        try:
            changed = parts.policies.reload(clock.unix_ms())
        except PolicyError as error:
            first = str(error).split("\n", 1)[0]
            detail = f"the last good policy stays in force: {first}"
            parts.recorder.alarm(Alarm.POLICY_REJECTED, detail)
            raise
        for endpoint in tuple(parts.workers.values()):
            self._send_names(endpoint)
        parts.loops.policy_changed(changed)
        logger.info("policy %s is in force", parts.policies.policy.revision[:12])
        return changed

    def _hangup(self) -> None:
        with contextlib.suppress(PolicyError):  # alarmed; `status` shows it
            self._reload()


def main() -> int:
    """Run the broker (started by the supervisor, not by hand)."""
    return run_role(sys.argv[1:], lambda config: config.users.broker, Broker, prepare, nice=NICE)
