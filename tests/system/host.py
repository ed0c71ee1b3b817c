"""A worker host for tests: daemon, roles and CLI as shipped, in a cgroup subtree of its own.

Everything of an instance is named after it (pins, table, slice, ports, directories), so that
tests can neither disturb the machine nor each other, and `stop` removes all of it.
"""

import contextlib
import errno
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.kernel.cgroups import CgroupTree
from tests.system import claimed

# Limits against a hang, no measures: nothing of this takes as long, on a machine that is busy too.
READY_WITHIN_S = 120.0
DONE_WITHIN_S = 120.0
ENDED_WITHIN_S = 60.0
UNPRIVILEGED = pwd.getpwnam("nobody")
BIN = Path(sys.executable).parent


@dataclass(slots=True)
class Host:
    """One running instance. `policy` files may be changed; then `cli("policy", "reload")`."""

    instance: str
    base: Path
    collector_address: str = ""
    identity_dir: str = ""
    proxy_port: int = 25001
    mark_prefix: int = 0x5A1
    spool_bytes_max: int = 1 << 28
    proxy_workers: int = 1
    log_level: str = "info"
    environment: Mapping[str, str] = field(default_factory=dict)
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The daemon's configuration file."""
        return self.base / "loopwarden.toml"

    @property
    def policy_dir(self) -> Path:
        """Where policy files go."""
        return self.base / "policy.d"

    @property
    def state_dir(self) -> Path:
        """The daemon's state."""
        return self.base / "state"

    @property
    def cgroup(self) -> Path:
        """The subtree that this host's hooks see: runs, bystanders and the daemon are below it."""
        return Path(CgroupTree.find().directory("/"), self.instance)

    @property
    def log(self) -> Path:
        """What the daemon and its roles logged."""
        return self.base / "daemon.log"

    def prepare(self, policy: str) -> None:
        """Write configuration and policy, make the cgroups."""
        self.base.chmod(0o755)
        self.policy_dir.mkdir(exist_ok=True)
        (self.policy_dir / "test.yaml").write_text(policy)
        self.config.write_text(
            f'instance = "{self.instance}"\n'
            f'policy_dir = "{self.policy_dir}"\n'
            f'state_dir = "{self.state_dir}"\n'
            f'run_dir = "{self.base / "run"}"\n'
            f'attach_cgroup = "/{self.instance}"\n'
            f"proxy_port = {self.proxy_port}\ndns_port = {self.proxy_port + 1}\n"
            f"mark_prefix = {self.mark_prefix}\nproxy_workers = {self.proxy_workers}\n"
            f'drain_s = 3.0\nlog_level = "{self.log_level}"\n'
            f"[spool]\nbytes_max = {self.spool_bytes_max}\nsegment_bytes_max = 1048576\n"
            f'[collector]\naddress = "{self.collector_address}"\n'
            f'identity_dir = "{self.identity_dir}"\n'
            '[users]\nbroker = "64201"\nproxy = "64202"\nreporter = "64203"\nexec = "64204"\n'
        )
        for name in ("", "daemon", "user", "bystander"):
            (self.cgroup / name).mkdir(exist_ok=True)

    def start(self) -> None:
        """Start the daemon and wait until it says READY=1."""
        notify_path = self.base / "notify"
        notify_path.unlink(missing_ok=True)
        command = [str(BIN / "loopwardend"), "--config", str(self.config)]
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications,
            self.log.open("ab") as log,
        ):
            notifications.bind(os.fspath(notify_path))
            notifications.settimeout(0.2)
            self.daemon = subprocess.Popen(
                self.inside("daemon", command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, "NOTIFY_SOCKET": str(notify_path)},
            )
            deadline = time.monotonic() + READY_WITHIN_S
            while time.monotonic() < deadline and self.daemon.poll() is None:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in notifications.recv(4096):
                        return
        raise AssertionError(f"not ready:\n{self.log.read_text()[-4000:]}")

    def inside(self, cgroup: str, command: list[str]) -> list[str]:
        """Return the command as started in one of the host's cgroups."""
        procs = self.cgroup / cgroup / "cgroup.procs"
        return ["/bin/sh", "-c", f'echo $$ > {procs} && exec "$@"', "sh", *command]

    def run(
        self,
        loop: str,
        command: list[str],
        *,
        user: str = "nobody",
        timeout_s: float = DONE_WITHIN_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a loop to its end, as root starts it for a user."""
        return subprocess.run(
            self.run_command(loop, command, user=user),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=self.loop_environment(),
            cwd="/",
        )

    def run_command(self, loop: str, command: list[str], *, user: str = "nobody") -> list[str]:
        """Return the command line that starts a loop."""
        cli = [str(BIN / "loopwarden"), "--config", str(self.config), "run", "--loop", loop]
        return self.inside("user", [*cli, "--user", user, "--", *command])

    def loop_environment(self) -> dict[str, str]:
        """Return a plain environment: what cron would give."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
        }

    def bystander(
        self, command: list[str], timeout_s: float = DONE_WITHIN_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that no loop is, as the same user, seen by the hooks."""
        drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        return subprocess.run(
            self.inside("bystander", [*drop, *command]),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=self.loop_environment(),
            cwd="/",
        )

    def cli(
        self, *words: str, timeout_s: float = DONE_WITHIN_S
    ) -> subprocess.CompletedProcess[str]:
        """Run the loopwarden command."""
        return subprocess.run(
            [str(BIN / "loopwarden"), "--config", str(self.config), *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def json(self, *words: str) -> object:
        """Run the loopwarden command with --json and return what it says."""
        done = self.cli(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def role_pid(self, name: str) -> int:
        """Return the pid of a role ("kernel", "broker", "proxy@0", "reporter"), once it is there.

        After a death it is not: the supervisor waits, longer each time, and exec takes a moment.
        """
        assert self.daemon is not None
        if name == "kernel":
            return self.daemon.pid
        children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children")
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            for pid in children.read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # just gone
                    if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                        return int(pid)
            time.sleep(0.02)
        raise LookupError(name)

    def kill_role(self, name: str) -> None:
        """SIGKILL a role's process; return when it is dead, so that role_pid finds the next one."""
        pidfd = os.pidfd_open(self.role_pid(name))
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if not select.select([pidfd], [], [], ENDED_WITHIN_S)[0]:
                raise RuntimeError(f"{name} does not die")
        finally:
            os.close(pidfd)

    def stop(self) -> None:
        """SIGTERM the daemon and wait."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(ENDED_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait(ENDED_WITHIN_S)
        self.daemon = None

    def remove(self) -> None:
        """Remove every trace: processes of runs, kernel state, cgroups, files."""
        self.stop()
        subprocess.run(
            [sys.executable, "-m", "agent.kernel.clean", "--instance", self.instance],
            check=True,
            timeout=DONE_WITHIN_S,
            stdout=subprocess.DEVNULL,
        )
        with contextlib.suppress(FileNotFoundError):
            (self.cgroup / "cgroup.kill").write_text("1")
        for directory, _, _ in os.walk(self.cgroup, topdown=False):
            remove_cgroup(Path(directory))
        shutil.rmtree(self.base, ignore_errors=True)


def remove_cgroup(directory: Path) -> None:
    """Remove a cgroup, as soon as the last of its processes is gone.

    Raises:
        OSError: some are not within ENDED_WITHIN_S.
    """
    deadline = time.monotonic() + ENDED_WITHIN_S
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def fresh_numbers() -> dict[str, int]:
    """Return ports and a mark prefix that no other host of this machine's tests has."""
    return {"proxy_port": claimed.port_pair(), "mark_prefix": claimed.mark_prefix()}


@contextlib.contextmanager
def running(instance: str, policy: str, **settings: object) -> Iterator[Host]:
    """Yield a started host; everything of it is gone afterwards."""
    settings = {**fresh_numbers(), **settings}
    host = Host(instance, Path(tempfile.mkdtemp(prefix=f"{instance}-")), **settings)  # type: ignore[arg-type]
    try:
        host.prepare(policy)
        host.start()
        yield host
    finally:
        host.remove()
