"""The real worker process between honest stand-ins for kernel, broker and reporter.

The stand-ins speak the real messages over real pairs; connections are redirected by real nftables
in a namespace of their own and carry real socket marks. Only the decisions are made up.
"""

import asyncio
import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.ipc.endpoint import Endpoint, Received, pair
from agent.ipc.messages import (
    Attribute,
    Attributed,
    Authorize,
    Authorized,
    CutRun,
    Drain,
    Durable,
    Failed,
    LeafSigned,
    LeaseTaken,
    Listeners,
    Message,
    PolicyNames,
    Pulse,
    Ready,
    Record,
    SignLeaf,
    SpoolState,
    TakeLease,
    Wire,
)
from agent.ipc.records import unpack_event
from agent.model.audit import AuditEvent, SessionOpened
from agent.model.credential import Shape
from agent.model.flow import Attribution, Evidence, Process, Tier, Unattributed
from agent.model.flow import Endpoint as Address
from agent.model.grant import Durability, Grant, Rule, Target, UpstreamTls
from agent.model.ids import CgroupId, LeaseId, LoopName, RuleId, RunId, SessionId, Tag, TargetName
from agent.model.reason import Reason
from agent.model.verdict import Mode
from agent.runtime.clock import boot_ns, fresh_ulid
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace, listening

WAIT_S = 60.0
# How long the worker waits for what a busy machine does late, where a test is not about that time.
PATIENCE_S = {
    "agent.proxy.arrival": ("ATTRIBUTE_TIMEOUT_S", "AUTHORIZE_TIMEOUT_S"),
    "agent.proxy.channel": ("LINGER_S",),
    "agent.proxy.dial": ("HANDSHAKE_TIMEOUT_S",),
    "agent.proxy.greeting": ("GREETING_TIMEOUT_S",),
    "agent.proxy.leases": ("LEASE_TIMEOUT_S",),
    "agent.proxy.leaves": ("SIGN_TIMEOUT_S",),
    "agent.proxy.pool": ("IDLE_S",),
    "agent.proxy.recorder": ("INTENT_TIMEOUT_S",),
    "agent.proxy.resolver": ("TCP_IDLE_S",),
    "agent.proxy.turns": ("WAIT_S",),
    "agent.proxy.upstream": ("CONNECT_TIMEOUT_S", "CONNECT_TOTAL_TIMEOUT_S", "RESOLVE_TIMEOUT_S"),
}
PATIENT = f"""
import importlib, sys
for module, names in {PATIENCE_S}.items():
    for name in names:
        assert hasattr(importlib.import_module(module), name), name
        setattr(sys.modules[module], name, {WAIT_S})
from agent.proxy.main import main
sys.exit(main())
"""
PROXY_PORT, DNS_PORT = 15001, 15053
UNATTRIBUTED_MARK = 0xDEAD
LOOP = LoopName("nightly")
Kind = TypeVar("Kind")

CONFIG = """
proxy_port = {proxy_port}
dns_port = {dns_port}
log_level = "info"
[users]
proxy = "65534"
"""


def target(name: str = "api", **changes: Any) -> Target:
    """Return a target as the policy would compile it."""
    values: dict[str, Any] = {
        "name": TargetName(name),
        "protocol": "http",
        "host": "api.example.com",
        "port": 443,
        "tls": UpstreamTls.VERIFY_FULL,
        "ca_pem": "",
        "dial_host": "127.0.0.1",
        "dial_port": 443,
        "allow_cleartext": False,
        "durability": Durability.PROCESS,
        "synthetic4": "198.18.0.1",
        "synthetic6": "fd4c:6f6f:7000::1",
        "shape": Shape.BEARER,
    }
    return Target(**(values | changes))


def allow_all(number: int = 0) -> Rule:
    """Return a rule that allows every method and path."""
    return Rule(RuleId(f"nightly/{number}"), "allow", Mode.ENFORCE, frozenset(), ())


@dataclass(slots=True)
class World:
    """What the stand-ins decide by; tests change it."""

    authority: Authority
    targets: list[Target]
    rules: tuple[Rule, ...] = (allow_all(),)
    token: bytes = b"the-token-of-the-lease"
    runs: dict[int, RunId] = field(default_factory=dict)  # mark → run
    evidence: Evidence = Evidence.TAG_AND_CGROUP
    expires_ms: int = 0
    durable: bool = True  # the reporter acknowledges
    leaf_host: str | None = None


