"""The servers that are compared, each doing the same work: TLS on both sides, a token injected."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.ipc.endpoint import Endpoint, Received, pair
from agent.ipc.messages import Attributed, Authorize, Durable, Ready, Record, Wire
from agent.ipc.records import pack_event
from agent.model.audit import SessionOpened
from agent.model.flow import Endpoint as Address
from agent.model.grant import Durability
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace, namespace, near_host
from tests.servers.nginx import Api, free_port, nginx_api, wait_listening
from tests.unit.proxy.harness import LOOP, PROXY_PORT, Harness, World, target

NAME = "api.example.com"
TOKEN = "the-token-of-the-lease"
ADDRESS = "198.18.0.1"
MITM_UID = 64000
CORE = "0"  # of the contender; load and upstream have the other


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that wrk can be pointed at."""

    name: str
    address: str
    port: int
    roots: list[int]
    token: bool = False  # the load brings the token itself
    inside: Namespace | None = None
    launch: Callable[[list[str]], list[str]] | None = None  # the load as a loop's command


def pinned(*command: str) -> list[str]:
    """Return the command as run on the contender's core."""
    return ["taskset", "-c", CORE, *command]


@contextlib.contextmanager
def started(
    argv: list[str], address: str, port: int, inside: Namespace | None = None
) -> Iterator[int]:
    """Run a server until the end; yield its pid when it listens."""
    process = subprocess.Popen(
        argv if inside is None else inside.argv(*argv),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if inside is None:
            wait_listening(address, port, process)
        else:
            inside.call(lambda: wait_listening(address, port, process))
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=10)


NGINX = """
daemon off; worker_processes 1; user root;
error_log {folder}/error.log; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000;
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    location / {{
      proxy_pass https://api;
      proxy_http_version 1.1;
      proxy_buffers 16 16k;
      proxy_set_header Connection "";
      proxy_set_header Host {name};
      proxy_set_header Authorization "Bearer {token}";
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {folder}/ca.pem;
      proxy_ssl_name {name}; proxy_ssl_server_name on;
    }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 4096
  nbthread 1
  log {folder}/log.sock local0
defaults
  mode http
  log global
  option httplog
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend in
  bind 127.0.0.1:{port} ssl crt {folder}/both.pem
  http-request deny if {{ path_beg /admin }}
  http-request set-header Authorization "Bearer {token}"
  http-request set-header Host {name}
  default_backend api
backend api
  http-reuse safe
  default-server ssl verify required ca-file {folder}/ca.pem verifyhost {name} sni str({name})
  server api 127.0.0.1:{upstream}
"""

MITM_ADDON = """
import json, re
from mitmproxy import http
DENY = re.compile("^/admin")
LOG = open({log!r}, "a")
class Inject:
    def request(self, flow):
        if DENY.match(flow.request.path):
            flow.response = http.Response.make(403)
            return
        flow.request.headers["Authorization"] = "Bearer {token}"
    def response(self, flow):
        LOG.write(json.dumps([flow.request.method, flow.request.path, flow.response.status_code]))
addons = [Inject()]
"""

MITM_REDIRECT = """
table inet lwt_mitm {{
  chain out {{
    type nat hook output priority -100; policy accept;
    meta skuid != {uid} ip daddr 198.18.0.0/15 tcp dport 443 redirect to :{port}
  }}
}}
"""


def _files(folder: Path, authority: Authority) -> None:
    identity = authority.identity(NAME)
    folder.joinpath("chain.pem").write_bytes(identity.chain_pem)
    folder.joinpath("key.pem").write_bytes(identity.key_pem)
    folder.joinpath("both.pem").write_bytes(identity.chain_pem + identity.key_pem)
    folder.joinpath("ca.pem").write_text(authority.pem, encoding="ascii")


@contextlib.contextmanager
def reverse_nginx(folder: Path, authority: Authority, api: Api) -> Iterator[Contender]:
    """Run nginx as a reverse proxy with an access log."""
    _files(folder, authority)
    port = free_port("127.0.0.1")
    text = NGINX.format(folder=folder, port=port, upstream=api.tls_port, name=NAME, token=TOKEN)
    folder.joinpath("nginx.conf").write_text(text, encoding="ascii")
    argv = pinned("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"))
    with started(argv, "127.0.0.1", port) as pid:
        yield Contender("nginx", "127.0.0.1", port, [pid])


@contextlib.contextmanager
def haproxy(folder: Path, authority: Authority, api: Api) -> Iterator[Contender]:
    """Run HAProxy with an access log (to a socket that nobody reads: not the reader's cost)."""
    _files(folder, authority)
    port = free_port("127.0.0.1")
    text = HAPROXY.format(folder=folder, port=port, upstream=api.tls_port, name=NAME, token=TOKEN)
    folder.joinpath("haproxy.cfg").write_text(text, encoding="ascii")
    argv = pinned("haproxy", "-db", "-f", str(folder / "haproxy.cfg"))
    with started(argv, "127.0.0.1", port) as pid:
        yield Contender("haproxy", "127.0.0.1", port, [pid])


