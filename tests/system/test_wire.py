"""What no client library sends: malformed requests and destinations that disagree, from a loop.

The oracle is the upstream's own log.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.policy.synthetic import assign
from tests.protocols.http1.malformed import MALFORMED
from tests.system.conftest import API_NAME, TOKEN, Stage
from tests.system.host import DONE_WITHIN_S

SYNTHETIC4, SYNTHETIC6 = assign([API_NAME])[API_NAME]
SENDER = Path(__file__).with_name("sender.py").read_text(encoding="utf-8")
UNUSED_SYNTHETIC = "198.18.77.77"


# what begins like TLS is refused as TLS, by closing
CLEAR = tuple(row for row in MALFORMED if not row[1].startswith(b"\x16"))


@dataclass(slots=True)
class Sender:
    """A loop that sends what it is told."""

    process: subprocess.Popen[str]

    def send(self, data: bytes, address: str, port: int, sni: str | None) -> tuple[str, bytes]:
        """Return "answered" with the bytes, or "refused" with the error's text."""
        text = base64.b64encode(data).decode()
        order = {"address": address, "port": port, "sni": sni, "data": text}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["outcome"], base64.b64decode(answer["data"])


@contextmanager
def sending(whole: Stage) -> Iterator[Sender]:
    """Run the sender as a loop."""
    with subprocess.Popen(
        whole.host.run_command("job", ["/usr/bin/python3", "-c", SENDER]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=whole.host.loop_environment(),
        cwd="/",
    ) as process:
        yield Sender(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(DONE_WITHIN_S)


def test_no_malformed_request_reaches_the_upstream(whole: Stage) -> None:
    """Each of the table's requests (60 and more) gets a 4xx or 5xx; the upstream's log has none."""
    assert len(CLEAR) >= 60
    wrong = []
    with sending(whole) as sender:
        before = whole.site.api.requests()
        for name, data, status in CLEAR:
            ours = data.replace(b"api.example.com", API_NAME.encode())
            outcome, answer = sender.send(ours, SYNTHETIC4, 80, None)
            if outcome != "answered" or not answer.startswith(b"HTTP/1.1 %d " % status):
                wrong.append((name, outcome, answer[:80]))
        after = whole.site.api.requests()
    assert not wrong
    assert after == before


def get(host: str, target: str = "/v1/mismatch") -> bytes:
    """Return a request that names a host."""
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


OTHER = "other.example"
IP = "{far}"
MISMATCHES: tuple[tuple[str, str, int, str | None, bytes], ...] = (
    ("host of another, clear", SYNTHETIC4, 80, None, get(OTHER)),
    ("host of another, TLS", SYNTHETIC4, 443, API_NAME, get(OTHER)),
    ("SNI of another", SYNTHETIC4, 443, OTHER, get(API_NAME)),
    ("SNI and host of another", SYNTHETIC4, 443, OTHER, get(OTHER)),
    ("no SNI", SYNTHETIC4, 443, "", get(API_NAME)),
    ("SNI below the name", SYNTHETIC4, 443, f"x.{API_NAME}", get(API_NAME)),
    ("SNI above the name", SYNTHETIC4, 443, "test.internal", get(API_NAME)),
    ("host below the name", SYNTHETIC4, 80, None, get(f"x.{API_NAME}")),
    ("host above the name", SYNTHETIC4, 80, None, get("test.internal")),
    ("host with another port", SYNTHETIC4, 80, None, get(f"{API_NAME}:8080")),
    ("host with another port, TLS", SYNTHETIC4, 443, API_NAME, get(f"{API_NAME}:8443")),
    ("host is an address", SYNTHETIC4, 80, None, get(SYNTHETIC4)),
    ("host is the dialled address", SYNTHETIC4, 80, None, get(IP)),
    ("absolute form of another", SYNTHETIC4, 80, None, get(API_NAME, f"http://{OTHER}/v1/x")),
    ("absolute form, host of another", SYNTHETIC4, 80, None, get(OTHER, f"http://{API_NAME}/v1/x")),
    ("absolute form with user", SYNTHETIC4, 80, None, get(API_NAME, f"http://u@{API_NAME}/v1/x")),
    ("another synthetic address", UNUSED_SYNTHETIC, 80, None, get(API_NAME)),
    ("another synthetic address, TLS", UNUSED_SYNTHETIC, 443, API_NAME, get(API_NAME)),
    ("a port that is no target's", SYNTHETIC4, 8443, None, get(API_NAME)),
    ("a port that is no target's, TLS", SYNTHETIC4, 8443, API_NAME, get(API_NAME)),
    ("another port, IPv6", SYNTHETIC6, 81, None, get(API_NAME)),
    ("host of another, IPv6", SYNTHETIC6, 80, None, get(OTHER)),
    ("SNI of another, IPv6", SYNTHETIC6, 443, OTHER, get(API_NAME)),
    ("an address of the far host, port of no target", IP, 8081, None, get(API_NAME)),
    ("loopback", "127.0.0.1", 80, None, get(API_NAME)),
    ("the proxy itself", "127.0.0.1", 0, None, get(API_NAME)),
    ("trailing garbage in host", SYNTHETIC4, 80, None, get(f"{API_NAME}.evil")),
    ("two names in host", SYNTHETIC4, 80, None, get(f"{API_NAME},{OTHER}")),
    ("host with user", SYNTHETIC4, 80, None, get(f"user@{API_NAME}")),
    (
        "CONNECT",
        SYNTHETIC4,
        80,
        None,
        f"CONNECT {API_NAME}:443 HTTP/1.1\r\nHost: {API_NAME}\r\n\r\n".encode(),
    ),
)


def test_no_mismatched_destination_reaches_the_upstream(whole: Stage) -> None:
    """Each of at least 24 disagreements of address, SNI and Host is refused; nothing is sent up."""
    assert len(MISMATCHES) >= 24
    far = whole.site.far.address4
    passed = []
    with sending(whole) as sender:
        before = whole.site.api.requests()
        for name, address, port, sni, data in MISMATCHES:
            outcome, answer = sender.send(
                data.replace(IP.encode(), far.encode()),
                address.format(far=far),
                port or whole.host.proxy_port,
                sni,
            )
            if (
                outcome == "answered"
                and not answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
                and answer
            ):
                passed.append((name, answer[:80]))
            assert TOKEN.encode() not in answer
            if "SNI" in name:
                assert answer.startswith(b"HTTP/1.1 421 "), name
        after = whole.site.api.requests()
        good, answer = sender.send(get(API_NAME, "/v1/control"), SYNTHETIC4, 80, None)
    assert not passed
    assert after == before
    assert good == "answered"
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("address", ["{far}", "::ffff:{far}"])
def test_the_policys_own_address_names_the_target(whole: Stage, address: str) -> None:
    """A loop that knows the address the policy dials may use it; Host and SNI must agree."""
    at = address.format(far=whole.site.far.address4)
    with sending(whole) as sender:
        outcome, answer = sender.send(get(API_NAME), at, 443, API_NAME)
    assert outcome == "answered", answer
    assert answer.startswith(b"HTTP/1.1 200 ")
