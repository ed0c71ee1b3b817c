"""The reporter's process: records in, spool, uplink."""

import asyncio
import contextlib
import itertools
import logging
import os
import platform
import socket
import sys
import uuid
from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path

from agent.config.daemon import Daemon
from agent.ipc.endpoint import Endpoint, PeerGone, Received
from agent.ipc.messages import (
    Durable,
    Failed,
    KillAsked,
    KillTold,
    Pulse,
    Record,
    ReporterState,
    ReporterStatus,
    SpoolState,
)
from agent.ipc.records import unpack_event
from agent.ipc.role import PULSE_INTERVAL_S, run_role
from agent.model.audit import Alarm, Alarmed, Heartbeat
from agent.reporter.commit import GroupCommit, Sender
from agent.reporter.uplink import Identity, Uplink
from agent.reporter.work import resume
from agent.runtime import clock, confine
from agent.runtime.offload import Offload
from agent.spool.lock import lock
from agent.spool.recovery import Recovered, payloads, recover
from agent.spool.writer import Spool, SpoolLimits

REGAIN_INTERVAL_S = 1.0
KILLS_MAX = 256  # that the broker has not answered; the collector asks again for others
DEAD_EXIT_CODE = 3
# who may tell what: a hostile worker can't invent runs, sessions, leases or alarms
PERMITTED: dict[str, frozenset[str]] = {
    "broker": frozenset((
        "RunStarted", "RunEnded", "SessionOpened", "SessionClosed", "LeaseChanged", "Alarmed",
    )),
    "proxy": frozenset((
        "SessionRefused", "SessionClosed",
        "OperationIntended", "OperationFinished", "OperationDenied",
    )),
}  # fmt: skip
logger = logging.getLogger(__name__)


