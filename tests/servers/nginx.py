"""A real HTTPS API: nginx that checks a bearer token, with its access log as the oracle."""

import contextlib
import functools
import itertools
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.certificates import Authority
from tests.servers.netns import Namespace

READY_S = 30.0
ANSWER_S = 30.0
LOG = '$request_method $request_uri $status "$http_authorization" "$http_host" $request_length'
LARGE_BYTES = 64 << 20
PORTS_FROM, BLOCKS, BLOCK_PORTS = 20_000, 60, 200  # below the range that the kernel chooses from

TEMPLATE = """
daemon off;
user root;  # the folder is the test's own
worker_processes 1;
error_log {folder}/error.log warn;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  log_format oracle '{log}';
  access_log {folder}/access.log oracle;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  client_body_buffer_size 64k;
  keepalive_requests 1000000;
  default_type application/json;
  types {{ application/json json; application/octet-stream bin; }}
  sendfile on;
  tcp_nodelay on;
  map $http_authorization $granted {{ default 0; "Bearer {token}" 1; }}
  server {{
{listen}
    server_name {name};
    ssl_certificate {folder}/chain.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    if ($granted = 0) {{ return 401 '{{"error":"a bearer token is required"}}'; }}
    location = /echo-headers {{
      return 200 '{{"authorization":"$http_authorization","host":"$http_host"}}';
    }}
    location = /redirect {{ return 302 https://elsewhere.example/; }}
    location /v1/ {{ return 200 '{{"method":"$request_method","path":"$uri"}}'; }}
    location /files/ {{ alias {folder}/files/; }}
    location /slow/ {{ alias {folder}/files/; limit_rate 64k; }}
    location / {{ return 404 '{{"error":"no such resource"}}'; }}
  }}
  server {{ listen unix:{folder}/barrier; access_log off; return 204; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Api:
    """A running API."""

    name: str
    address: str
    tls_port: int
    plain_port: int
    token: str
    folder: Path
    pid: int

    def requests(self) -> list[str]:
        """Return what it served, a line each (see LOG): all that it answered before this call.

        It writes a line after the last byte of the answer. Its one worker process takes a request
        up when the one before is logged, so an answer at the barrier says that all is written.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(ANSWER_S)
            sock.connect(str(self.folder / "barrier"))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if not sock.recv(16).startswith(b"HTTP/1.1 204"):
                raise RuntimeError(f"no answer at the barrier of {self.name}")
        return self.folder.joinpath("access.log").read_text(encoding="utf-8").splitlines()


@contextlib.contextmanager
def nginx_api(
    folder: Path,
    authority: Authority,
    *,
    name: str,
    token: str,
    address: str = "127.0.0.1",
    ports: tuple[int, int] = (0, 0),
    inside: Namespace | None = None,
    certificate_name: str = "",
    files: dict[str, bytes] | None = None,
) -> Iterator[Api]:
    """Run the API at address, HTTPS and HTTP on the two ports (0: free ones), and stop it."""
    tls_port, plain_port = (port or free_port(address) for port in ports)
    identity = authority.identity(certificate_name or name)
    _write(folder, identity.chain_pem, identity.key_pem, files or {})
    host = f"[{address}]" if ":" in address else address
    listen = f"    listen {host}:{tls_port} ssl backlog=4096;\n    listen {host}:{plain_port};"
    text = TEMPLATE.format(folder=folder, log=LOG, token=token, listen=listen, name=name)
    folder.joinpath("nginx.conf").write_text(text, encoding="utf-8")
    command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", "nginx.conf"]
    argv = command if inside is None else inside.argv(*command)
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        if inside is None:
            wait_listening(address, plain_port, process)
        else:
            inside.call(lambda: wait_listening(address, plain_port, process))
        yield Api(name, address, tls_port, plain_port, token, folder, process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=READY_S)


def wait_listening(address: str, port: int, process: subprocess.Popen[str]) -> None:
    """Return when the port answers.

    Raises:
        RuntimeError: the process ended, or does not listen within READY_S.
    """
    for _ in range(int(READY_S / 0.02)):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            if sock.connect_ex((address, port)) == 0:
                return
        if process.poll() is not None:
            break
        select.select([], [], [], 0.02)  # nothing tells when another process listens
    raise RuntimeError(f"{process.args!r} does not listen on {address}:{port}")


def free_port(address: str) -> int:
    """Return a port that is free now, and that neither the kernel nor another part gives away.

    A port that the kernel chose may be chosen again for somebody's connection before the server
    has bound it. These lie below the kernel's range, in a block for each process: the parts of
    the suite are started one after the other, so their numbers fall into different blocks.

    Raises:
        RuntimeError: no port of the block is free.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in itertools.islice(_own_ports(), BLOCK_PORTS):
        with socket.socket(family, socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            return port
    raise RuntimeError(f"no port of {BLOCK_PORTS} is free at {address}")


@functools.cache
def _own_ports() -> Iterator[int]:
    first = PORTS_FROM + os.getpid() % BLOCKS * BLOCK_PORTS
    return itertools.cycle(range(first, first + BLOCK_PORTS))


def _write(folder: Path, chain: bytes, key: bytes, files: dict[str, bytes]) -> None:
    folder.chmod(0o755)  # workers are www-data
    folder.joinpath("chain.pem").write_bytes(chain)
    folder.joinpath("key.pem").write_bytes(key)
    folder.joinpath("key.pem").chmod(0o600)
    folder.joinpath("files").mkdir(exist_ok=True)
    for name, content in files.items():
        folder.joinpath("files", name).write_bytes(content)
