"""A real PostgreSQL: the database `orders`, TLS, one role a login method, and faults on demand.

The server that the distribution has (`.ci/packages`; its newest version) runs as the user that the
package made, from a folder of its own. `initdb` and `orders.sql` are done once a process, into a
template that each server copies.

    with postgres_server(Authority(), name="orders.test.internal") as server:
        assert server.ask("SELECT count(*) FROM orders") == [("5000",)]

Who may log in how (over TLS; see HBA): `app_scram`, `app_md5`, `app_password` (cleartext inside
TLS) with PASSWORD, `app_cert` with a client certificate, `app_trust` with nothing,
`loopwarden_admin` (CREATEROLE, grant options on everything in `orders`) with ADMIN_PASSWORD, and
`postgres` (superuser) with SUPERUSER_PASSWORD, or by the Unix socket with nothing.
"""

import atexit
import contextlib
import csv
import functools
import io
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from tests.servers.certificates import Authority
from tests.servers.netns import Namespace
from tests.servers.nginx import free_port

READY_S = 180.0  # of a busy machine
ENDED_S = 120.0
POLL_S = 0.02
OWNER = "postgres"  # the package's user: the server refuses to be root
PASSWORD = "canary-app-51c0ffee9b7d"
ADMIN_PASSWORD = "canary-admin-2f9be6d01a44"
SUPERUSER_PASSWORD = "canary-super-88d1e0c37f52"
# environment: a folder with `postgres` and `initdb` of another version to run the tests with, which
# the user postgres can read; .ci/postgres-18 makes one
SERVER_FOLDER = "LOOPWARDEN_TEST_POSTGRES"
SCHEMA = Path(__file__).with_name("orders.sql")