class Preparation:
    """What is read as root, before power is given up."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.life = ""
        self.boot_id = ""

    def __call__(self, config: Daemon) -> None:
        """Read the identity, and give the spool to the reporter's user."""
        account = confine.account(config.users.reporter)
        config.spool_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(config.spool_dir, account.uid, account.gid)
        if config.collector.address:
            directory = Path(config.collector.identity_dir)
            self.identity = Identity(
                (directory / "key.pem").read_bytes(),
                (directory / "cert.pem").read_bytes(),
                (directory / "ca.pem").read_bytes(),
            )
        self.life = life_of(os.getppid())
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def life_of(pid: int) -> str:
    """Return pid and start time: the same text means the same process (proc(5), stat field 22)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return f"{pid}:{fields[19]}"


class Reporter:
    """The role, see ipc/role.py."""

    def __init__(self, config: Daemon, preparation: Preparation) -> None:
        self._config = config
        self._preparation = preparation
        self._peers: dict[str, Endpoint] = {}
        self._senders: dict[str, Sender] = {}
        self._offload = Offload("spool-sync")
        self._tasks: list[asyncio.Task[None]] = []
        self._uplink: Uplink | None = None
        self._kernel: Endpoint | None = None
        self._connections = itertools.count(1)
        self._kills: OrderedDict[str, str] = OrderedDict()  # asked for, without a last word

    async def start(self, kernel: Endpoint) -> None:
        """Recover the spool, write the ends of what an earlier life began, and serve."""
        self._kernel = kernel
        boot_id = self._preparation.boot_id
        lock(self._config.spool_dir)  # for as long as the process lives
        recovered = await self._recover(kernel)
        last = recovered.segments[-1] if recovered.segments else None
        work, ends = resume(recovered.note, payloads(last) if last else [], self._preparation.life)
        work.lost = bool(recovered.problems)
        settings = self._config.spool
        self._spool = Spool(
            self._config.spool_dir,
            recovered,
            boot=uuid.UUID(boot_id).bytes,
            created_ms=clock.unix_ms(),
            limits=SpoolLimits(settings.bytes_max, settings.segment_bytes_max),
            carry=work.note,
        )
        self._commit = GroupCommit(
            self._spool,
            work,
            self._offload,
            boot_id=boot_id,
            on_state=self._state,
            on_durable=self._durable,
        )
        for problem in recovered.problems:
            logger.error("%s", problem)
            self._commit.record(Alarmed(Alarm.SPOOL_QUARANTINED, problem, None))
        self._commit.record(*ends, Heartbeat(_uptime_s()))
        await self._commit.settle()
        self._start_uplink()
        event_loop = asyncio.get_running_loop()
        self._tasks += [
            event_loop.create_task(self._beat()),
            event_loop.create_task(self._look_for_space()),
        ]

    async def _recover(self, kernel: Endpoint) -> Recovered:
        """Read the spool in the worker: a full one takes seconds, and the watchdog wants pulses."""
        reading = asyncio.ensure_future(self._offload.run(recover, self._config.spool_dir))
        while not reading.done():
            kernel.notify(Pulse())
            await asyncio.wait((reading,), timeout=PULSE_INTERVAL_S)
        return reading.result()

    def _start_uplink(self) -> None:
        address, identity = self._config.collector.address, self._preparation.identity
        if not address or identity is None:
            return
        self._uplink = Uplink(
            self._spool,
            address,
            identity,
            host_name=platform.node(),
            version=version("loopwarden"),
            on_refused=self._refused,
            on_acknowledged=self._commit.regain,
        )
        self._uplink.on_kill = self._kill
        self._tasks.append(asyncio.get_running_loop().create_task(self._uplink.run()))

    def wired(self, peer: str, sock: socket.socket) -> None:
        """A proxy or the broker; one that is wired again replaces its dead predecessor."""
        if (old := self._peers.pop(peer, None)) is not None and not old.closed:
            old.close()
            self._gone(peer)
        endpoint = Endpoint(
            sock,
            own="reporter",
            peer=peer,
            receive=lambda received: self._received(peer, endpoint, received),
            on_closed=lambda why: self._closed(peer, endpoint, why),
        )
        sender = Sender(
            peer,
            f"{peer}/{next(self._connections)}",
            answer=lambda number: _tell(endpoint, Durable(number)),
            violated=lambda why: self._violated(peer, endpoint, why),
        )
        self._peers[peer] = endpoint
        self._senders[peer] = sender
        if not self._commit.accepting:
            _tell(endpoint, SpoolState(False, self._commit.detail))
        if peer == "broker":
            for kill_id, name in tuple(self._kills.items()):
                _tell(endpoint, KillAsked(kill_id, name))

    def _received(self, peer: str, endpoint: Endpoint, received: Received) -> None:
        message = received.message
        if isinstance(message, Record):
            try:
                permitted = PERMITTED[peer.partition("@")[0]]
                if not permitted.issuperset(kind for kind, _ in message.events):
                    raise ValueError("an event that is another role's to tell")
                events = [unpack_event(kind, body) for kind, body in message.events]
            except ValueError as error:
                self._violated(peer, endpoint, str(error))
                return
            size = 0 if self._commit.accepting else sum(len(body) for _, body in message.events)
            sender = self._senders[peer]
            self._commit.submit(sender, events, message.durable, message.level, size)
        elif isinstance(message, KillTold):
            self._killed(message)
        elif isinstance(message, ReporterStatus):
            received.reply(self._status())

    def receive(self, received: Received) -> None:
        """Kernel has nothing to say but wires and drains."""
        received.close_fds()

    def _closed(self, peer: str, endpoint: Endpoint, why: str) -> None:
        if why != "closed by peer":
            self._commit.record(Alarmed(Alarm.PEER_VIOLATION, f"{peer}: {why}"[:500], None))
        if self._peers.get(peer) is endpoint:
            del self._peers[peer]
            self._gone(peer)

    def _violated(self, peer: str, endpoint: Endpoint, why: str) -> None:
        endpoint.close()
        self._closed(peer, endpoint, why)

    def _gone(self, peer: str) -> None:
        self._commit.gone(self._senders.pop(peer))

    def _state(self, accepting: bool, detail: str) -> None:  # noqa: FBT001 - a callback
        for endpoint in tuple(self._peers.values()):
            _tell(endpoint, SpoolState(accepting, detail))
        if self._commit.stopped:
            # what is in memory may not be trusted any more: end, read back, and start again
            asyncio.get_running_loop().call_later(0.05, os._exit, DEAD_EXIT_CODE)

    def _durable(self) -> None:
        if self._uplink is not None:
            self._uplink.durable()

    def _refused(self, why: str) -> None:
        self._commit.record(Alarmed(Alarm.UPLOAD_REFUSED, why[:500], None))

    def _kill(self, kill_id: str, name: str) -> None:
        """Ask the broker; while it is away, it is asked when it is there."""
        self._kills[kill_id] = name
        if len(self._kills) > KILLS_MAX:
            self._kills.popitem(last=False)
        broker = self._peers.get("broker")
        if broker is not None:
            _tell(broker, KillAsked(kill_id, name))

    def _killed(self, word: KillTold) -> None:
        if word.state != "cut":
            self._kills.pop(word.kill_id, None)
        if self._uplink is not None:
            self._uplink.killed(word.kill_id, word.state, word.detail)

    def _status(self) -> ReporterState | Failed:
        uplink = self._uplink
        address, identity = self._config.collector.address, self._preparation.identity
        detail = self._commit.detail
        if not detail and uplink is not None:
            detail = uplink.detail
        return ReporterState(
            accepting=self._commit.accepting,
            detail=detail,
            spool_bytes=self._spool.used_bytes,
            spool_bytes_max=self._config.spool.bytes_max,
            last_seq=self._spool.next_seq - 1,
            acknowledged_seq=(
                self._spool.cursor.seq if uplink is None else uplink.acknowledged_seq
            ),
            collector=address,
            connected=uplink is not None and uplink.connected,
            identity_ends_ms=identity.ends_ms if identity is not None else 0,
        )

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._config.spool.heartbeat_s)
            self._commit.record(Heartbeat(_uptime_s()))

    async def _look_for_space(self) -> None:
        while True:
            await asyncio.sleep(REGAIN_INTERVAL_S)
            self._commit.regain()

    async def drain(self, within_s: float) -> None:
        """Flush, give the uplink a moment to empty the spool, then close."""
        await self._commit.settle()
        if self._uplink is not None and self._uplink.connected:
            await self._uplink.emptied(min(within_s / 2, 2.0))
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for endpoint in self._peers.values():
            endpoint.close()
        self._spool.close()


def _tell(endpoint: Endpoint, message: Durable | SpoolState | KillAsked) -> None:
    if not endpoint.closed:
        try:
            endpoint.notify(message)
        except PeerGone:
            return  # on_closed was told


def _uptime_s() -> int:
    return clock.boot_ns() // 1_000_000_000


def main(argv: list[str] | None = None) -> int:
    """Run the role; see ipc/role.py for the arguments."""
    preparation = Preparation()
    return run_role(
        sys.argv[1:] if argv is None else argv,
        user=lambda config: config.users.reporter,
        make=lambda config, _name: Reporter(config, preparation),
        prepare=preparation,
    )


if __name__ == "__main__":
    sys.exit(main())
