"""`python -m tests.bench.micro_http1`: the Python work of one request in the HTTP/1.1 relay.

No sockets, no policy, no spool: only parsing, the relay's commands, injection and scrubbing. The
best of several rounds is shown: on a shared machine the others measure the neighbours.
"""

import base64
import os
import time
from collections.abc import Callable

from agent.masking.scrubber import Scrubber
from agent.model.ids import OperationId, RuleId, SessionId
from agent.model.secret import Secret
from agent.model.verdict import Allow
from agent.protocols.http1 import SPEC, request, response
from agent.wire.commands import Judge
from agent.wire.events import Data, Judged, Leased, Recorded, Started, UpstreamOpened
from agent.wire.relay import Relay, RelayContext
from agent.wire.side import Side
from tests.conformance.conductor import CANARY, lease, target

ROUNDS = 7
CYCLES = 3000
HEAD = (
    b"GET /repos/acme/orders/issues?state=open&per_page=50 HTTP/1.1\r\n"
    b"Host: api.example.com\r\nUser-Agent: python-requests/2.31.0\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: application/vnd.github+json\r\n"
    b"Connection: keep-alive\r\nX-GitHub-Api-Version: 2022-11-28\r\n"
    b"X-Request-Id: 7b0e3b14-0000-4e0f-b0a5-1f7b1b2f9a51\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"
    b"Cookie: a=b; session=0123456789abcdef\r\n\r\n"
)
BODY = (b'{"id": 12345, "value": "abcdefgh"},' * 32)[:1024]
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 02 Aug 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n"
    b'ETag: "abc-123"\r\nX-RateLimit-Remaining: 4999\r\n\r\n' + BODY
)
ALLOW = Allow(RuleId("loop/0"))


def _relay() -> Relay:
    made = 0

    def new_id() -> OperationId:
        nonlocal made
        made += 1
        return OperationId(f"{made:026d}")

    relay = SPEC.relay(RelayContext(SessionId("S" * 26), target(), new_id))
    relay.handle(Started("api.example.com"), 0)
    return relay


def _cycle(relay: Relay, head: bytes, *, first: bool = False) -> None:
    judge = relay.handle(Data(Side.DOWNSTREAM, head), 0)[-1]
    assert isinstance(judge, Judge)
    operation_id = judge.operation.operation_id
    relay.handle(Judged(operation_id, ALLOW), 0)
    if first:
        relay.handle(Leased(lease()), 0)
        relay.handle(UpstreamOpened("192.0.2.1:443", encrypted=True), 0)
    relay.handle(Recorded(operation_id), 0)
    relay.handle(Data(Side.UPSTREAM, ANSWER), 0)


def _heads(*, distinct: bool) -> list[bytes]:
    """Return heads as the socket gives them: a bytes object each, its hash not yet known."""
    if not distinct:
        return [bytes(bytearray(HEAD)) for _ in range(CYCLES)]
    return [HEAD.replace(b"-0000-", b"-%04d-" % number) for number in range(CYCLES)]


def _best(work: Callable[[], None], count: int) -> float:
    """Return microseconds for one of `count`, of the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best / count * 1e6


def _cycles(*, distinct: bool) -> float:
    relay = _relay()
    _cycle(relay, HEAD, first=True)
    heads = _heads(distinct=distinct)

    def work() -> None:
        for head in heads:
            _cycle(relay, head)

    return _best(work, CYCLES)


def _parses(parse: Callable[[bytes], object], data: bytes) -> float:
    def work() -> None:
        for _ in range(CYCLES):
            parse(data)

    return _best(work, CYCLES)


def _scrubs(data: bytes) -> float:
    stream = Scrubber([Secret(CANARY)]).stream()
    times = max(1, (8 << 20) // len(data))

    def work() -> None:
        for _ in range(times):
            stream.feed(data)

    return len(data) / _best(work, times)


def main() -> None:
    """Measure and print."""
    answer_head = ANSWER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    random_text = base64.b64encode(os.urandom(48 * 1024))
    escaped = (b'{"line": "a\\n100% \\"b\\""},' * 4096)[:65536]
    print(f"whole GET cycle, recurring head    {_cycles(distinct=False):8.1f} µs")
    print(f"whole GET cycle, distinct heads    {_cycles(distinct=True):8.1f} µs")
    asked, answered = _parses(request._parse, HEAD), _parses(response._parse, answer_head)
    print(f"request head, {len(HEAD)} bytes, cold      {asked:8.1f} µs")
    print(f"response head, {len(answer_head)} bytes, cold     {answered:8.1f} µs")
    print(f"scrubber, 64 KiB without escapes   {_scrubs(random_text):8.0f} MB/s")
    print(f"scrubber, 64 KiB full of escapes   {_scrubs(escaped):8.0f} MB/s")
    print(f"scrubber, 1 KiB                    {_scrubs(BODY):8.0f} MB/s")


if __name__ == "__main__":
    main()
