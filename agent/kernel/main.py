"""loopwardend: the root daemon and supervisor (the `kernel` role).

It parses fixed-size IPC frames and BPF structs, nothing from the network. Stopping it leaves the
BPF links and nft table in place: runs are refused, never released.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import assert_never

import uvloop

from agent import __version__
from agent.config.daemon import DEFAULT_PATH, ConfigError, Daemon, load
from agent.ipc.endpoint import Endpoint, PeerGone
from agent.ipc.messages import Alarm, CutRun, Listeners, Message, RunEmptied
from agent.kernel import sole
from agent.kernel.config import PlaneConfig
from agent.kernel.errors import PlaneError, RunRefused
from agent.kernel.events import CgroupWithoutTag, Denied, Emptied, TagWithoutCgroup
from agent.kernel.identity_files import IdentityFiles
from agent.kernel.plane import Plane
from agent.kernel.roles import roles
from agent.kernel.supervisor import Supervisor, listeners
from agent.kernel.table import Table
from agent.model import audit
from agent.model.ids import RunId
from agent.model.reason import Reason
from agent.runtime import confine, log, priority
from agent.runtime.clock import boot_ns
from agent.runtime.notify import notify, watchdog_interval_s

VERIFY_INTERVAL_S = 1.0
NICE = -10  # it sleeps but for a run's beginning and end, and for a flow's first packet
logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run the daemon. Exit codes: 0 stopped, 1 failed while running, 2 cannot start."""
    parser = argparse.ArgumentParser(
        prog="loopwardend",
        description="The Loopwarden daemon: attributes, redirects and filters what loops send.",
        epilog="Exit status: 0 stopped as asked, 1 a failure while running, 2 cannot start.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="version", version=f"loopwarden {__version__}")
    arguments = parser.parse_args(argv)
    try:
        config = load(arguments.config, trusted=True)
        log.configure("kernel", config.log_level)
        if arguments.check:
            sys.stdout.write(f"{arguments.config}: ok\n")
            return 0
        if os.geteuid() != 0:
            raise ConfigError("loopwardend needs root: it loads BPF programs (try sudo)")
        locks = (prepare_directories(config), *sole.hold(plane_config(config)))
        priority.prompt(NICE, children=True)  # who has it from the service manager keeps it
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Daemon(config, arguments.config.resolve()).serve(locks))
    except (ConfigError, LookupError, OSError, PlaneError, TimeoutError) as error:
        sys.stderr.write(f"loopwardend: {error}\n")
        return 2


