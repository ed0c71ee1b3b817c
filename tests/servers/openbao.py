"""A real OpenBao: in memory (`dev`), or on a disk so that it can be sealed and started again.

    with openbao() as server:
        server.write("sys/mounts/kv", {"type": "kv"})
    with lasting_openbao(Authority()) as server:
        server.restart()

It runs as nobody, and is spoken to by HTTP alone. What it is told to do for our provider is in
tests/servers/openbao_setup.py.
"""

import contextlib
import http.client
import json
import os
import pwd
import select
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers.certificates import Authority
from tests.servers.clients import bao
from tests.servers.netns import Namespace
from tests.servers.nginx import free_port

OWNER = "nobody"
ROOT_TOKEN = "canary-root-77aa01d3c9e2"
READY_S, ENDED_S, CALL_S, POLL_S = 30.0, 20.0, 20.0, 0.02
CONFIG = """
disable_mlock = true
api_addr = "https://{host}:{port}"
cluster_addr = "https://{host}:{cluster_port}"
log_level = "debug"
storage "raft" {{ path = "{folder}/data" node_id = "one" performance_multiplier = 1 }}
listener "tcp" {{
  address = "{host}:{port}"
  cluster_address = "{host}:{cluster_port}"
  tls_cert_file = "{folder}/server.pem"
  tls_key_file = "{folder}/server.key"
}}
"""


