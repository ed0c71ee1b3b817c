"""The far end: a network namespace behind a veth pair, echo servers, and a scapy sniffer in it."""

import contextlib
import json
import secrets
import socket
import subprocess
import sys
from pathlib import Path

from tests.system import claimed

HERE = Path(__file__).parent
# Another process may run these tests at the same time: addresses are of this process alone
# (10.203.0.0/16 has the far hosts of tests.servers.netns).
_ONE, _TWO = 204, claimed.network()
NEAR4, FAR4 = f"10.{_ONE}.{_TWO}.1", f"10.{_ONE}.{_TWO}.2"
NEAR6, FAR6 = f"fd77:{_ONE:x}:{_TWO:x}::1", f"fd77:{_ONE:x}:{_TWO:x}::2"
SIDES = (NEAR4, NEAR6, FAR4, FAR6)
# the host's kernel tells who has its address, whenever it is asked: no packet of a run
OUR_OWN_NEIGHBOUR = (
    f"Ether / IPv6 / ICMPv6 Neighbor Discovery - Neighbor Advertisement (tgt: {NEAR6})"
)


def _sh(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


class FarSide:
    """Packets that a run's sockets send to FAR4 or FAR6 would be seen here, and only here."""

    def __init__(self, name: str, child: subprocess.Popen[str]) -> None:
        self.name = name
        self._child = child

    @classmethod
    def create(cls) -> "FarSide":
        """Make namespace, veth pair, servers and sniffer; return when they answer."""
        name = "lwt" + secrets.token_hex(3)
        _sh("ip", "netns", "add", name)
        try:
            _sh("ip", "link", "add", f"{name}a", "type", "veth", "peer", f"{name}b", "netns", name)
            _sh("ip", "addr", "add", f"{NEAR4}/30", "dev", f"{name}a")
            _sh("ip", "addr", "add", f"{NEAR6}/64", "dev", f"{name}a", "nodad")
            _sh("ip", "link", "set", f"{name}a", "up")
            inside = ("nsenter", f"--net=/run/netns/{name}")
            _sh(*inside, "ip", "addr", "add", f"{FAR4}/30", "dev", f"{name}b")
            _sh(*inside, "ip", "addr", "add", f"{FAR6}/64", "dev", f"{name}b", "nodad")
            _sh(*inside, "ip", "link", "set", "lo", "up")
            _sh(*inside, "ip", "link", "set", f"{name}b", "up")
            child = subprocess.Popen(
                [*inside, sys.executable, str(HERE / "farside_main.py"), f"{name}b", *SIDES],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            far = cls(name, child)
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        except BaseException:
            subprocess.run(["ip", "netns", "del", name], check=True)
            raise
        return far

    def take(self) -> list[str]:
        """Return summaries of the packets seen from our address since the last call.

        A marker datagram from this (ungoverned) process flushes the sniffer's queue first.
        """
        token = secrets.token_hex(8)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"marker " + token.encode(), (FAR4, 9))
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(token + "\n")
        self._child.stdin.flush()
        seen: list[str] = json.loads(self._child.stdout.readline())
        return [summary for summary in seen if summary != OUR_OWN_NEIGHBOUR]

    def dial(self, address: str, port: int, for_s: float) -> bool:
        """Dial us from the far side; return whether it was answered in so many seconds."""
        code = (
            "import socket,sys;s=socket.socket();s.settimeout(float(sys.argv[3]));"
            "print(s.connect_ex((sys.argv[1],int(sys.argv[2]))))"
        )
        inside = ("nsenter", f"--net=/run/netns/{self.name}")
        line = [*inside, sys.executable, "-I", "-S", "-c", code, address, str(port), str(for_s)]
        said = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        return said == "0\n"

    def close(self) -> None:
        """Remove everything."""
        self._child.kill()
        self._child.wait()
        _sh("ip", "netns", "del", self.name)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        # it goes with the namespace, now or in a moment
        subprocess.run(["ip", "link", "del", f"{self.name}a"], check=False, capture_output=True)
