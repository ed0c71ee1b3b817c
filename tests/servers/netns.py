"""Network namespaces for tests: a far host with addresses of its own, or a near one for a loop.

Never `ip netns exec`, which remounts /sys and hides cgroups and bpffs: `nsenter --net` only.
"""

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
SUBNETS = itertools.cycle(range(1, 251))  # 10.203.N.0/24, fd4c:7761:N::/64
NUMBERS = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


def run(*argv: str) -> str:
    """Run a command, return its output; its errors are the test's."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Namespace:
    """A named network namespace with its loopback up."""

    name: str

    @property
    def path(self) -> Path:
        """Its file."""
        return Path("/run/netns", self.name)

    def argv(self, *command: str) -> list[str]:
        """Return the command as run inside."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(self, *command: str) -> str:
        """Run a command inside and return its output."""
        return run(*self.argv(*command))

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function in a thread inside; sockets that it makes stay inside."""
        results: list[Result] = []
        errors: list[BaseException] = []

        def inside() -> None:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                errors.append(error)
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


@contextlib.contextmanager
def namespace(purpose: str) -> Iterator[Namespace]:
    """Make a namespace, and remove it."""
    inside = Namespace(f"lwt-{purpose}-{os.getpid()}-{next(NUMBERS)}")
    run("ip", "netns", "add", inside.name)
    try:
        inside.run("ip", "link", "set", "lo", "up")
        yield inside
    finally:
        run("ip", "netns", "delete", inside.name)


@dataclass(frozen=True, slots=True)
class FarHost:
    """A host of its own behind a veth pair: what runs inside is reached from here, and only so."""

    inside: Namespace
    link: str  # our end's name
    address4: str
    address6: str
    gateway4: str
    gateway6: str


def _link_to(inside: Namespace) -> int:
    """Make a link to a namespace and return its number: one that no other process of tests has."""
    for number in itertools.islice(SUBNETS, 250):
        with contextlib.suppress(RuntimeError):  # the name is the lock
            run("ip", "link", "add", f"lwt{number}", "type", "veth", "peer", "name", "eth0",
                "netns", inside.name)  # fmt: skip
            return number
    raise RuntimeError("250 far hosts are more than there are addresses for")


@contextlib.contextmanager
def far_host() -> Iterator[FarHost]:
    """Make a far host at 10.203.N.2 and fd4c:7761:N::2; we are .1 and ::1."""
    with namespace("far") as inside:
        number = _link_to(inside)
        link, net4, net6 = f"lwt{number}", f"10.203.{number}", f"fd4c:7761:{number:x}:"
        try:
            run("ip", "address", "add", f"{net4}.1/24", "dev", link)
            run("ip", "-6", "address", "add", f"{net6}:1/64", "dev", link, "nodad")
            run("ip", "link", "set", link, "up")
            inside.run("ip", "address", "add", f"{net4}.2/24", "dev", "eth0")
            inside.run("ip", "-6", "address", "add", f"{net6}:2/64", "dev", "eth0", "nodad")
            inside.run("ip", "link", "set", "eth0", "up")
            yield FarHost(inside, link, f"{net4}.2", f"{net6}:2", f"{net4}.1", f"{net6}:1")
        finally:
            run("ip", "link", "delete", link)


def listening(
    address: str, port: int, family: socket.AddressFamily = socket.AF_INET
) -> socket.socket:
    """Return a TCP listener (port 0: any)."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    sock.listen(4096)
    return sock


REDIRECT = """
table inet lwt_redirect {{
  chain out {{
    type nat hook output priority -100; policy accept;
    ip daddr 198.18.0.0/15 meta l4proto tcp redirect to :{port}
    ip6 daddr fd4c:6f6f:7000::/48 meta l4proto tcp redirect to :{port}
  }}
}}
"""


@contextlib.contextmanager
def near_host(proxy_port: int) -> Iterator[Namespace]:
    """Make a namespace where synthetic addresses are redirected to a proxy's port, as on a host."""
    with namespace("near") as inside:
        inside.run("ip", "route", "add", "local", "198.18.0.0/15", "dev", "lo")
        inside.run("ip", "-6", "route", "add", "local", "fd4c:6f6f:7000::/48", "dev", "lo")
        inside.run("sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=1")
        subprocess.run(
            inside.argv("nft", "-f", "-"),
            input=REDIRECT.format(port=proxy_port),
            text=True,
            check=True,
        )
        yield inside
