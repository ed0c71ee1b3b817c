"""A vault that fails as told: what a real one does too seldom, or only after ten minutes.

It answers as OpenBao 2.7.2 was seen to (statuses and texts are recorded), passes the same
conformance suite, and keeps the truth: `users` are alive.
"""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_key,
)

ROLE_ID, SECRET_ID = "role-1", "canary-secret-id-93ab"
PASSWORD = "canary-fake-password-41d2"
PEM = "-----BEGIN {0}-----\nMIIB\n-----END {0}-----"
DENIED = "1 error occurred:\n\t* permission denied\n\n"
Tree = dict[str, Any]


@dataclass(slots=True)
class Fault:
    """What becomes of a request. status 0: no answer at all; drip: one byte now and then.

    errors: TOKEN stands for that of the request.
    """

    status: int = 500
    errors: tuple[str, ...] = ("internal error",)
    headers: Mapping[str, str] = field(default_factory=dict)
    does: bool = False  # what was asked is done all the same
    drip: bool = False
    html: bool = False


class Said(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status)
        self.status, self.errors = status, errors


@dataclass(slots=True)
class Lease:
    """One of a run's token. revoke_error: the server has given it up."""

    accessor: str
    user: str
    lasts_s: int = 3600
    revoke_error: str = ""
    began: datetime | None = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True)