def prepare_directories(config: Daemon) -> int:
    """Make the state and run directories with their owners; return the locked descriptor.

    Raises:
        ConfigError: another daemon uses the state directory.
        LookupError: a user of [users] does not exist.
        OSError: a directory can't be made.
    """
    broker = confine.account(config.users.broker)
    reporter = confine.account(config.users.reporter)
    os.makedirs(config.state_dir, mode=0o755, exist_ok=True)
    lock = os.open(Path(config.state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigError(f"another loopwardend uses {config.state_dir}") from None
    for path, mode, owner in (
        (config.broker_dir, 0o700, broker),
        (config.spool_dir, 0o700, reporter),
        # root's: what root makes here, the control socket, nobody else can put a link in place of
        (Path(config.run_dir), 0o755, confine.Account(0, 0)),
    ):
        os.makedirs(path, mode=mode, exist_ok=True)
        os.chown(path, owner.uid, owner.gid)
        os.chmod(path, mode)
    return lock


class _Daemon:
    """The parts of the daemon, and how they hang together."""

    def __init__(self, config: Daemon, config_path: Path) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._code = 0
        self._identity = IdentityFiles(
            config.collector.identity_dir if config.collector.address else ""
        )
        self._backlog: list[Message] = []  # alarms while the broker is down, bounded
        self._roles = roles(config.proxy_workers)
        self._sockets = listeners(config.proxy_port, config.dns_port)
        self._plane = Plane.open(plane_config(config))
        self._table = Table(self._plane, self._notify_broker)
        self._supervisor = Supervisor(
            config_path,
            self._roles,
            receive=self._table.receive,
            on_started=self._started,
            on_died=self._died,
            on_fault=self._fail,
        )

    async def serve(self, locks: tuple[int, ...]) -> int:
        """Run until SIGTERM or SIGINT; the locks are let go at the end."""
        event_loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            event_loop.add_signal_handler(number, self._stop.set)
        event_loop.add_signal_handler(signal.SIGHUP, self._reload)
        event_loop.add_reader(self._plane.events_fd, self._events)
        try:
            await self._supervisor.start()
            logger.info("serving; runs live in %s", self._config.slice_path)
            notify(READY="1", STATUS="serving")
            await self._watch()
            notify(STOPPING="1", STATUS="draining")
        finally:
            await self._supervisor.drain(self._config.drain_s)
            event_loop.remove_reader(self._plane.events_fd)
            self._plane.close()
            for lock in locks:
                os.close(lock)
        return self._code

    async def _watch(self) -> None:
        """Every second: are the locks in place, do all roles turn? Feed systemd only if so."""
        interval_s = min(watchdog_interval_s() or VERIFY_INTERVAL_S, VERIFY_INTERVAL_S)
        while not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._stop.wait()
            locked = self._look_after_locks()
            self._events()
            if self._identity.changed():
                logger.info("the host's identity was replaced")
                self._supervisor.renew("reporter", self._config.drain_s)
            for run_id in self._plane.emptied():  # the broker ends a run once, however often told
                self._emptied(run_id, boot_ns())
            if self._supervisor.healthy() and locked:
                notify(WATCHDOG="1")

    def _look_after_locks(self) -> bool:
        """Put back what is missing and tell of it; return whether all is in place now.

        A program that was detached is attached by the next start alone, which systemd makes when
        the watchdog is not fed.
        """
        locked = True
        for repair in self._plane.verify():
            locked = locked and repair.repaired
            outcome = "put back" if repair.repaired else "NOT put back"
            detail = f"{repair.part} was missing, {outcome}: {repair.detail}"
            logger.error("%s", detail)
            self._notify_broker(Alarm(audit.Alarm.LOCK_MISSING, detail, None))
        return locked

    def _events(self) -> None:
        for event in self._plane.read_events():
            if isinstance(event, Emptied):
                self._emptied(event.run_id, event.at_ns)
            elif (alarm := _notice(event)) is not None:
                self._notify_broker(alarm)

    def _emptied(self, run_id: RunId, at_ns: int) -> None:
        """Stop the run's flows, have the workers close them, then tell the broker.

        A run that was revoked before is cut already, with its true cause.
        """
        read_ns = boot_ns()
        try:
            fresh = self._plane.freeze(run_id)
        except (OSError, RunRefused) as error:  # the broker asks for it again, until it is done
            logger.warning("run %s: %s", run_id, error)
            fresh = True
        if fresh:
            for role in self._roles:
                worker = self._supervisor.endpoint(role.name) if role.kind == "proxy" else None
                if worker is not None:
                    with suppress(PeerGone):  # its sessions went with it
                        worker.notify(CutRun(run_id, Reason.RUN_ENDED))
        self._notify_broker(RunEmptied(run_id, at_ns))
        logger.debug("ending %s: emptied %d read %d told %d", run_id, at_ns, read_ns, boot_ns())

    def _notify_broker(self, message: Message) -> None:
        """Tell the broker, or keep it until there is one (it asks for the runs when it starts)."""
        broker = self._supervisor.endpoint("broker")
        if broker is not None:
            with suppress(PeerGone):
                broker.notify(message)
                return
        if isinstance(message, Alarm) and len(self._backlog) < _BACKLOG_MAX:
            self._backlog.append(message)

    def _started(self, name: str, endpoint: Endpoint) -> None:
        if name.startswith("proxy@"):
            tcp, udp, dns = self._sockets
            every = [sock.fileno() for sock in (*tcp, *udp, *dns)]
            endpoint.notify(Listeners(len(tcp), len(udp), len(dns)), every)
        if name == "broker":
            backlog, self._backlog = self._backlog, []
            for message in backlog:
                endpoint.notify(message)

    def _died(self, name: str, why: str) -> None:
        self._notify_broker(Alarm(audit.Alarm.ROLE_DIED, f"{name}: {why}", None))

    def _fail(self) -> None:
        """Stop: what we no longer supervise, systemd starts anew."""
        self._code = 1
        self._stop.set()

    def _reload(self) -> None:
        self._supervisor.signal("broker", signal.SIGHUP)


_BACKLOG_MAX = 1_000


def _notice(event: TagWithoutCgroup | CgroupWithoutTag | Denied) -> Alarm | None:
    """Return what the broker is told of a kernel event; denials are counted, not told."""
    match event:
        case TagWithoutCgroup(run_id, pid, _):
            detail = f"pid {pid} was moved out of the run's cgroup: governed, no credential"
            return Alarm(audit.Alarm.TAG_WITHOUT_CGROUP, detail, run_id)
        case CgroupWithoutTag(run_id, pid, _):
            detail = f"pid {pid} was moved into the run's cgroup: governed, no credential"
            return Alarm(audit.Alarm.CGROUP_WITHOUT_TAG, detail, run_id)
        case Denied():
            return None
        case _:
            assert_never(event)


def plane_config(config: Daemon) -> PlaneConfig:
    """Return the plane's part of the configuration."""
    return PlaneConfig(
        instance=config.instance,
        bpffs=Path(config.bpffs),
        attach_cgroup=config.attach_cgroup,
        slice_name=config.slice or f"{config.instance}.slice",
        proxy_port=config.proxy_port,
        dns_port=config.dns_port,
        mark_prefix=config.mark_prefix,
    )


if __name__ == "__main__":
    sys.exit(main())
