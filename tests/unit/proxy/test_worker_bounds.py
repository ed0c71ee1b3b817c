"""The real worker under load and when its peers fail: bounded, recorded, closed."""

import resource
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.ipc.messages import Record, SessionEnded
from agent.model.audit import (
    OperationDenied,
    OperationFinished,
    OperationIntended,
    Outcome,
    SessionClosed,
    SessionOpened,
    SessionRefused,
)
from agent.model.grant import Durability, Target
from agent.model.reason import Reason
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace
from tests.servers.nginx import LARGE_BYTES, Api
from tests.servers.scripted import Conversation, scripted_server
from tests.unit.proxy.calls import (
    call,
    get,
    is_reset,
    parse,
    read_all,
    read_exactly,
    read_head,
    read_quietly,
    secure,
)
from tests.unit.proxy.harness import WAIT_S, World, harness, target

MIB = 1 << 20
GROWTH_BYTES_MAX = 24 * MIB  # of resident memory while 64 MiB pass
CONNECTIONS = 1_000


def api_target(
    api: Api, authority: Authority, durability: Durability = Durability.PROCESS
) -> Target:
    return target(dial_port=api.tls_port, ca_pem=authority.pem, durability=durability)


def test_64_mib_go_downstream_in_bounded_memory(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """A large answer is streamed: its bytes arrive, the worker's memory stays."""
    with harness(World(authority, [api_target(api, authority)]), near, tmp_path) as worker:
        call(worker, authority, get("/v1/warm"))
        before = worker.rss_bytes()
        with secure(worker, authority) as sock:
            sock.sendall(get("/files/large.bin"))
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            received = peak = 0
            while piece := sock.recv(MIB):
                received += len(piece)
                peak = max(peak, worker.rss_bytes())
        assert received == LARGE_BYTES
        assert peak - before < GROWTH_BYTES_MAX
        assert worker.wait_for(OperationFinished, 2)[1].response_bytes == LARGE_BYTES


def test_64_mib_go_upstream_in_bounded_memory(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """A large request is streamed, chunked, with the memory staying."""
    counts: list[int] = []

    def sink(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        held = len(conversation.received.partition(b"\r\n\r\n")[2])
        counts.append(held + conversation.count_until_end(LARGE_BYTES - held))
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with scripted_server(sink, authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            before = peak = worker.rss_bytes()
            with secure(worker, authority) as sock:
                head = get("/", extra=f"Content-Length: {LARGE_BYTES}\r\n")
                sock.sendall(head.replace(b"GET", b"PUT", 1))
                for _ in range(LARGE_BYTES // MIB):
                    sock.sendall(b"\x5a" * MIB)
                    peak = max(peak, worker.rss_bytes())
                assert parse(read_all(sock)).body == b"ok"
        assert counts == [LARGE_BYTES]
        assert peak - before < GROWTH_BYTES_MAX


def test_a_loop_that_does_not_read_stops_the_upstream(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Back-pressure: while the loop reads nothing the upstream fills buffers, and no more."""
    sent: list[int] = []
    stuck = threading.Event()

    def flood(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE_BYTES)
        conversation.sock.settimeout(1.0)
        total = 0
        try:
            while total < LARGE_BYTES:
                conversation.send(b"\xa5" * 65536)
                total += 65536
        except TimeoutError:
            stuck.set()
        sent.append(total)

    with scripted_server(flood, authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            before = worker.rss_bytes()
            with secure(worker, authority) as sock:
                sock.sendall(get("/"))
                assert stuck.wait(WAIT_S)
                assert worker.rss_bytes() - before < GROWTH_BYTES_MAX
    assert sent[0] < LARGE_BYTES // 2


@pytest.mark.parametrize("how", ["gone", "closed spool", "silent"])
def test_without_records_nothing_goes_upstream(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path, how: str
) -> None:
    """Reporter dead, spool full, or hung until its death: 503, and the API hears nothing."""
    with harness(World(authority, [api_target(api, authority)]), near, tmp_path) as worker:
        call(worker, authority, get("/v1/first"))
        before = len(api.requests())
        with secure(worker, authority) as sock:
            if how == "gone":
                worker.lose(worker.reporter)
            elif how == "closed spool":
                worker.spool_state(accepting=False)
            else:
                worker.world.durable = False
            sock.sendall(get("/v1/second"))
            if how == "silent":
                worker.wait_for(OperationIntended, 2)
                worker.lose(worker.reporter)
            answer = parse(read_all(sock))
        assert (answer.status, b"record-failed" in answer.body) == (503, True)
        assert len(api.requests()) == before


def test_a_new_reporter_gets_what_the_old_one_did_not_confirm(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """No event is lost with a reporter: the sessions that ended meanwhile are recorded after."""
    with harness(World(authority, [api_target(api, authority)]), near, tmp_path) as worker:
        worker.lose(worker.reporter)
        assert call(worker, authority, get("/v1/orders")).status == 503
        assert {type(event) for event in worker.events} == {SessionOpened}  # the broker's
        worker.wire_reporter()
        assert worker.wait_for(SessionClosed)[0].operations == 1
        assert worker.wait_for(OperationDenied)[0].reason is Reason.RECORD_FAILED
        assert call(worker, authority, get("/v1/orders")).status == 200


@pytest.mark.parametrize("durability", list(Durability))
def test_an_intent_is_as_durable_as_its_target_asks(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path, durability: Durability
) -> None:
    """The frame of an intent says which durability is waited for, and so does the record."""
    world = World(authority, [api_target(api, authority, durability)])
    with harness(world, near, tmp_path) as worker:
        assert call(worker, authority, get("/v1/orders")).status == 200
        assert worker.wait_for(OperationIntended)[0].durability is durability
        frames = [one for one in worker.messages if isinstance(one, Record)]
        levels = {
            one.level
            for one in frames
            if any(kind == "OperationIntended" for kind, _ in one.events)
        }
        assert levels == {durability}


@pytest.mark.parametrize("by_kernel", [False, True], ids=["by-broker", "by-kernel"])
def test_a_cut_ends_a_streaming_session_with_the_true_cause(
    authority: Authority, near: Namespace, tmp_path: Path, by_kernel: bool
) -> None:
    """CutRun in mid-stream: both sides end at once; the records give the true cause."""
    upstream_ended = threading.Event()

    def drip(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")
        try:
            conversation.sock.recv(1)
        except OSError:
            pass
        upstream_ended.set()

    with scripted_server(drip, authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            with secure(worker, authority) as sock:
                sock.sendall(get("/"))
                read_head(sock)
                assert read_exactly(sock, 4) == b"some"
                worker.cut_run(Reason.RUN_ENDED, by_kernel=by_kernel)
                assert len(read_quietly(sock)) < 1000
            assert upstream_ended.wait(WAIT_S)
            closed = worker.wait_for(SessionClosed)[0]
            finished = worker.of(OperationFinished)[0]
            assert closed.reason is Reason.RUN_ENDED
            assert (finished.outcome, finished.reason) == (Outcome.ABORTED, Reason.RUN_ENDED)
            worker.wait(lambda: any(isinstance(one, SessionEnded) for one in worker.messages))


def test_a_cut_of_one_run_leaves_another_alone(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """Only the run that is named is cut."""
    world = World(authority, [api_target(api, authority)])
    with harness(world, near, tmp_path) as worker:
        worker.world.runs[2] = other = type(worker.run_id)("01ARZ3NDEKTSV4RRFFQ69G5FAV")
        with secure(worker, authority) as first, secure(worker, authority, mark=2) as second:
            worker.cut_run(Reason.RUN_REVOKED, other)
            worker.wait_for(SessionClosed)
            assert read_quietly(second) == b""
            first.sendall(get("/v1/orders"))
            assert parse(read_all(first)).status == 200


def test_without_a_broker_sessions_end_and_none_begins(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """Nobody could tell us of a run's end: sessions are cut, new ones refused, until it is back."""
    with harness(World(authority, [api_target(api, authority)]), near, tmp_path) as worker:
        with secure(worker, authority) as live:
            worker.lose(worker.broker)
            assert read_quietly(live) == b""
        assert is_reset(worker)
        assert worker.wait_for(SessionRefused)[0].reason is Reason.INTERNAL
        worker.wire_broker()
        assert call(worker, authority, get("/v1/orders")).status == 200


def test_a_drain_lets_an_operation_finish(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """An idle session ends at once; one with an answer under way gets all of it; then we exit."""
    go_on = threading.Event()

    def slow(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        go_on.wait(WAIT_S)
        conversation.send(b"half")

    with scripted_server(slow, authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            with secure(worker, authority) as busy, secure(worker, authority) as idle:
                busy.sendall(get("/", close=False))
                read_head(busy)
                worker.drain(WAIT_S)
                assert read_quietly(idle) == b""
                go_on.set()
                assert read_quietly(busy) == b"halfhalf"
            assert worker.process is not None
            assert worker.process.wait(WAIT_S) == 0
            assert {one.reason for one in worker.wait_for(SessionClosed, 2)} == {Reason.DRAINING}


def test_a_thousand_connections_are_served(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """1,000 open connections of one run, each answered."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    with (
        harness(World(authority, [api_target(api, authority)]), near, tmp_path) as worker,
        ExitStack() as stack,
    ):
        socks = [stack.enter_context(worker.connect(port=80)) for _ in range(CONNECTIONS)]
        for sock in socks:
            sock.sendall(get("/v1/orders"))
        statuses = [parse(read_all(sock)).status for sock in socks]
        stack.close()
        assert statuses == [200] * CONNECTIONS
        worker.wait_for(SessionClosed, CONNECTIONS)
        assert len(worker.of(OperationFinished)) == CONNECTIONS


def test_a_greeting_that_never_comes_holds_nothing_upstream(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """A connection that says nothing is known and cut with its run, without a record of work."""
    with harness(World(authority, [target()]), near, tmp_path) as worker:
        with worker.connect() as sock:
            worker.wait_for(SessionOpened)
            sock.sendall(b"\x16\x03")
            worker.cut_run(Reason.RUN_ENDED)
            assert read_quietly(sock) == b""
        closed = worker.wait_for(SessionClosed)[0]
        assert (closed.operations, closed.upstream_bytes) == (0, 0)


def test_what_is_neither_tls_nor_http_is_closed(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Unknown bytes get a 400 and are refused with the reason protocol-unknown."""
    with harness(World(authority, [target()]), near, tmp_path) as worker:
        with worker.connect() as sock:
            sock.sendall(b"\x00\x01\x02\x03")
            assert read_quietly(sock).startswith(b"HTTP/1.1 400 ")
        assert worker.wait_for(SessionClosed)[0].reason is Reason.PROTOCOL_UNKNOWN
