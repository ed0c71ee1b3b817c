"""Every way out, watched at the far end: proxied or denied, and 0 packets of a run arrive."""

import socket
import threading

import pytest

from agent.model.flow import Endpoint
from tests.kernel.bench import WAIT_S, Bench, go, line
from tests.kernel.farside import FAR4, FAR6, NEAR4, FarSide
from tests.system import claimed

FAMILIES = {
    "tcp4": ("socket.socket()", FAR4, FAR4),
    "tcp6": ("socket.socket(socket.AF_INET6)", FAR6, FAR6),
    "tcp-mapped": ("socket.socket(socket.AF_INET6)", f"::ffff:{FAR4}", FAR4),
}
TCP = """
s = SOCKET; s.settimeout(60); s.connect((sys.argv[1], 8080)); print(s.recv(10).decode())
s.recv(1); s.close()  # to the end: then nothing of ours is sent later
"""
# (what, code, errno expected as printed)
DENIED = {
    "udp-connect": (
        "s=socket.socket(type=2);print(s.connect_ex((F4,443)))",
        "111",  # ECONNREFUSED: QUIC clients fall back at once
    ),
    "udp-sendto": ("s=socket.socket(type=2);T(lambda: s.sendto(b'x',(F4,443)))", "1"),
    "udp-sendto-other-port": ("s=socket.socket(type=2);T(lambda: s.sendto(b'x',(F4,9)))", "1"),
    "udp6-sendto": ("s=socket.socket(10,2);T(lambda: s.sendto(b'x',(F6,443)))", "1"),
    "udp6-connect": ("s=socket.socket(10,2);print(s.connect_ex((F6,443)))", "111"),
    "udp-mapped-sendto": (
        "s=socket.socket(10,2);T(lambda: s.sendto(b'x',('::ffff:'+F4,443)))",
        "1",
    ),
    "udp-mapped-connect": ("s=socket.socket(10,2);print(s.connect_ex(('::ffff:'+F4,443)))", "111"),
    "udp-multicast": (
        "s=socket.socket(type=2);T(lambda: s.sendto(b'x',('224.0.0.251',5353)))",
        "1",
    ),
    "udp-dns-then-elsewhere": (
        "s=socket.socket(type=2);s.connect((F4,53));T(lambda: s.sendto(b'x',(F4,443)))",
        "1",
    ),
    "raw-icmp": ("T(lambda: socket.socket(2,3,1))", "1"),
    "raw-hdrincl": ("T(lambda: socket.socket(2,3,255))", "1"),
    "raw6": ("T(lambda: socket.socket(10,3,58))", "1"),
    "udplite": ("T(lambda: socket.socket(2,2,136))", "1"),
    "mptcp": ("T(lambda: socket.socket(2,1,262))", "1"),
    "so-mark": ("s=socket.socket();T(lambda: s.setsockopt(1,36,7))", "1"),
    "so-bindtodevice": ("s=socket.socket();T(lambda: s.setsockopt(1,25,b'lo'))", "1"),
    "ip-transparent": ("s=socket.socket();T(lambda: s.setsockopt(0,19,1))", "1"),
}
PRELUDE = f"""
F4 = {FAR4!r}; F6 = {FAR6!r}
def T(call):
    try: call(); print(0)
    except OSError as error: print(error.errno)
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_is_proxied(bench: Bench, far: FarSide, family: str) -> None:
    """A run's connect arrives at the proxy, with the destination in canonical form.

    No packet of it reaches the far end, which a bystander reaches itself.
    """
    make, dial, canonical = FAMILIES[family]
    code = TCP.replace("SOCKET", make)
    far.take()
    child = bench.python(bench.run(), code, dial)
    arrived = bench.arrive()
    assert arrived.attributed().destination == Endpoint(canonical, 8080)
    arrived.sock.sendall(b"proxy")
    arrived.sock.close()
    out, _ = child.communicate(timeout=WAIT_S)
    assert out == b"proxy\n"
    assert far.take() == []
    assert bench.output(None, code, dial) == "far"
    assert far.take()


@pytest.mark.parametrize("way", DENIED)
def test_everything_else_is_denied(bench: Bench, far: FarSide, way: str) -> None:
    """Each is refused with the errno that lets clients give up at once; nothing arrives."""
    code, expected = DENIED[way]
    far.take()
    assert bench.output(bench.run(), PRELUDE + code) == expected
    assert far.take() == []
    assert bench.nothing_arrives()


def test_tfo_is_proxied(bench: Bench, far: FarSide) -> None:
    """TCP Fast Open's sendto is a connect like any other."""
    code = PRELUDE + "s=socket.socket();s.sendto(b'hello',0x20000000,(F4,8080));print(s.recv(5))"
    far.take()
    child = bench.python(bench.run(), code)
    arrived = bench.arrive()
    assert arrived.attributed().destination == Endpoint(FAR4, 8080)
    assert arrived.sock.recv(5) == b"hello"
    arrived.sock.sendall(b"proxy")
    assert child.wait(WAIT_S) == 0
    assert far.take() == []