@contextlib.contextmanager
def mitmproxy(folder: Path, authority: Authority, mitmdump: Path) -> Iterator[Contender]:
    """Run mitmproxy in transparent mode, in a namespace with an API of its own."""
    port = 8080
    confdir = folder / "conf"
    confdir.mkdir()
    folder.joinpath("ca.pem").write_text(authority.pem, encoding="ascii")
    addon = folder / "addon.py"
    addon.write_text(MITM_ADDON.format(log=str(folder / "log"), token=TOKEN), encoding="ascii")
    for path in (folder, confdir):
        path.chmod(0o777)
    with namespace("mitm") as inside:
        inside.run("ip", "route", "add", "local", "198.18.0.0/15", "dev", "lo")
        subprocess.run(
            inside.argv("nft", "-f", "-"),
            input=MITM_REDIRECT.format(uid=MITM_UID, port=port),
            text=True,
            check=True,
        )
        api_folder = folder / "api"
        api_folder.mkdir()
        with nginx_api(
            api_folder,
            authority,
            name=NAME,
            token=TOKEN,
            address=ADDRESS,
            ports=(443, 8443),
            inside=inside,
            files=bodies(),
        ):
            argv = ["setpriv", f"--reuid={MITM_UID}", f"--regid={MITM_UID}", "--clear-groups", "--"]
            argv += pinned(str(mitmdump), "-q", "--mode", "transparent")
            argv += ["--listen-host", "127.0.0.1", "--listen-port", str(port), "-s", str(addon)]
            argv += ["--set", f"confdir={confdir}", "--set", "flow_detail=0"]
            argv += ["--set", f"ssl_verify_upstream_trusted_ca={folder / 'ca.pem'}"]
            argv += ["--set", "http2=false"]
            with started(argv, "127.0.0.1", port, inside) as pid:
                yield Contender("mitmproxy", ADDRESS, 443, [pid], inside=inside)


class RecordingHarness(Harness):
    """The worker with the real reporter and a real spool."""

    def __init__(self, world: World, near: Namespace, folder: Path) -> None:
        super().__init__(world, near, folder)
        self.recorder: subprocess.Popen[bytes] | None = None
        self._reporters_kernel: Endpoint | None = None
        self._reporters_broker: Endpoint | None = None
        self._opening: dict[int, Received] = {}  # frame of its SessionOpened → who asks
        self._frames = 0

    def wire_reporter(self) -> None:
        """Start the real reporter, and wire the worker to it."""
        own, theirs = pair()
        state = self._folder / "state"
        state.mkdir()
        for path in (self._folder, state):
            path.chmod(0o755)
        config = self._folder / "reporter.toml"
        config.write_text(f'state_dir = "{state}"\n[users]\nreporter = "65533"\n')
        descriptor = theirs.fileno()
        argv = [sys.executable, "-m", "agent.reporter", "--config", str(config)]
        argv += ["--name", "reporter", "--fd", str(descriptor)]
        self.recorder = subprocess.Popen(pinned(*argv), pass_fds=[descriptor])
        theirs.close()
        self._reporters_kernel = self.call(self._kernel_of_reporter, own)
        self.wait(lambda: any(isinstance(one, Ready) for one in self.messages))
        left, right = pair()
        self._notify(self.kernel, Wire("reporter"), (left.fileno(),))
        self._notify(self._reporters_kernel, Wire("proxy@0"), (right.fileno(),))
        left.close()
        right.close()
        ours, right = pair()
        self._notify(self._reporters_kernel, Wire("broker"), (right.fileno(),))
        right.close()
        self._reporters_broker = self.call(self._broker_of_reporter, ours)

    def _from_proxy_to_broker(self, received: Received) -> None:
        """See Harness: a session is recorded before its worker may begin."""
        if not isinstance(received.message, Authorize) or self._reporters_broker is None:
            super()._from_proxy_to_broker(received)
            return
        attribution = self.sessions[received.message.session_id]
        opened = SessionOpened(attribution, LOOP, self.world.targets[0].name, "proxy@0")
        self._frames += 1
        self._opening[self._frames] = received
        frame = Record((pack_event(opened),), self._frames, Durability.PROCESS)
        self._reporters_broker.notify(frame)

    def _recorded(self, received: Received) -> None:
        if isinstance(received.message, Durable):
            for number in range(min(self._opening, default=1), received.message.durable + 1):
                super()._from_proxy_to_broker(self._opening.pop(number))

    def _broker_of_reporter(self, sock: object) -> Endpoint:
        return Endpoint(
            sock,  # type: ignore[arg-type]
            own="broker",
            peer="reporter",
            receive=self._recorded,
            on_closed=lambda _: None,
        )

    def _attribute(self, mark: int, destination: Address) -> Attributed:
        """See Harness: wrk cannot mark its sockets, so no mark is the run's."""
        return super()._attribute(mark or 1, destination)

    def _kernel_of_reporter(self, sock: object) -> Endpoint:
        return Endpoint(
            sock,  # type: ignore[arg-type]
            own="kernel",
            peer="reporter",
            receive=lambda received: self._note(received.message),
            on_closed=lambda _: None,
        )

    def stop(self) -> None:
        """See Harness."""
        for endpoint in (self._reporters_broker, self._reporters_kernel):
            if endpoint is not None:
                self.call(endpoint.close)
        if self.recorder is not None:
            self.recorder.wait(10)
        super().stop()


@contextlib.contextmanager
def ours(
    folder: Path, authority: Authority, api: Api, durability: Durability
) -> Iterator[Contender]:
    """Run our worker with the real reporter; attribution and grants are the harness's."""
    one = target(dial_port=api.tls_port, ca_pem=authority.pem, durability=durability)
    world = World(authority, [one], token=TOKEN.encode())
    with near_host(PROXY_PORT) as near:
        running = RecordingHarness(world, near, folder)
        try:
            running.start()
            assert running.process is not None
            assert running.recorder is not None
            pids = [running.process.pid, running.recorder.pid]
            subprocess.run(
                ["taskset", "-acp", CORE, str(pids[0])], check=True, stdout=subprocess.DEVNULL
            )
            yield Contender(f"loopwarden {durability}", ADDRESS, 443, pids, inside=near)
        finally:
            running.stop()


def bodies() -> dict[str, bytes]:
    """Return the files that are fetched."""
    return {"1k": b'{"a":"' + b"x" * 1016 + b'"}', "64k": b"\xa5" * 65536}