class Harness:
    """A worker and its peers. Methods may be called from the test's thread."""

    patient = True  # the worker's limits of time are longer than any test

    def __init__(self, world: World, near: Namespace, folder: Path) -> None:
        self.world = world
        self.near = near
        self.events: list[AuditEvent] = []
        self.messages: list[Message] = []
        self.sessions: dict[SessionId, Attribution] = {}
        self.run_id = RunId(fresh_ulid())
        self._changed = threading.Condition()
        self._folder = folder
        self._event_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._event_loop.run_forever, daemon=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.kernel: Endpoint | None = None
        self.broker: Endpoint | None = None
        self.reporter: Endpoint | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # life

    def start(self) -> None:
        """Start the worker, wired and listening."""
        self._thread.start()
        own, theirs = pair()
        config = self._folder / "loopwarden.toml"
        config.write_text(self.config())
        descriptor = theirs.fileno()
        program = ["-c", PATIENT] if self.patient else ["-m", "agent.proxy"]
        argv = [sys.executable, *program, "--config", str(config)]
        argv += ["--name", "proxy@0", "--fd", str(descriptor)]
        self.process = subprocess.Popen(argv, pass_fds=[descriptor])
        theirs.close()
        self.call(self._serve_kernel, own)
        self.wire_broker()
        self.wire_reporter()
        self.wait(lambda: any(isinstance(one, Ready) for one in self.messages))
        self.listen()

    def config(self) -> str:
        """Return the worker's configuration."""
        return CONFIG.format(proxy_port=PROXY_PORT, dns_port=DNS_PORT)

    def stop(self) -> None:
        """End the worker, and the stand-ins."""
        for end in (self.reporter, self.broker, self.kernel):
            if end is not None:
                self.call(end.close)
        if self.process is not None:
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self._event_loop.call_soon_threadsafe(self._event_loop.stop)
        self._thread.join()
        self._event_loop.close()

    def listen(self) -> None:
        """Give the worker listeners inside the near namespace."""
        tcp = [
            self.near.call(lambda: listening("127.0.0.1", PROXY_PORT)),
            self.near.call(lambda: listening("::1", PROXY_PORT, socket.AF_INET6)),
        ]
        dns_udp = [self.near.call(_udp)]
        dns_tcp = [self.near.call(lambda: listening("127.0.0.1", DNS_PORT))]
        socks = [*tcp, *dns_udp, *dns_tcp]
        notice = Listeners(len(tcp), len(dns_udp), len(dns_tcp))
        self._notify(self.kernel, notice, tuple(sock.fileno() for sock in socks))
        for sock in socks:
            sock.close()
        names = tuple(
            (one.host, one.synthetic4, one.synthetic6)
            for one in self.world.targets
            if one.synthetic4
        )
        self._notify(self.broker, PolicyNames("revision", names))

    def wire_broker(self) -> None:
        """Give the worker a (new) broker."""
        own, theirs = pair()
        self._notify(self.kernel, Wire("broker"), (theirs.fileno(),))
        theirs.close()
        self.broker = self.call(self._end, own, "broker", self._from_proxy_to_broker)

    def wire_reporter(self) -> None:
        """Give the worker a (new) reporter."""
        own, theirs = pair()
        self._notify(self.kernel, Wire("reporter"), (theirs.fileno(),))
        theirs.close()
        self.reporter = self.call(self._end, own, "reporter", self._from_proxy_to_reporter)

    def lose(self, end: Endpoint | None) -> None:
        """Let a peer die."""
        if end is not None:
            self.call(end.close)

    def cut_run(
        self, reason: Reason, run_id: RunId | None = None, *, by_kernel: bool = False
    ) -> None:
        """Say that a run is over."""
        end = self.kernel if by_kernel else self.broker
        self._notify(end, CutRun(run_id or self.run_id, reason))

    def notify_from_broker(self, message: Message) -> None:
        """Send any notice of the broker's."""
        self._notify(self.broker, message)

    def drain(self, within_s: float) -> None:
        """Ask the worker to drain."""
        self._notify(self.kernel, Drain(within_s))

    def spool_state(self, *, accepting: bool) -> None:
        """Say whether records can be made."""
        self._notify(self.reporter, SpoolState(accepting, "as the test says"))

    # asking

    def wait(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait until the condition holds; it is looked at after every message."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), self.events

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return the recorded events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def wait_for(self, kind: type[Kind], count: int = 1) -> list[Kind]:
        """Wait for this many recorded events of a kind, and return them."""
        self.wait(lambda: len(self.of(kind)) >= count)
        return self.of(kind)

    def connect(self, address: str = "198.18.0.1", port: int = 443, mark: int = 1) -> socket.socket:
        """Connect as a process of a loop does."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = self.near.call(lambda: socket.socket(family, socket.SOCK_STREAM))
        sock.settimeout(WAIT_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            sock.connect((address, port))
        except OSError:
            sock.close()
            raise
        return sock

    def rss_bytes(self) -> int:
        """Return the worker's resident memory."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii")
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # the stand-ins

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on the stand-ins' event loop and return its result."""
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def run() -> None:
            try:
                results.put((True, function(*arguments)))
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                results.put((False, error))

        self._event_loop.call_soon_threadsafe(run)
        succeeded, result = results.get(timeout=WAIT_S)
        if not succeeded:
            raise result
        return result

    def _notify(self, end: Endpoint | None, message: Message, fds: tuple[int, ...] = ()) -> None:
        assert end is not None
        self.call(end.notify, message, fds)

    def _end(self, sock: socket.socket, own: str, receive: Callable[[Received], None]) -> Endpoint:
        return Endpoint(sock, own=own, peer="proxy@0", receive=receive, on_closed=lambda _: None)

    def _serve_kernel(self, sock: socket.socket) -> None:
        self.kernel = self._end(sock, "kernel", self._from_proxy_to_kernel)

    def _note(self, message: Message, *events: AuditEvent) -> None:
        """Keep what came; before the answer, so that who sees its effect finds it here."""
        with self._changed:
            self.messages.append(message)
            self.events.extend(events)
            self._changed.notify_all()

    def _from_proxy_to_kernel(self, received: Received) -> None:
        match received.message:
            case Pulse():
                return
            case Attribute(mark, address, port):
                self._note(received.message)
                received.reply(self._attribute(mark, Address(address, port)))
            case message:
                self._note(message)

    def _attribute(self, mark: int, destination: Address) -> Attributed:
        session_id = SessionId(fresh_ulid())
        if mark in {0, UNATTRIBUTED_MARK}:
            return Attributed(None, Unattributed(session_id, f"no record of mark {mark:#x}"))
        now_ns = boot_ns()
        process = Process(4711, now_ns, 1000, "curl", "/usr/bin/curl", ("curl",), False)
        attribution = Attribution(
            session_id,
            self.world.runs.get(mark, self.run_id),
            Tag(0x1234),
            CgroupId(99),
            self.world.evidence,
            Tier.LAUNCHED,
            destination,
            1,
            1,
            now_ns,
            process,
            (process,),
        )
        self.sessions[session_id] = attribution
        return Attributed(attribution, None)

    def _from_proxy_to_broker(self, received: Received) -> None:
        match received.message:
            case Authorize(session_id):
                answer = self._authorize(self.sessions[session_id])
                target = None if answer.grant is None else answer.grant.target.name
                opened = SessionOpened(self.sessions[session_id], LOOP, target, "proxy@0")
                self._note(received.message, opened)  # the broker records it before it answers
                received.reply(answer)
            case TakeLease(session_id):
                self._note(received.message)
                received.reply(self._lease(self.sessions[session_id]))
            case SignLeaf(name, public_key_der):
                self._note(received.message)
                received.reply(self._sign(name, public_key_der))
            case message:
                self._note(message)

    def _target_of(self, attribution: Attribution) -> Target | None:
        destination = attribution.destination
        for one in self.world.targets:
            addresses = (one.synthetic4, one.synthetic6)
            if destination.address in addresses and destination.port in {one.port, 80}:
                return one
        return None

    def _authorize(self, attribution: Attribution) -> Authorized:
        named = self._target_of(attribution)
        if named is None:
            return Authorized(
                LOOP,
                None,
                Reason.DESTINATION_UNLISTED,
                f"{attribution.destination} is no target of {LOOP}",
                "Ask for a target in the policy.",
            )
        grant = Grant(
            attribution.run_id, LOOP, named, "revision", self.world.rules, self.world.expires_ms
        )
        return Authorized(LOOP, grant, None, "", "")

    def _lease(self, attribution: Attribution) -> Message:
        named = self._target_of(attribution)
        if named is None or named.shape is None:
            return Failed(Reason.LEASE_REFUSED, "no credential")
        return LeaseTaken(
            LeaseId("01" + attribution.run_id[2:]),
            attribution.run_id,
            named.name,
            named.shape,
            (self.world.token,),
            0,
            False,
        )

    def _sign(self, name: str, public_key_der: bytes) -> Message:
        key = serialization.load_der_public_key(public_key_der)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        chain = self.world.authority.sign(self.world.leaf_host or name, key)
        return LeafSigned(chain, (boot_ns() // 1_000_000) + (1 << 41))

    def _from_proxy_to_reporter(self, received: Received) -> None:
        message = received.message
        assert isinstance(message, Record)
        self._note(message, *(unpack_event(kind, body) for kind, body in message.events))
        if message.durable and self.world.durable and self.reporter is not None:
            self.reporter.notify(Durable(message.durable))


def _udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", DNS_PORT))
    return sock


@contextlib.contextmanager
def harness(
    world: World, near: Namespace, folder: Path, kind: type[Harness] = Harness
) -> Iterator[Harness]:
    """Run a worker for a test."""
    running = kind(world, near, folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
