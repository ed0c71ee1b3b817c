"""The real worker between a hostile loop and a hostile upstream: what each must not bring about."""

import contextlib
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.ipc.endpoint import Received
from agent.ipc.messages import Attribute, Authorize, CutRun, Message, SessionEnded
from agent.model.audit import (
    OperationFinished,
    OperationIntended,
    Outcome,
    SessionClosed,
    SessionRefused,
)
from agent.model.ids import RunId
from agent.model.reason import Reason
from agent.proxy.greeting import GREETING_TIMEOUT_S
from agent.proxy.turns import ASKING_A_RUN_MAX
from agent.runtime.clock import fresh_ulid
from agent.wire.clienthello import PEEK_BYTES_MAX
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace
from tests.servers.scripted import (
    Conversation,
    Script,
    Scripted,
    answering,
    scripted_server,
    server_context,
)
from tests.unit.proxy.calls import HOST, call, get, parse, read_all, read_quietly, secure
from tests.unit.proxy.harness import WAIT_S, Harness, World, harness, target

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RST = struct.pack("ii", 1, 0)


@contextlib.contextmanager
def against(
    script: Script,
    authority: Authority,
    near: Namespace,
    folder: Path,
    kind: type[Harness] = Harness,
) -> Iterator[tuple[Harness, Scripted]]:
    """Run a worker whose one target is a server with this script."""
    with scripted_server(script, authority.identity(HOST)) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, folder, kind) as worker:
            yield worker, server


# the loop's side


