"""Run as a loop: send raw bytes as told on stdin, say what came back. Standard library only.

A line in:  {"address": …, "port": …, "sni": … or null, "data": base64}
A line out: {"outcome": "answered" | "refused", "data": base64}
"""

import base64
import json
import socket
import ssl
import sys
from typing import Any

ANSWER_BYTES_MAX = 65_536
PATIENCE_S = 60.0  # every order has an answer, or an end
QUIET_S = 0.2  # after a head: what comes later is not looked at


def converse(order: dict[str, Any]) -> bytes:
    """Connect, send, and return what comes until the end, or until nothing comes any more.

    Raises:
        OSError: refused, reset, or no TLS.
    """
    with socket.create_connection((order["address"], order["port"]), timeout=PATIENCE_S) as plain:
        sock: socket.socket = plain
        if order["sni"] is not None:
            context = ssl.create_default_context()
            context.check_hostname = False
            sock = context.wrap_socket(plain, server_hostname=str(order["sni"]) or None)
        sock.sendall(base64.b64decode(str(order["data"])))
        received = b""
        try:
            while len(received) < ANSWER_BYTES_MAX and (more := sock.recv(65_536)):
                received += more
                if b"\r\n\r\n" in received:
                    sock.settimeout(QUIET_S)
        except TimeoutError:
            return received
        return received


def main() -> None:
    """Do every order."""
    for line in sys.stdin:
        try:
            answer = {"outcome": "answered", "data": converse(json.loads(line))}
        except OSError as error:
            answer = {"outcome": "refused", "data": str(error).encode()}
        text = base64.b64encode(bytes(answer["data"])).decode()  # type: ignore[arg-type]
        sys.stdout.write(json.dumps({**answer, "data": text}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