class Refused(Exception):
    """The server said no."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        super().__init__(f"{status}: {answer.get('errors')}")
        self.status = status


@dataclass(slots=True)
class OpenBao:
    """A server that can be stopped, sealed, paused and started again."""

    url: str
    ca: str  # path of its CA's certificate, "" without TLS
    root: str = field(repr=False)
    folder: Path
    inside: Namespace | None = None
    argv: tuple[str, ...] = ()
    unseal_key: str = field(default="", repr=False)
    namespace: str = ""  # in which `read`, `write` and `call` are
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, unseal it if it has a key, and return when it is active.

        Raises:
            RuntimeError: it is not within READY_S.
        """
        self.launch()
        if self.unseal_key:
            self.unseal()
        self.wait_for(200)

    def launch(self) -> None:
        """Start its process."""
        account = pwd.getpwnam(OWNER)
        drop = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}",
                "--clear-groups", "--"]  # fmt: skip
        argv = [*drop, *self.argv]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv if self.inside is None else self.inside.argv(*argv),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip

    def wait_for(self, *statuses: int) -> None:
        """Return when sys/health answers with one of these (200 active, 501 new, 503 sealed).

        Raises:
            RuntimeError: it does not within READY_S.
        """
        status = 0
        for _ in range(int(READY_S / POLL_S)):
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = self.call("GET", "sys/health", token="")
            if status in statuses:
                return
            if not self.running:
                break
            select.select([], [], [], POLL_S)  # nothing tells when another process is ready
        raise RuntimeError(f"OpenBao: health {status}: {self.log()[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; SIGKILL is a crash."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # what is paused can't end
        try:
            process.wait(ENDED_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(ENDED_S)

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop and start, on the same port; of a server in memory everything is gone."""
        self.stop(how)
        self.start()

    def seal(self) -> None:
        """Seal it: it answers 503 to everything."""
        self.write("sys/seal", {})
        self.wait_for(503)

    def unseal(self) -> None:
        """Undo seal."""
        self.wait_for(503, 200, 429)
        status, answer = self.call("POST", "sys/unseal", {"key": self.unseal_key}, token="")
        if status != 200:
            raise Refused(status, answer)
        self.wait_for(200)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def read(self, path: str, token: str | None = None) -> dict[str, Any]:
        """Return what is at a path.

        Raises:
            Refused: nothing, or it says no.
        """
        return self._must("GET", path, None, token)

    def write(self, path: str, body: object, token: str | None = None) -> dict[str, Any]:
        """Write to a path and return the answer.

        Raises:
            Refused: it says no.
        """
        return self._must("POST", path, body, token)

    def listed(self, path: str) -> list[str]:
        """Return the keys below a path."""
        status, answer = self.call("LIST", path)
        if status == 404:
            return []
        if status != 200:
            raise Refused(status, answer)
        found: list[str] = answer["data"]["keys"]
        return found

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        wrap_ttl: str = "",
    ) -> tuple[int, dict[str, Any]]:
        """Send one request (as root, unless a token is given); return status and answer."""
        parts = urlsplit(self.url)
        assert parts.hostname
        host, port = parts.hostname, parts.port
        connection = http.client.HTTPConnection(host, port, timeout=CALL_S)
        if self.ca:
            context = ssl.create_default_context(cafile=self.ca)
            connection = http.client.HTTPSConnection(host, port, timeout=CALL_S, context=context)
        headers = {"X-Vault-Request": "true"}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        if token is None or token:
            headers["X-Vault-Token"] = self.root if token is None else token
        if wrap_ttl:
            headers["X-Vault-Wrap-TTL"] = wrap_ttl
        content = None if body is None else json.dumps(body)
        with contextlib.closing(connection):
            connection.request(method, f"/v1/{path}", content, headers)
            response = connection.getresponse()
            raw = response.read()
        return response.status, json.loads(raw) if raw else {}

    def _must(self, method: str, path: str, body: object, token: str | None) -> dict[str, Any]:
        status, answer = self.call(method, path, body, token=token)
        if status >= 300:
            raise Refused(status, answer)
        return answer

    def log(self) -> str:
        """Return what it logged so far, over all its starts."""
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def openbao(
    *, address: str = "127.0.0.1", inside: Namespace | None = None, tls: bool = False
) -> Iterator[OpenBao]:
    """Run one in memory, unsealed, with KV version 2 at `secret/`, and remove it.

    tls: with a certificate for the loopback that it makes itself.
    """
    with _folder() as folder:
        port = free_port(address) if inside is None else inside.call(lambda: free_port(address))
        argv = [str(bao()), "server", "-dev", "-dev-no-store-token", "-log-level=debug",
                f"-dev-root-token-id={ROOT_TOKEN}",
                f"-dev-listen-address={address}:{port}"]  # fmt: skip
        if tls:
            argv += ["-dev-tls", f"-dev-tls-cert-dir={folder}"]
        scheme, ca = ("https", str(folder / "vault-ca.pem")) if tls else ("http", "")
        url = f"{scheme}://{address}:{port}"
        server = OpenBao(url, ca, ROOT_TOKEN, folder, inside, tuple(argv))
        try:
            server.start()
            if tls:  # a CA's file is believed if it is root's
                server.ca = str(folder / "ca.pem")
                shutil.copyfile(ca, server.ca)
            yield server
        finally:
            server.stop(signal.SIGKILL)


@contextlib.contextmanager
def lasting_openbao(
    authority: Authority, *, address: str = "127.0.0.1", inside: Namespace | None = None
) -> Iterator[OpenBao]:
    """Run one on a disk, with a certificate for its address, and remove it."""
    with _folder() as folder:
        identity = authority.identity(address)
        for name, content in (("server.pem", identity.chain_pem), ("server.key", identity.key_pem)):
            (folder / name).write_bytes(content)
            _own(folder / name)
        (folder / "ca.pem").write_text(authority.pem)
        (folder / "data").mkdir()
        _own(folder / "data")

        def ports() -> tuple[int, int]:
            return free_port(address), free_port(address)

        port, cluster_port = ports() if inside is None else inside.call(ports)
        text = CONFIG.format(host=address, port=port, cluster_port=cluster_port, folder=folder)
        (folder / "config.hcl").write_text(text)
        argv = (str(bao()), "server", f"-config={folder}/config.hcl")
        server = OpenBao(
            f"https://{address}:{port}", str(folder / "ca.pem"), "", folder, inside, argv
        )
        try:
            server.launch()
            server.wait_for(501)
            _initialize(server)
            yield server
        finally:
            server.stop(signal.SIGKILL)


def _initialize(server: OpenBao) -> None:
    asked = {"secret_shares": 1, "secret_threshold": 1}
    status, answer = server.call("POST", "sys/init", asked, token="")
    if status != 200:
        raise Refused(status, answer)
    server.root, server.unseal_key = answer["root_token"], answer["keys_base64"][0]
    server.unseal()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lwt-bao-"))
    folder.chmod(0o755)
    _own(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own(path: Path) -> None:
    account = pwd.getpwnam(OWNER)
    os.chown(path, account.pw_uid, account.pw_gid)