def test_a_client_of_http_1_0_only_is_served(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """ALPN with nothing but http/1.0 (`curl -0`) is accepted as that."""
    with against(answering(OK), authority, near, tmp_path) as (worker, _):
        context = ssl.create_default_context(cadata=authority.pem)
        context.set_alpn_protocols(["http/1.0"])
        with context.wrap_socket(worker.connect(), server_hostname=HOST) as sock:
            assert sock.selected_alpn_protocol() == "http/1.0"
            sock.sendall(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
            assert parse(read_all(sock)).body == b"ok"


@pytest.mark.parametrize("name", ["API.Example.COM", "api.example.com."])
def test_a_name_is_the_same_in_any_form(
    authority: Authority, near: Namespace, tmp_path: Path, name: str
) -> None:
    """SNI and Host in capitals or with the root's dot name the target."""
    with against(answering(OK), authority, near, tmp_path) as (worker, server):
        context = ssl.create_default_context(cadata=authority.pem)
        context.check_hostname = False
        with context.wrap_socket(worker.connect(), server_hostname=name) as sock:
            sock.sendall(get("/", host=name))
            assert parse(read_all(sock)).status == 200
        assert b"Host: api.example.com\r\n" in server.received


def test_old_tls_is_refused(authority: Authority, near: Namespace, tmp_path: Path) -> None:
    """A client that speaks TLS 1.1 at most gets an alert, and it is recorded."""
    with against(answering(OK), authority, near, tmp_path) as (worker, _):
        context = ssl.create_default_context(cadata=authority.pem)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        sock = worker.connect()
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(sock, server_hostname=HOST)
        sock.close()
        assert worker.wait_for(SessionClosed)[0].reason is Reason.TLS_FAILED


def test_a_hello_without_end_is_ended(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """A ClientHello over PEEK_BYTES_MAX is refused when it is, not when it is complete."""
    with against(answering(OK), authority, near, tmp_path) as (worker, _):
        with worker.connect() as sock, contextlib.suppress(OSError):
            fragment = b"\x01\xff\xff\xff\x03\x03" + bytes(16_000)
            for _ in range(PEEK_BYTES_MAX // 16_000 + 2):
                sock.sendall(b"\x16\x03\x01" + len(fragment).to_bytes(2, "big") + fragment)
                fragment = bytes(16_000)
            read_quietly(sock)
        assert worker.wait_for(SessionClosed)[0].reason is Reason.PROTOCOL_UNKNOWN


def test_greetings_that_stop_are_ended(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Silence, half a hello, half a handshake: each is over after GREETING_TIMEOUT_S."""

    class Impatient(Harness):
        patient = False

    with against(answering(OK), authority, near, tmp_path, Impatient) as (worker, server):
        silent, half, unfinished = (worker.connect() for _ in range(3))
        half.sendall(b"\x16\x03\x01\x02\x00\x01")
        hello = ssl.MemoryBIO()
        ends = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=HOST)
        with contextlib.suppress(ssl.SSLWantReadError):
            ends.do_handshake()
        unfinished.sendall(hello.read())
        for sock in (silent, half, unfinished):
            sock.settimeout(GREETING_TIMEOUT_S + WAIT_S)
            read_quietly(sock)
            sock.close()
        reasons = [one.reason for one in worker.wait_for(SessionClosed, 3)]
        assert reasons == [Reason.TIMED_OUT] * 3
        assert server.conversations == []


def test_a_loop_that_ends_its_side_gets_its_answer(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Half-close after the request: the answer still comes, and then our end."""
    with against(answering(OK), authority, near, tmp_path) as (worker, _):
        with worker.connect(port=80) as sock:
            sock.sendall(get("/", close=False))
            sock.shutdown(socket.SHUT_WR)
            assert parse(read_all(sock)).body == b"ok"
        assert worker.wait_for(OperationFinished)[0].outcome is Outcome.ANSWERED


def test_a_reset_within_a_body_ends_the_upstream(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """RST in mid-upload: the upstream sees its connection end, and no other session gets it."""
    seen: list[bytes] = []

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            seen.append(conversation.read_until(b"never"))

    with against(script, authority, near, tmp_path) as (worker, server):
        with secure(worker, authority) as sock:
            sock.sendall(b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 9999\r\n\r\n")
            worker.wait_for(OperationIntended)
            assert server.accepted.acquire(timeout=WAIT_S)
            sock.sendall(b"x" * 100)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        finished = worker.wait_for(OperationFinished)[0]
        assert (finished.outcome, finished.reason) == (Outcome.ABORTED, Reason.DOWNSTREAM_CLOSED)
        worker.wait_for(SessionClosed)
    assert len(server.conversations) == 1


def test_heads_past_every_bound_are_refused(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """100,000 bytes of fields are a 431 as soon as they are too many; nothing goes upstream."""
    with against(answering(OK), authority, near, tmp_path) as (worker, server):
        with worker.connect(port=80) as sock, contextlib.suppress(OSError):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n" + b"A: b\r\n" * 16_000)
            assert b" 431 " in read_quietly(sock)[:16]
        assert worker.wait_for(SessionClosed)[0].reason is Reason.LIMIT_EXCEEDED
        assert server.conversations == []


def test_a_cut_that_comes_with_the_grant_is_not_missed(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Authorized and CutRun, read in one turn or two: the opened session is closed, unserved."""

    class CutsAtOnce(Harness):
        def _from_proxy_to_broker(self, received: Received) -> None:
            super()._from_proxy_to_broker(received)
            if isinstance(received.message, Authorize) and self.broker is not None:
                self.broker.notify(CutRun(self.run_id, Reason.RUN_ENDED))

    one = target(shape=None)
    worker = CutsAtOnce(World(authority, [one]), near, tmp_path)
    try:
        worker.start()
        with (
            contextlib.suppress(ConnectionResetError),
            worker.connect("198.18.0.1", 443, 1) as sock,
        ):
            assert read_all(sock) in {b"<reset>", b""}  # in two turns the greeting had begun
        closed = worker.wait_for(SessionClosed)[0]
        assert (closed.reason, closed.operations) == (Reason.RUN_ENDED, 0)
        assert worker.of(SessionRefused) == []
        worker.wait(lambda: any(isinstance(one, SessionEnded) for one in worker.messages))
    finally:
        worker.stop()


def test_a_flood_of_one_run_waits_in_the_worker(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """The broker is asked about ASKING_A_RUN_MAX of it; one past it waits, another run's does not.

    What still waits when its run is cut is refused, and the broker forgets it.
    """

    class Busy(Harness):
        held: list[Received]

        def _from_proxy_to_broker(self, received: Received) -> None:
            match received.message:
                case Authorize(session_id) if self.sessions[session_id].run_id == self.run_id:
                    self.held.append(received)
                    self._note(received.message)
                case _:
                    super()._from_proxy_to_broker(received)

        def go_on(self) -> None:
            """Cut the run, then answer what was asked about it."""
            assert self.broker is not None
            self.broker.notify(CutRun(self.run_id, Reason.RUN_ENDED))
            for each in self.held:
                super()._from_proxy_to_broker(each)

        def count(self, kind: type[Message]) -> int:
            """Return how many messages of a kind came."""
            return sum(isinstance(each, kind) for each in self.messages)

    worker = Busy(World(authority, [target(shape=None)]), near, tmp_path)
    worker.held, worker.world.runs[2] = [], RunId(fresh_ulid())
    many = ASKING_A_RUN_MAX + 1
    try:
        worker.start()
        with contextlib.ExitStack() as stack:
            for _ in range(many):
                stack.enter_context(worker.connect("198.18.0.1", 443, 1))
            worker.wait(lambda: worker.count(Attribute) == many)
            stack.enter_context(worker.connect("198.18.0.1", 443, 2))
            worker.wait(lambda: worker.count(Authorize) == many)  # with the other run's
            assert len(worker.held) == ASKING_A_RUN_MAX
            worker.call(worker.go_on)
            [refused] = worker.wait_for(SessionRefused)
            assert refused.reason is Reason.RUN_ENDED
            session_id = refused.flow.session_id
            worker.wait(lambda: SessionEnded(session_id) in worker.messages)
            assert len(worker.wait_for(SessionClosed, ASKING_A_RUN_MAX)) == ASKING_A_RUN_MAX
    finally:
        worker.stop()


# the upstream's side


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("ending", ["fin", "reset", "close_notify"])
def test_a_cut_off_answer_never_passes_for_a_whole_one(
    authority: Authority, near: Namespace, tmp_path: Path, ending: str, *, sized: bool
) -> None:
    """An end of TCP without TLS's own end, or before the stated length, is no complete answer."""

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        length = b"Content-Length: 99\r\n" if sized else b""
        conversation.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\nhalf")
        conversation.sock.settimeout(1.0)
        if ending == "close_notify":
            with contextlib.suppress(OSError):
                assert isinstance(conversation.sock, ssl.SSLSocket)
                conversation.sock.unwrap()
        elif ending == "reset":
            conversation.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)

    with against(script, authority, near, tmp_path) as (worker, _):
        with secure(worker, authority) as sock:
            sock.sendall(get("/"))
            answer = read_quietly(sock)
        finished = worker.wait_for(OperationFinished)[0]
        if ending == "close_notify" and not sized:
            assert finished.outcome is Outcome.ANSWERED
            assert answer.endswith(b"0\r\n\r\n")
        else:
            assert finished.outcome is Outcome.ABORTED
            assert not answer.endswith(b"0\r\n\r\n")


def test_an_idle_connection_that_speaks_is_never_used_again(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """A kept connection on which the server says something unasked is closed, not reused."""
    idle, closed = threading.Event(), threading.Event()

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(OK)
        if not closed.is_set():
            assert idle.wait(WAIT_S)
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            with contextlib.suppress(OSError):
                assert b"HTTP" not in conversation.read_until(b"never")
            closed.set()

    with against(script, authority, near, tmp_path) as (worker, server):
        assert call(worker, authority, get("/")).body == b"ok"
        worker.wait_for(SessionClosed)
        idle.set()
        assert closed.wait(WAIT_S)
        assert call(worker, authority, get("/")).body == b"ok"
        assert len(server.conversations) == 2


def test_the_connection_of_a_client_that_closes_serves_the_runs_next(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """`Connection: close` is between the loop and us: the upstream connection is kept."""
    with against(answering(OK), authority, near, tmp_path) as (worker, server):
        for count in range(1, 4):
            assert call(worker, authority, get("/")).body == b"ok"
            worker.wait_for(SessionClosed, count)
        assert len(server.conversations) == 1
        assert b"onnection: close" not in server.received


def test_each_connection_verifies_for_itself(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """A server whose certificate changes between connections is refused from then on."""

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))

    with against(script, authority, near, tmp_path) as (worker, server):
        assert call(worker, authority, get("/")).status == 200
        server.context = server_context(Authority("other").identity(HOST))
        assert call(worker, authority, get("/")).status == 502
        assert len(server.conversations) == 1