class FakeVault:
    """Its state, and its faults: by a part of "METHOD path", used up one by one ("*" stays)."""

    port: int = 0
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    logins: set[str] = field(default_factory=set)
    children: dict[str, str] = field(default_factory=dict)  # accessor → token
    leases: dict[str, Lease] = field(default_factory=dict)
    certificates: dict[str, int] = field(default_factory=dict)  # serial → revocation time
    busy: bool = False  # revocations are queued (202), and not done until `work`
    queued: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def users(self) -> set[str]:
        """Who is alive."""
        return {lease.user for lease in self.leases.values()}

    def fail(self, part: str, *faults: Fault) -> None:
        """Answer requests for this with these, in turn."""
        self.faults.setdefault(part, []).extend(faults)

    def work(self) -> None:
        """Do what is queued."""
        self.busy = False
        for lease in self.queued:
            self.leases.pop(lease, None)

    def answer(self, method: str, path: str, token: str, body: Tree) -> tuple[int, Tree]:
        """Do what is asked; return status and answer.

        Raises:
            Said: it is not done.
        """
        with self._lock:
            self.asked.append(f"{method} {path}")
            if path.endswith("approle/login"):
                if body != {"role_id": ROLE_ID, "secret_id": SECRET_ID}:
                    raise Said(400, "invalid role or secret ID")
                return 200, {"auth": self._login()}
            if path.startswith(("database/creds/", "pki/issue/", "secret/data/", "ssh/")):
                return 200, self._engine(path, token, body)
            if path.startswith("pki/cert/"):
                return 200, {"data": {"revocation_time": self._certificate(path[9:])}}
            if token not in self.logins:
                raise Said(403, "permission denied")
            return self._own(path, body)

    def _own(self, path: str, body: Tree) -> tuple[int, Tree]:
        routes: dict[str, Callable[[Tree], tuple[int, Tree]]] = {
            "auth/token/lookup-self": lambda _: (200, {"data": {}}),
            "auth/token/renew-self": lambda _: (200, {"auth": {"lease_duration": 3600}}),
            "auth/token/create/loopwarden": self._create,
            "auth/token/renew-accessor": self._renew_accessor,
            "auth/token/lookup-accessor": self._look_accessor_up,
            "auth/token/revoke-accessor": self._revoke_accessor,
            "sys/capabilities-self": _capabilities,
            "sys/capabilities-accessor": _capabilities,
            "sys/leases/lookup": self._look_up,
            "sys/leases/renew": self._renew,
            "sys/leases/revoke": self._revoke,
            "pki/revoke": self._revoke_certificate,
        }
        if path.startswith("sys/leases/lookup/") and path.endswith("?list=true"):
            return self._list(path.removeprefix("sys/leases/lookup/").removesuffix("?list=true"))
        if path not in routes:
            raise Said(403, DENIED)
        return routes[path](body)

    def _list(self, prefix: str) -> tuple[int, Tree]:
        names = [name.removeprefix(f"{prefix}/") for name in self.leases if prefix in name]
        if not names:
            raise Said(404, "")
        return 200, {"data": {"keys": names}}

    def _login(self) -> Tree:
        token = f"s.login{next(self._numbers)}"
        self.logins.add(token)
        return _auth(token, "own", 3600)

    def _create(self, body: Tree) -> tuple[int, Tree]:
        if body.get("policies", ["read"]) != ["read"]:
            raise Said(400, "token policies must be subset of the role's allowed policies")
        number = next(self._numbers)
        self.children[f"accessor{number}"] = f"s.child{number}"
        return 200, {"auth": _auth(f"s.child{number}", f"accessor{number}", 60)}

    def _accessor(self, body: Tree) -> str:
        accessor: str = body["accessor"]
        if accessor not in self.children:
            raise Said(400, "1 error occurred:\n\t* invalid accessor\n\n")
        return accessor

    def _renew_accessor(self, body: Tree) -> tuple[int, Tree]:
        seconds = int(body["increment"].removesuffix("s"))
        return 200, {"auth": _auth("", self._accessor(body), seconds)}

    def _look_accessor_up(self, body: Tree) -> tuple[int, Tree]:
        return 200, {"data": {"accessor": self._accessor(body)}}

    def _revoke_accessor(self, body: Tree) -> tuple[int, Tree]:
        if self.children.pop(body["accessor"], None) is None:
            return 200, {"warnings": ["No token found with this accessor"]}
        for name, lease in list(self.leases.items()):
            if lease.accessor == body["accessor"] and not lease.revoke_error:
                self._end(name)
        return 204, {}

    def _end(self, name: str) -> None:
        if self.busy:
            self.queued.append(name)
        else:
            del self.leases[name]

    def _look_up(self, body: Tree) -> tuple[int, Tree]:
        lease = self.leases.get(body["lease_id"])
        if lease is None:
            raise Said(400, "invalid lease")
        data: Tree = {
            "ttl": lease.lasts_s, "renewable": not lease.revoke_error,
            "issue_time": f"{lease.began:%Y-%m-%dT%H:%M:%S.123456789Z}" if lease.began else "soon",
        }  # fmt: skip
        if lease.revoke_error:
            data["revoke_error"] = lease.revoke_error
        return 200, {"data": data}

    def _renew(self, body: Tree) -> tuple[int, Tree]:
        lease = self.leases.get(body["lease_id"])
        if lease is None:
            raise Said(400, "lease not found")
        if lease.revoke_error:
            raise Said(400, "lease is not renewable")
        lease.lasts_s = body["increment"]
        return 200, {"lease_duration": lease.lasts_s, "renewable": True}

    def _revoke(self, body: Tree) -> tuple[int, Tree]:
        lease = self.leases.get(body["lease_id"])
        if lease is None:
            return 204, {}
        if lease.revoke_error:
            raise Said(400, f"failed to revoke entry: {lease.revoke_error}")
        self._end(body["lease_id"])
        return (202 if self.busy else 204), {}

    def _revoke_certificate(self, body: Tree) -> tuple[int, Tree]:
        self._certificate(body["serial_number"])
        self.certificates[body["serial_number"]] = 1
        return 200, {"data": {"revocation_time": 1}}

    def _certificate(self, serial: str) -> int:
        if serial not in self.certificates:
            raise Said(400, f"certificate with serial {serial} not found.")
        return self.certificates[serial]

    def _engine(self, path: str, token: str, body: Tree) -> Tree:
        accessor = next((key for key, value in self.children.items() if value == token), None)
        if accessor is None:
            raise Said(403, "permission denied")
        number = next(self._numbers)
        match path:
            case "database/creds/orders":
                name, user = f"{path}/lease{number}", f"v-user-{number}"
                self.leases[name] = Lease(accessor, user)
                data = {"username": user, "password": PASSWORD}
                return {"lease_id": name, "lease_duration": 3600, "renewable": True, "data": data}
            case "pki/issue/client":
                self.certificates[str(number)] = 0
                return {"data": {
                    "serial_number": str(number), "expiration": int(time.time()) + 3600,
                    "certificate": PEM.format("CERTIFICATE"),
                    "private_key": PEM.format("EC PRIVATE KEY"), "ca_chain": [],
                }}  # fmt: skip
            case "ssh/sign/client":
                return {"data": {"serial_number": f"{number:x}", "signed_key": _signed(body)}}
            case "secret/data/api":
                return {"data": {"data": {"token": PASSWORD}, "metadata": {}}}
        raise Said(400, "unknown role: none")


