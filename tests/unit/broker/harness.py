"""The real broker in this process, with a small kernel, reporter and worker on real pairs.

The fake kernel keeps runs in a dictionary and says what the real one says on the same messages;
it has no BPF. It is used where the broker's own behaviour is the claim; the system tests have the
real one.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent.broker.control import Control, Reply, Request, decode_reply, encode
from agent.broker.main import Broker, Prepared
from agent.broker.server import listen
from agent.config.daemon import Daemon
from agent.ipc import messages as m
from agent.ipc.endpoint import Endpoint, Received, pair
from agent.ipc.records import unpack_event
from agent.model.audit import AuditEvent
from agent.model.flow import Attribution, Evidence, Process, Tier
from agent.model.flow import Endpoint as Destination
from agent.model.ids import CgroupId, RunId, SessionId, Tag
from agent.model.loop import Run
from agent.model.reason import Reason
from agent.runtime import clock

PROCESS = Process(4242, 77, 1000, "curl", "/usr/bin/curl", ("curl", "https://api"), False)
Kind = TypeVar("Kind", bound=Control)
Value = TypeVar("Value")
SOON_S = 60.0  # a guard against hanging; nothing here takes so long

POLICY = """
targets:
  api:
    protocol: http
    address: https://api.example.com
    credential: {{provider: static, file: {secret}, shape: bearer}}
  open:
    protocol: http
    address: http://open.example.com
