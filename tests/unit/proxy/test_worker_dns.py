"""The loops' resolver in the real worker: UDP, TCP, and what does not keep the bounds."""

import socket
from pathlib import Path

from dnslib import DNSQuestion, DNSRecord

from agent.proxy.resolver import TCP_QUERIES_MAX
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace
from tests.unit.proxy.harness import DNS_PORT, WAIT_S, World, harness, target

QUERY = bytes(DNSRecord(q=DNSQuestion("api.example.com")).pack())


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def test_the_resolver_answers_over_udp_and_tcp(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """One name over both transports; many queries on one TCP connection, cut in pieces."""
    with harness(World(authority, [target()]), near, tmp_path):
        with near.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
            udp.settimeout(WAIT_S)
            udp.sendto(b"no query", ("127.0.0.1", DNS_PORT))
            udp.sendto(QUERY, ("127.0.0.1", DNS_PORT))
            reply = DNSRecord.parse(udp.recv(4096))
            assert [str(record.rdata) for record in reply.rr] == ["198.18.0.1"]
        with near.call(lambda: socket.create_connection(("127.0.0.1", DNS_PORT))) as tcp:
            tcp.settimeout(WAIT_S)
            for piece in (framed(QUERY) + framed(QUERY)[:5], framed(QUERY)[5:]):
                tcp.sendall(piece)
            for _ in range(2):
                size = int.from_bytes(receive(tcp, 2), "big")
                reply = DNSRecord.parse(receive(tcp, size))
                assert [str(record.rdata) for record in reply.rr] == ["198.18.0.1"]


def test_a_tcp_connection_of_the_resolver_is_bounded(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """TCP_QUERIES_MAX are answered on one connection, the next ends it; so does a huge length."""
    with harness(World(authority, [target()]), near, tmp_path):
        with near.call(lambda: socket.create_connection(("127.0.0.1", DNS_PORT))) as tcp:
            tcp.settimeout(WAIT_S)
            for _ in range(TCP_QUERIES_MAX):
                tcp.sendall(framed(QUERY))
                assert receive(tcp, int.from_bytes(receive(tcp, 2), "big"))
            tcp.sendall(framed(QUERY))
            assert receive(tcp, 1) == b""
        with near.call(lambda: socket.create_connection(("127.0.0.1", DNS_PORT))) as tcp:
            tcp.settimeout(WAIT_S)
            tcp.sendall(b"\xff\xff")
            assert receive(tcp, 1) == b""