def _auth(token: str, accessor: str, seconds: int) -> Tree:
    return {"client_token": token, "accessor": accessor, "lease_duration": seconds,
            "renewable": True, "token_type": "service", "orphan": True}  # fmt: skip


def _signed(body: Tree) -> str:
    """Sign a user's key as an SSH engine does; its role's default user is robot."""
    now_s = int(time.time())
    user = body.get("valid_principals", "robot").encode()
    public = load_ssh_public_key(body["public_key"].encode())
    assert isinstance(public, Ed25519PublicKey)
    made = (
        SSHCertificateBuilder()
        .public_key(public)
        .type(SSHCertificateType.USER)
        .key_id(b"run")
        .valid_principals([user])
        .valid_after(now_s - 30)
        .valid_before(now_s + int(body["ttl"].removesuffix("s")))
        .sign(Ed25519PrivateKey.generate())
    )
    return made.public_bytes().decode() + "\n"


def _capabilities(body: Tree) -> tuple[int, Tree]:
    known = ("database/creds/orders", "pki/issue/client", "secret/data/api", "ssh/sign/client",
             "sys/", "auth/")  # fmt: skip
    return 200, {
        "data": {
            path: ["read", "update"] if path.startswith(known) else ["deny"]
            for path in body["paths"]
        }
    }


class _Server(ThreadingHTTPServer):
    """Serves a fake, each connection in a thread."""

    daemon_threads = True

    def __init__(self, fake: FakeVault) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.fake = fake
        self.over = threading.Event()


class _Request(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer, or fail as told."""
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"{}")
        path = self.path.removeprefix("/v1/")
        fault = self._fault(f"{self.command} {path}")
        status, tree = 200, Tree()
        if fault is None or fault.does:
            try:
                token = self.headers.get("X-Vault-Token", "")
                status, tree = self.server.fake.answer(self.command, path, token, body)
            except Said as said:
                status, tree = said.status, {"errors": list(said.errors)}
        else:
            self.server.fake.asked.append(f"{self.command} {path}")
        content = json.dumps(tree).encode() if tree else b""
        if fault is None:
            self._say(status, content, {})
        else:
            self._fail(fault, content)

    do_POST = do_GET  # noqa: N815

    def _fail(self, fault: Fault, content: bytes) -> None:
        if fault.errors:
            token = self.headers.get("X-Vault-Token", "")
            said = [text.replace("TOKEN", token) for text in fault.errors]
            content = json.dumps({"errors": said}).encode()
        if fault.drip:
            self._drip()
        elif fault.status:
            self._say(fault.status, b"<html>" if fault.html else content, fault.headers)
        self.close_connection = True

    def _fault(self, asked: str) -> Fault | None:
        for part, waiting in self.server.fake.faults.items():
            if part.removeprefix("*") in asked and waiting:
                return waiting[0] if part.startswith("*") else waiting.pop(0)
        return None

    def _say(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.over.wait(0.05):
                self.wfile.write(b" ")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextlib.contextmanager
def fake_vault() -> Iterator[FakeVault]:
    """Run one until the test is done."""
    fake = FakeVault()
    with _Server(fake) as server:
        fake.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield fake
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