loops:
  nightly:
    who: [{{uid: {uid}}}]
    rules:
      - {{target: api, allow: {{method: GET, path: /v1/**}}}}
      - {{target: open, allow: {{method: GET, path: /**}}}}
  other:
    rules:
      - {{target: open, allow: {{method: GET, path: /**}}}}
"""


class FakeKernel:
    """Answers as kernel does; `calls` has every message in order."""

    def __init__(self) -> None:
        self.runs: dict[RunId, Run] = {}
        self.calls: list[m.Message] = []
        self.refuse: dict[type[m.Message], str] = {}
        self.admitted: list[RunId] = []
        self.killed: list[RunId] = []
        self.layers: tuple[m.Layer, ...] = (m.Layer("egress guard", True, True, ""),)
        self.changed = asyncio.Event()

    def receive(self, received: Received) -> None:
        """Answer one message."""
        message = received.message
        self.calls.append(message)
        refusal = self.refuse.get(type(message))
        if refusal is not None:
            received.reply(m.Failed(Reason.INTERNAL, refusal))
        else:
            received.reply(self._answer(message))
        received.close_fds()
        self.changed.set()

    def _answer(self, message: m.Message) -> m.Message:
        match message:
            case m.CreateRun(run_id, loop, initiator, argv, started_ms):
                path, tier, adopt = f"/lw.slice/run-{run_id}", Tier.LAUNCHED, False
                run = Run(run_id, loop, Tag(7), CgroupId(9), path, tier, adopt, initiator, argv,
                          started_ms)  # fmt: skip
            case m.RegisterCgroup(run_id, loop, initiator, path, adopt, started_ms):
                run = Run(run_id, loop, Tag(7), CgroupId(9), path, Tier.REGISTERED, adopt,
                          initiator, (), started_ms)  # fmt: skip
            case m.Admit(run_id):
                self.admitted.append(run_id)
                return m.Done()
            case m.RevokeRun(run_id, kill):
                if kill:
                    self.killed.append(run_id)
                return m.Done()
            case m.RemoveRun(run_id):
                self.runs.pop(run_id, None)
                return m.Done()
            case m.ListRuns():
                return m.Runs(tuple(self.runs.values()))
            case m.RunTree():
                return m.Processes((PROCESS,), (1,))
            case m.Probe() | m.KernelStatus():
                return m.Layers(self.layers, {"denied": 3})
            case _:
                raise AssertionError(f"unexpected {message!r}")
        self.runs[run.run_id] = run
        return m.RunCreated(run)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until something holds; each message is an occasion to look."""
        async with asyncio.timeout(SOON_S):
            while not done():
                self.changed.clear()
                await self.changed.wait()


class FakeReporter:
    """Keeps events, and confirms them while `confirms` is set."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.numbers: list[int] = []  # of the frames
        self.levels: list[str] = []
        self.confirms = True
        self.uplink = ""  # why the collector is not connected
        self.changed = asyncio.Event()
        self.endpoint: Endpoint | None = None

    def receive(self, received: Received) -> None:
        """Take a record, or say how the spool is."""
        assert self.endpoint is not None
        match received.message:
            case m.Record(events, durable, level):
                self.numbers.append(durable)
                self.levels.append(level)
                self.events += [unpack_event(kind, body) for kind, body in events]
                if self.confirms and durable:
                    self.endpoint.notify(m.Durable(durable))
            case m.ReporterStatus():
                received.reply(
                    m.ReporterState(True, self.uplink, 0, 1 << 30, 5, 4, "collector:1", False)
                )
        self.changed.set()

    def of(self, kind: type[Value]) -> list[Value]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(SOON_S):
            while not done():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Worker:
    """One proxy's end of its pair with the broker."""

    endpoint: Endpoint | None = None
    notices: list[m.Message] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def receive(self, received: Received) -> None:
        """Keep what the broker says."""
        self.notices.append(received.message)
        self.changed.set()

    async def ask(self, message: m.Message) -> m.Message:
        """Return the broker's answer, Failed too."""
        assert self.endpoint is not None
        return await self.endpoint.request(message, m.Message)

    async def until_notice(self, kind: type[Value]) -> Value:
        """Return the next notice of a kind."""
        async with asyncio.timeout(SOON_S):
            while True:
                for notice in self.notices:
                    if isinstance(notice, kind):
                        self.notices.remove(notice)
                        return notice
                self.changed.clear()
                await self.changed.wait()


class Caller:
    """One connection to the control socket, as the CLI's; the peer is this process."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(str(path))
        self.sock.setblocking(False)

    async def ask(self, request: Request, *fds: int) -> Reply:
        """Return the reply."""
        self.send(encode(request), *fds)
        return await self.reply()

    def send(self, frame: bytes, *fds: int) -> None:
        """Send any bytes."""
        socket.send_fds(self.sock, [frame], fds)

    async def reply(self) -> Reply:
        """Return the next reply; ConnectionError when there is none."""
        async with asyncio.timeout(SOON_S):
            frame = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
        if not frame:
            raise ConnectionError
        reply: Reply = decode_reply(frame)
        return reply

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


class Host:
    """Everything wired. Use `async with host(tmp_path)`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.config = Daemon(
            policy_dir=str(base / "policy.d"),
            state_dir=str(base / "state"),
            run_dir=str(base / "run"),
        )
        self.kernel = FakeKernel()
        self.reporter = FakeReporter()
        self.worker = Worker()
        self.broker = Broker(self.config, "broker")
        self.endpoints: list[Endpoint] = []
        self.secret = base / "secret"
        self._callers: list[Caller] = []

    def write(self, policy: str, name: str = "test.yaml") -> None:
        """Write a policy file."""
        text = policy.format(secret=self.secret, uid=os.getuid()) if "{{" in policy else policy
        (self.base / "policy.d" / name).write_text(text)

    async def start(self, policy: str = POLICY) -> None:
        """Make the files, then start the broker as its process does."""
        for path in (self.config.policy_dir, self.config.run_dir, self.config.broker_dir):
            os.makedirs(path, mode=0o755, exist_ok=True)
        self.secret.write_text("s3cr3t-canary\n")
        self.secret.chmod(0o600)
        self.write(policy)
        await self.start_broker()

    async def start_broker(self) -> None:
        """Start a broker, or the successor of one that died."""
        Prepared.sock = listen(str(self.config.control_socket), 0o666, -1)
        self.broker = Broker(self.config, "broker")
        theirs, ours = pair()
        self.kernel_end = self._endpoint(theirs, "kernel", "broker", self.kernel.receive)
        kernel = self._endpoint(ours, "broker", "kernel", self.broker.receive)
        await self.broker.start(kernel)

    def wire_reporter(self) -> None:
        """Give the broker a reporter."""
        theirs, ours = pair()
        self.reporter.endpoint = self._endpoint(theirs, "reporter", "broker", self.reporter.receive)
        self.broker.wired("reporter", ours)

    def wire_worker(self) -> None:
        """Give the broker a worker."""
        theirs, ours = pair()
        self.worker.endpoint = self._endpoint(theirs, "proxy@0", "broker", self.worker.receive)
        self.broker.wired("proxy@0", ours)

    def another_worker(self, name: str, answer: m.Message) -> Worker:
        """Give the broker one more worker, which gives this answer to every request."""
        worker = Worker()

        def receive(received: Received) -> None:
            if not isinstance(received.message, m.PolicyNames):
                worker.receive(received)
                received.reply(answer)

        theirs, ours = pair()
        worker.endpoint = self._endpoint(theirs, name, "broker", receive)
        self.broker.wired(name, ours)
        return worker

    def caller(self) -> Caller:
        """Return a new control connection."""
        caller = Caller(self.config.control_socket)
        self._callers.append(caller)
        return caller

    def session(self, run_id: RunId, address: str, port: int = 443, **changes: Any) -> SessionId:
        """Announce a flow of the run to the broker, as kernel does."""
        attribution = Attribution(
            SessionId(clock.fresh_ulid()),
            run_id,
            Tag(7),
            CgroupId(9),
            Evidence.TAG_AND_CGROUP,
            Tier.LAUNCHED,
            Destination(address, port),
            11,
            1,
            5,
            PROCESS,
            (),
        )
        attribution = replace(attribution, **changes)
        self.kernel_end.notify(m.SessionBegan("proxy@0", attribution))
        return attribution.session_id

    @property
    def synthetic(self) -> dict[str, tuple[str, str]]:
        """The broker's synthetic addresses."""
        return self.broker.parts.policies.synthetic

    async def kill_broker(self) -> None:
        """Take the broker's ends away, as its death does."""
        if self.broker._server is not None:
            self.broker._server.close()
        parts = self.broker._parts
        if parts is not None:
            parts.leases.close()  # a dead broker writes no more
            tasks = [task for _, task in parts.leases._keepers.values()]
            if tasks:
                await asyncio.wait(tasks)
            parts.leases._journal.close()
            for live in parts.loops.live.values():
                if live.timer is not None:
                    live.timer.cancel()
        elif Prepared.sock is not None:
            Prepared.sock.close()
        for endpoint in (*self.endpoints, *(parts.workers.values() if parts else ())):
            endpoint.close()
        if parts is not None and parts.reporter is not None:
            parts.reporter.close()
        self.endpoints.clear()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Let go of everything."""
        for caller in self._callers:
            caller.close()
        await self.kill_broker()

    def _endpoint(
        self, sock: socket.socket, own: str, peer: str, receive: Callable[[Received], Any]
    ) -> Endpoint:
        endpoint = Endpoint(sock, own=own, peer=peer, receive=receive, on_closed=lambda why: None)
        self.endpoints.append(endpoint)
        return endpoint


@contextlib.asynccontextmanager
async def host(base: Path, policy: str = POLICY) -> AsyncIterator[Host]:
    """Yield a host with reporter and worker."""
    made = Host(base)
    try:
        await made.start(policy)
        made.wire_reporter()
        made.wire_worker()
        yield made
    finally:
        await made.stop()


def run_async(main: Coroutine[Any, Any, Value]) -> Value:
    """Run a test's coroutine."""
    return asyncio.run(main)


async def expect(reply: Awaitable[Control], kind: type[Kind]) -> Kind:
    """Return the reply if it is of the kind; fail with what it is otherwise."""
    got = await reply
    assert isinstance(got, kind), msgspec.json.encode(got)
    return got
