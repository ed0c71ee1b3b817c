"""Runs inside the far namespace: echo servers, sniffer, one JSON answer a line asked."""

import json
import logging
import queue
import socket
import sys
import threading

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.all import IP, AsyncSniffer, IPv6, Raw  # noqa: E402

NEAR4, NEAR6, FAR4, FAR6 = sys.argv[2:6]
WAIT_S = 120.0  # past this it hangs
NEAR = {NEAR4, NEAR6}
packets: "queue.Queue[object]" = queue.Queue()


def _tcp(family: int, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, 8080))
        server.listen(64)
        while True:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"far")


def _udp(family: int, address: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        while True:
            data, peer = server.recvfrom(2048)
            server.sendto(b"far", peer)
            if len(data) == 0:
                continue


def _seen_until(token: str) -> list[str]:
    seen: list[str] = []
    while True:
        packet = packets.get(timeout=WAIT_S)
        layer = packet.getlayer(IP) or packet.getlayer(IPv6)  # type: ignore[attr-defined]
        if layer is None or layer.src not in NEAR:
            continue
        raw = packet.getlayer(Raw)  # type: ignore[attr-defined]
        if raw is not None and raw.load == b"marker " + token.encode():
            return seen
        if raw is not None and raw.load.startswith(b"marker "):
            continue
        summary = packet.summary()  # type: ignore[attr-defined]
        if "ICMPv6ND" not in summary and "ICMPv6MLReport" not in summary:
            seen.append(summary)


def main() -> None:
    """Serve until stdin ends."""
    for family, address in ((socket.AF_INET, FAR4), (socket.AF_INET6, FAR6)):
        threading.Thread(target=_tcp, args=(family, address), daemon=True).start()
        for port in (53, 443):
            threading.Thread(target=_udp, args=(family, address, port), daemon=True).start()
    sniffer = AsyncSniffer(iface=sys.argv[1], prn=packets.put, store=False)
    started = threading.Event()
    sniffer.kwargs["started_callback"] = started.set
    sniffer.start()
    if not started.wait(WAIT_S):
        raise TimeoutError("the sniffer does not start")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_seen_until(line.strip())) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