HBA = """
local     all          all                trust
hostssl   all          app_md5       all  md5
hostssl   all          app_password  all  password
hostssl   all          app_cert      all  cert
hostssl   all          app_trust     all  trust
hostssl   all          all           all  scram-sha-256
hostssl   replication  all           all  scram-sha-256
"""
HBA_PLAIN = """
host      all          app_trust     all  trust
host      all          app_md5       all  md5
host      all          app_password  all  password
host      all          all           all  scram-sha-256
"""
SETTINGS = {
    "log_line_prefix": "%m [%p] user=%u db=%d app=%a ",
    "log_connections": "on",
    "log_disconnections": "on",
    "logging_collector": "off",
    "unix_socket_permissions": "0700",
    "ssl_min_protocol_version": "TLSv1.2",
    "max_connections": "200",
    "max_wal_senders": "2",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_STOPS: dict[str, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
Stop = Literal["smart", "fast", "immediate"]


@functools.cache
def programs() -> Path:
    """Return the folder of the newest server that the distribution has.

    Raises:
        RuntimeError: there is none.
    """
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    if not found:
        raise RuntimeError("no PostgreSQL server: run .ci/packages test")
    return found[-1].parent


def server_programs() -> Path:
    """Return the folder of the server: the one named by SERVER_FOLDER, else the distribution's.

    The clients stay the distribution's.
    """
    named = os.environ.get(SERVER_FOLDER)
    return Path(named) if named else programs()


def newest_client() -> dict[str, str]:
    """Return what has the distribution's clients use the libpq that came with SERVER_FOLDER.

    It asks for protocol 3.2, and takes nothing older: PostgreSQL 18's does. {} without one.
    """
    library = server_programs().parent / "lib"
    if not (library / "libpq.so.5").exists() or version() < 18:
        return {}
    return {
        "LD_LIBRARY_PATH": str(library),
        "PGMAXPROTOCOLVERSION": "latest",
        "PGMINPROTOCOLVERSION": "3.2",
    }


def as_owner(*argv: str, inside: Namespace | None = None) -> list[str]:
    """Return the command as the package's user runs it (in a network namespace)."""
    account = pwd.getpwnam(OWNER)
    drop = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    command = [*drop, "--", *argv]
    return command if inside is None else inside.argv(*command)


@dataclass(slots=True)
class Postgres:
    """A server that can be stopped, started again and paused."""

    name: str  # its certificate's
    address: str  # "" when it listens on its Unix socket alone
    port: int
    folder: Path  # data, log, and the Unix socket
    ca: Path  # of its certificate, PEM
    inside: Namespace | None
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The postmaster's.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError("the server is stopped")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def start(self) -> None:
        """Start, and return when it accepts connections.

        Raises:
            RuntimeError: it does not within READY_S.
        """
        argv = as_owner(
            str(server_programs() / "postgres"), "-D", str(self.data), inside=self.inside
        )
        self.data.joinpath("postmaster.pid").unlink(missing_ok=True)
        with self.folder.joinpath("server.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        for _ in range(int(READY_S / POLL_S)):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(FileNotFoundError):
                lines = self.data.joinpath("postmaster.pid").read_text().splitlines()
                if lines and lines[-1].strip() == "ready":
                    return
            select.select([], [], [], POLL_S)  # nothing tells when another process is ready
        raise RuntimeError(f"PostgreSQL does not start: {self.log()[-2000:]}")

    def stop(self, how: Stop = "fast") -> None:
        """End it: smart waits for sessions, fast cuts them, immediate is a crash."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        family = _family(process.pid)
        process.send_signal(_STOPS[how])
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)  # what is paused can't end
        try:
            process.wait(ENDED_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(ENDED_S)

    def restart(self, how: Stop = "fast") -> None:
        """Stop and start, on the same port."""
        self.stop(how)
        self.start()

    def pause(self) -> None:
        """Freeze every process of it: connections stay open and nothing answers."""
        for process in _family(self.pid):
            with contextlib.suppress(psutil.NoSuchProcess):  # it was about to end
                process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo pause."""
        for process in reversed(_family(self.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def ask(
        self, sql: str, *, database: str = "orders", user: str = "postgres"
    ) -> list[tuple[str, ...]]:
        """Run statements by the Unix socket and return the rows, as text (NULL: "").

        Raises:
            RuntimeError: the server refused one, or does not run.
        """
        argv = [str(programs() / "psql"), "--no-psqlrc", "--quiet", "--csv", "--tuples-only",
                "--set=ON_ERROR_STOP=1", "--host", str(self.folder), "--port", str(self.port),
                "--username", user, "--dbname", database]  # fmt: skip
        done = subprocess.run(argv, input=sql, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{sql[:200]}: {done.stderr.strip()}")
        return [tuple(row) for row in csv.reader(io.StringIO(done.stdout))]

    def log(self) -> str:
        """Return what the server logged so far, over all its starts."""
        return self.folder.joinpath("server.log").read_text(encoding="utf-8", errors="replace")

    def environment(
        self, user: str = "app_scram", password: str = PASSWORD, *, database: str = "orders"
    ) -> dict[str, str]:
        """Return what makes a libpq program connect, verified (app_cert: add its files)."""
        tls = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self.ca), "PGHOST": self.name,
               "PGHOSTADDR": self.address}  # fmt: skip
        return {
            **(tls if self.address else {"PGHOST": str(self.folder)}),
            "PGPORT": str(self.port),
            "PGUSER": user,
            "PGPASSWORD": password,
            "PGDATABASE": database,
        }

    def pgbench_tables(self, scale: int = 1, database: str = "bench") -> None:
        """Make a database with pgbench's tables (100 000 accounts a scale), app_scram's own."""
        self.ask(f"CREATE DATABASE {database} OWNER app_scram", database="postgres")
        argv = [str(programs() / "pgbench"), "--initialize", "--quiet", f"--scale={scale}",
                "--host", str(self.folder), "--port", str(self.port),
                "--username", "app_scram", database]  # fmt: skip
        subprocess.run(argv, check=True, capture_output=True)


@contextlib.contextmanager
def postgres_server(
    authority: Authority,
    *,
    name: str = "orders.test.internal",
    address: str = "127.0.0.1",
    port: int = 0,
    inside: Namespace | None = None,
    clients: Authority | None = None,
    tls: bool = True,
    plain: bool = False,
    fsync: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Postgres]:
    """Run a server, and remove it.

    Args:
        authority: signs its certificate for name.
        name: what clients verify.
        address: where it listens; "": its Unix socket alone.
        port: 0 for a free one.
        inside: the network namespace that it listens in.
        clients: signs client certificates (app_cert); authority by default.
        tls: offer TLS.
        plain: let in without TLS as well.
        fsync: whether commits are durable (benchmarks).
        settings: of postgresql.conf, over SETTINGS ({"log_statement": "all"}).
    """
    folder = Path(tempfile.mkdtemp(prefix="lwt-pg-"))
    try:
        _own(folder)
        argv = as_owner("cp", "-a", "--reflink=auto", str(_template()), str(folder / "data"))
        subprocess.run(argv, check=True)
        port = port or (_free(address, inside) if address else 5432)
        ca = _certificates(folder, authority, clients or authority, name)
        chosen = {
            **SETTINGS,
            "listen_addresses": address,
            "port": str(port),
            "unix_socket_directories": str(folder),
            "fsync": "on" if fsync else "off",
            "ssl": "on" if tls else "off",
            "ssl_cert_file": str(folder / "server.pem"),
            "ssl_key_file": str(folder / "server.key"),
            "ssl_ca_file": str(folder / "clients.pem"),
            **(settings or {}),
        }
        lines = [f"{key} = '{value}'\n" for key, value in chosen.items()]
        _private(folder / "data/postgresql.conf", "".join(lines).encode())
        hba = HBA + (HBA_PLAIN if plain or not tls else "")
        _private(folder / "data/pg_hba.conf", hba.encode())
        server = Postgres(name, address, port, folder, ca, inside)
        try:
            server.start()
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _certificates(folder: Path, authority: Authority, clients: Authority, name: str) -> Path:
    """Write the server's identity and what it trusts; return the CA that its clients trust."""
    identity = authority.identity(name)
    _private(folder / "server.pem", identity.chain_pem)
    _private(folder / "server.key", identity.key_pem)
    _private(folder / "clients.pem", clients.pem.encode())
    ca = folder / "ca.pem"
    ca.write_text(authority.pem, encoding="utf-8")
    return ca


@functools.cache
def _template() -> Path:
    """Return a data folder with the schema in it, made once."""
    folder = Path(tempfile.mkdtemp(prefix="lwt-pg-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _own(folder)
    data = folder / "data"
    argv = as_owner(
        str(server_programs() / "initdb"), "--pgdata", str(data), "--no-sync",
        "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
        "--wal-segsize=1",
    )  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True, cwd="/")
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "timezone": "UTC",
    }
    with data.joinpath("postgresql.conf").open("a", encoding="utf-8") as config:
        config.writelines(f"{key} = '{value}'\n" for key, value in settings.items())
    server = Postgres("", "", 5432, folder, folder, None)
    try:
        server.start()
        variables = f"\\set admin_password '{ADMIN_PASSWORD}'\n\\set password '{PASSWORD}'\n"
        super_ = f"ALTER ROLE postgres PASSWORD '{SUPERUSER_PASSWORD}';\n"
        server.ask(variables + super_ + SCHEMA.read_text(encoding="utf-8"), database="postgres")
    finally:
        server.stop()
    return data


def canaries() -> tuple[str, ...]:
    """Return every password of these servers: what nothing of ours may ever show."""
    return (PASSWORD, ADMIN_PASSWORD, SUPERUSER_PASSWORD)


def _own(folder: Path) -> None:
    account = pwd.getpwnam(OWNER)
    shutil.chown(folder, account.pw_uid, account.pw_gid)
    folder.chmod(0o755)  # the CA is read by whoever connects; the rest is the owner's


def _private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    shutil.chown(path, OWNER, OWNER)


def _free(address: str, inside: Namespace | None) -> int:
    return free_port(address) if inside is None else inside.call(lambda: free_port(address))


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


@functools.cache
def version() -> int:
    """Return the server's major version."""
    argv = [str(server_programs() / "postgres"), "--version"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r" (\d+)", said)
    assert found
    return int(found[1])
