"""`python -m tests.bench.micro_session`: one session's Python work a request, without sockets.

The relay, driver, recorder and both TLS engines are the real ones; the transports only take bytes.
"""

import argparse
import asyncio
import cProfile
import pstats
import ssl
import time
from typing import Any, cast

import msgspec

from agent.ipc.endpoint import Endpoint
from agent.ipc.messages import Durable, Record
from agent.model.credential import Bearer
from agent.model.flow import Attribution, Evidence, Process, Tier
from agent.model.flow import Endpoint as Address
from agent.model.grant import Grant
from agent.model.ids import CgroupId, LeaseId, LoopName, RunId, SessionId, Tag, TargetName
from agent.model.lease import Lease
from agent.model.secret import Secret
from agent.proxy.channel import NOBODY, Channel
from agent.proxy.driver import Driver
from agent.proxy.greeting import new_operation_id
from agent.proxy.pool import Pool, PoolKey, Upstream
from agent.proxy.recorder import Recorder
from agent.proxy.relays import SPECS
from agent.proxy.secure import SecureChannel
from agent.proxy.services import Services
from agent.proxy.session import Session, State
from agent.proxy.sessions import Sessions
from agent.runtime.clock import fresh_ulid, monotonic_ns
from agent.wire.relay import RelayContext
from agent.wire.side import Side
from agent.wire.tls import TlsEngine
from tests.servers.certificates import Authority
from tests.servers.scripted import server_context
from tests.unit.proxy.harness import allow_all, target

REQUEST = b"GET /files/1k HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\n"
    b'Content-Type: application/json\r\nContent-Length: 1024\r\nETag: "6a-400"\r\n'
    b"Accept-Ranges: bytes\r\nConnection: keep-alive\r\n\r\n" + b"x" * 1024
)


class Sink:
    """A transport that only keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        """Keep."""
        self.written = self.written + data if self.written else data

    def set_write_buffer_limits(self, **_: int) -> None:
        """Nothing is buffered."""

    def take(self) -> bytes:
        """Return and forget what was written."""
        data, self.written = self.written, b""
        return data


class Instant:
    """A reporter that has everything at once."""

    def __init__(self) -> None:
        self.encoder = msgspec.msgpack.Encoder()
        self.recorder: Recorder | None = None
        self.last = 0

    def notify(self, message: Record) -> None:
        """Encode as an endpoint does, and acknowledge in a moment."""
        self.encoder.encode((0, False, message))
        self.last = message.durable


class Bench:
    """One session between two in-memory TLS peers."""

    def __init__(self) -> None:
        authority = Authority()
        self.reporter = Instant()
        self.recorder = Recorder(lambda _: None)
        self.recorder.wired(cast("Endpoint", self.reporter))
        services = Services(
            cast("Any", None), self.recorder, Sessions(lambda *_: None), Pool(),
            cast("Any", None), cast("Any", None), cast("Any", None), cast("Any", None),
        )  # fmt: skip
        one = target(ca_pem=authority.pem)
        run_id, session_id = RunId(fresh_ulid()), SessionId(fresh_ulid())
        process = Process(1, 1, 1, "curl", "/usr/bin/curl", ("curl",), False)
        attribution = Attribution(
            session_id, run_id, Tag(1), CgroupId(1), Evidence.TAG_AND_CGROUP, Tier.LAUNCHED,
            Address("198.18.0.1", 443), 1, 1, 1, process, (),
        )  # fmt: skip
        grant = Grant(run_id, LoopName("nightly"), one, "revision", (allow_all(),), 0)
        session = Session(attribution, LoopName("nightly"), grant, monotonic_ns())
        session.become(State.AUTHORIZED)
        context = server_context(authority.identity("api.example.com"))
        client = ssl.create_default_context(cadata=authority.pem)
        self.down_sink, self.up_sink = Sink(), Sink()
        self.down = SecureChannel(Side.DOWNSTREAM, NOBODY, TlsEngine(context), lambda: None)
        self.loop_end = TlsEngine(client, server_hostname="api.example.com")
        self.up = SecureChannel(
            Side.UPSTREAM,
            NOBODY,
            TlsEngine(client, server_hostname="api.example.com"),
            lambda: None,
        )
        self.server_end = TlsEngine(context)
        self._handshakes()
        relay = SPECS["http"].relay(RelayContext(session_id, one, new_operation_id))
        self.driver = Driver(services, session, relay, cast("Channel", self.down), ("http/1.1",))
        self.driver._lease = Lease(
            LeaseId(fresh_ulid()), run_id, TargetName("api"),
            Bearer(Secret(b"the-token-of-the-lease")), 0, False,
        )  # fmt: skip
        services.pool.give(
            PoolKey(run_id, self.driver._lease.lease_id, one.name, "revision"),
            Upstream(self.up, "127.0.0.1:443"),
        )

    def _handshakes(self) -> None:
        self.down.adopt(cast("asyncio.Transport", self.down_sink))
        self.up.adopt(cast("asyncio.Transport", self.up_sink))
        data = self.loop_end.start()
        while data:
            self.down.data_received(data)
            self.loop_end.feed(self.down_sink.take())
            data = self.loop_end.outgoing()
        while data := self.up_sink.take():
            self.server_end.feed(data)
            if out := self.server_end.outgoing():
                self.up.data_received(out)

    async def request(self) -> None:
        """One request and its answer, as the event loop would bring them."""
        self.down.data_received(self.request_bytes)
        self.recorder.flush()
        self.recorder.durable(Durable(self.reporter.last))
        self.up_sink.take()
        self.up.data_received(self.response_bytes)
        self.down_sink.take()

    async def run(self, count: int) -> float:
        """Return seconds for so many requests (TLS of the far ends not counted)."""
        spent = 0.0
        for _ in range(count):
            self.request_bytes = self.loop_end.write(REQUEST)
            self.response_bytes = self.server_end.write(RESPONSE)
            start = time.perf_counter()
            await self.request()
            spent += time.perf_counter() - start
        return spent


async def bench(count: int, *, profile: bool) -> None:
    """Run and print."""
    one = Bench()
    lease = one.driver._lease
    one.driver.start("api.example.com", b"")
    setattr(one.driver, "_request_lease", lambda _: _leased(one.driver, lease))  # noqa: B010
    one.request_bytes, one.response_bytes = one.loop_end.write(REQUEST), b""
    one.down.data_received(one.request_bytes)
    for _ in range(3):
        await asyncio.sleep(0)
    one.recorder.flush()
    one.recorder.durable(Durable(one.reporter.last))
    one.up.data_received(one.server_end.write(RESPONSE))
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    batches = [await one.run(count // 100) for _ in range(100)]
    if profiler:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
    assert one.driver.session.operations == count + 1, one.driver.session
    best, middle = min(batches), sorted(batches)[50]
    print(f"{best * 100e6 / count:.1f} us a request at best, {middle * 100e6 / count:.1f} median")


async def _leased(driver: Driver, lease: Lease | None) -> None:
    from agent.wire.events import Leased

    assert lease is not None
    driver._feed(Leased(lease))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(bench(arguments.count, profile=arguments.profile))
