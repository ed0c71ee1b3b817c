"""Each way out, from inside a real run, judged at the far end and not only by errno."""

import pytest

from tests.escape.conftest import Loop
from tests.escape.ways import WAYS
from tests.kernel.farside import FAR4, FarSide
from tests.system.host import Host


@pytest.mark.parametrize("way", WAYS)
def test_no_packet_leaves(inside: Loop, host: Host, far: FarSide, way: str) -> None:
    """The way is proxied or refused, and no packet of it is seen at the far end."""
    tried = WAYS[way]
    far.take()
    said = inside.try_(tried.code, proxy_port=host.proxy_port)
    assert said in tried.held
    assert far.take() == []


def test_the_far_end_sees_who_is_no_run(host: Host, far: FarSide) -> None:
    """The control: a bystander's connection and datagram are seen, so the sniffer is no wall."""
    code = (
        f"import socket;s=socket.create_connection(({FAR4!r},8080),60);print(s.recv(9));"
        f"socket.socket(2,2).sendto(b'out',({FAR4!r},443))"
    )
    far.take()
    done = host.bystander(["/usr/bin/python3", "-I", "-S", "-c", code])
    assert done.stdout == "b'far'\n", done.stderr
    assert len(far.take()) >= 2


def test_a_foreign_name_server_is_ours(inside: Loop, far: FarSide) -> None:
    """A query to a foreign server, by UDP or TCP, has no answer but ours, and stays here."""
    query = (
        "q=b'\\x12\\x34\\x01\\x00\\x00\\x01'+bytes(6)+b'\\x05leaky\\x04test\\x00\\x00\\x01\\x00\\x01'\n"
        "s=socket.socket(2,2); s.settimeout(60); s.sendto(q,(F4,53)); d,p=s.recvfrom(512)\n"
        "print(d[:2]==q[:2], d[3]&15, p==(F4,53))"
    )
    far.take()
    assert inside.try_(query) == "True 3 True"  # NXDOMAIN
    over_tcp = (
        query.splitlines()[0] + "\ns=socket.create_connection((F4,53),60);"
        "s.sendall(struct.pack('!H',len(q))+q); d=s.recv(512)[2:]; print(d[:2]==q[:2], d[3]&15)"
    )
    assert inside.try_(over_tcp) == "True 3"
    assert far.take() == []