@pytest.mark.parametrize(
    ("make", "server", "resolver"),
    [
        ("socket.socket(type=2)", FAR4, "127.0.0.1"),
        ("socket.socket(10,2)", FAR6, "::1"),
        ("socket.socket(10,2)", f"::ffff:{FAR4}", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("connected", [True, False])
def test_dns_goes_to_our_resolver(
    bench: Bench, far: FarSide, make: str, server: str, resolver: str, *, connected: bool
) -> None:
    """A query to a foreign server is answered by ours, under the asked server's name."""
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours:
        ours.bind((resolver, bench.plane.config.dns_port))
        ours.settimeout(WAIT_S)

        def answer() -> None:
            query, peer = ours.recvfrom(512)
            ours.sendto(b"answer to " + query, peer)

        thread = threading.Thread(target=answer)
        thread.start()
        send = "s.connect((A,53));s.send(b'q')" if connected else "s.sendto(b'q',(A,53))"
        code = (
            f"s={make};s.settimeout(60);A=sys.argv[1];{send};d,p=s.recvfrom(99);print(d,p[0],p[1])"
        )
        far.take()
        out = bench.output(bench.run(), code, server)
        thread.join(WAIT_S)
    if connected:
        assert out.startswith("b'answer to q'")
    else:
        assert out == f"b'answer to q' {server} 53"
    assert far.take() == []


@pytest.mark.parametrize("family", FAMILIES)
def test_dns_over_tcp_goes_to_our_resolver(bench: Bench, far: FarSide, family: str) -> None:
    """TCP to port 53 arrives at the resolver's TCP port, without a mark."""
    make, server, canonical = FAMILIES[family]
    v6 = ":" in canonical
    address, kind = ("::1", socket.AF_INET6) if v6 else ("127.0.0.1", socket.AF_INET)
    with socket.create_server((address, bench.plane.config.dns_port), family=kind) as ours:
        ours.settimeout(WAIT_S)
        far.take()
        code = f"s={make};s.settimeout(60);s.connect((sys.argv[1],53));print(s.recv(9).decode())"
        child = bench.python(bench.run(), code, server)
        sock, _ = ours.accept()
        with sock:
            sock.sendall(b"resolver")
        out, _ = child.communicate(timeout=WAIT_S)
    assert out == b"resolver\n"
    assert far.take() == []


def test_a_listener_of_a_run_is_not_reached_from_outside(bench: Bench, far: FarSide) -> None:
    """A SYN from the far side is dropped before a run's listener; a bystander's is reached."""
    code = """
l = socket.create_server(('0.0.0.0', int(sys.argv[1]))); l.setblocking(False)
print('up', flush=True); sys.stdin.readline()
try: l.accept(); print('reached')
except BlockingIOError: print('silent')
"""
    port = claimed.port_pair()
    for place, number, expected in ((bench.run(), port, "silent"), (None, port + 1, "reached")):
        child = bench.python(place, code, str(number))
        assert line(child) == b"up"
        # the bystander's is answered in any case: how long that takes says nothing
        assert far.dial(NEAR4, number, 0.3 if expected == "silent" else WAIT_S) is (
            expected == "reached"
        )
        go(child)
        assert line(child) == expected.encode()
        child.wait(WAIT_S)
