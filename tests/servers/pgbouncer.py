"""PgBouncer before a PostgreSQL: session pooling, TLS on both sides (the benchmarks' yardstick)."""

import contextlib
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.certificates import Authority
from tests.servers.nginx import free_port, wait_listening
from tests.servers.postgres import OWNER, PASSWORD, Postgres, as_owner

ENDED_S = 10.0
CONFIG = """
[databases]
* = host={name} port={server_port}
[pgbouncer]
listen_addr = {address}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = session
default_pool_size = 100
max_client_conn = 200
server_reset_query =
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = {client_tls}
client_tls_cert_file = {folder}/chain.pem
client_tls_key_file = {folder}/key.pem
server_tls_sslmode = {server_tls}
server_tls_ca_file = {folder}/server-ca.pem
log_connections = 0
log_disconnections = 0
"""


@dataclass(frozen=True, slots=True)
class PgBouncer:
    """A running one."""

    name: str
    address: str
    port: int
    folder: Path
    ca: Path
    pid: int

    def environment(
        self, user: str = "app_scram", password: str = PASSWORD, *, database: str = "orders"
    ) -> dict[str, str]:
        """Return what makes a libpq program connect through it, over verified TLS."""
        return {
            "PGHOST": self.name,
            "PGHOSTADDR": self.address,
            "PGPORT": str(self.port),
            "PGUSER": user,
            "PGPASSWORD": password,
            "PGDATABASE": database,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(self.ca),
        }


@contextlib.contextmanager
def pgbouncer(
    server: Postgres,
    authority: Authority,
    *,
    name: str = "orders.test.internal",
    address: str = "127.0.0.1",
    client_tls: bool = True,
    server_tls: bool = True,
    server_name: str = "",
    server_ca: Path | None = None,
) -> Iterator[PgBouncer]:
    """Run it before a server on the same address family, and remove it.

    server_name: the server's name, which it then verifies; without one, the CA alone.
    server_ca: of the server's certificate; authority's by default.
    """
    folder = Path(tempfile.mkdtemp(prefix="lwt-pgbouncer-"))
    try:
        port = free_port(address)
        identity = authority.identity(name)
        text = CONFIG.format(
            name=server_name or server.address,
            server_port=server.port,
            address=address,
            port=port,
            folder=folder,
            client_tls="require" if client_tls else "disable",
            server_tls=_server_tls(server_name) if server_tls else "disable",
        )
        ca = folder / "ca.pem"
        ca.write_text(authority.pem, encoding="utf-8")
        shutil.copyfile(server_ca or ca, folder / "server-ca.pem")
        _private(folder / "chain.pem", identity.chain_pem)
        _private(folder / "key.pem", identity.key_pem)
        _private(folder / "users", f'"app_scram" "{PASSWORD}"\n'.encode())
        _private(folder / "pgbouncer.ini", text.encode())
        folder.chmod(0o755)
        argv = as_owner("/usr/sbin/pgbouncer", "--quiet", str(folder / "pgbouncer.ini"))
        if server_name:  # it has no way to say a name and an address
            hosts = folder / "hosts"
            hosts.write_text(f"{server.address} {server_name}\n", encoding="ascii")
            mounted = f'mount --bind {hosts} /etc/hosts && exec "$@"'
            argv = ["unshare", "-m", "sh", "-c", mounted, "sh", *argv]
        with folder.joinpath("log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
            )
        try:
            wait_listening(address, port, process)
            yield PgBouncer(name, address, port, folder, ca, process.pid)
        finally:
            process.kill()
            process.wait(ENDED_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _server_tls(server_name: str) -> str:
    return "verify-full" if server_name else "verify-ca"


def _private(path: Path, content: bytes) -> None:
    account = pwd.getpwnam(OWNER)
    path.write_bytes(content)
    path.chmod(0o600)
    shutil.chown(path, account.pw_uid, account.pw_gid)
