"""The real worker when the broker takes a lease away: cut, drained, or let be, as it is told."""

import threading
from pathlib import Path

import pytest

from agent.ipc.messages import CutLease, Message
from agent.model.audit import OperationDenied, OperationFinished, Outcome, SessionClosed
from agent.model.flow import Attribution
from agent.model.ids import LeaseId, RunId
from agent.model.reason import Reason
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace
from tests.servers.scripted import Conversation, answering, scripted_server
from tests.unit.proxy.calls import call, get, read_exactly, read_head, read_quietly, secure
from tests.unit.proxy.harness import WAIT_S, Harness, World, harness, target

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _cut(worker: Harness, reason: Reason, *, when_idle: bool, other: bool = False) -> None:
    lease_id = LeaseId("other" if other else "01" + worker.run_id[2:])
    worker.notify_from_broker(CutLease(worker.run_id, lease_id, reason, when_idle))


@pytest.mark.parametrize("reason", [Reason.LEASE_EXPIRED, Reason.LEASE_REVOKED])
def test_a_lease_that_ends_in_mid_stream_ends_its_sessions(
    authority: Authority, near: Namespace, tmp_path: Path, reason: Reason
) -> None:
    """Both sides end at once, with the true cause; a session of another lease goes on."""
    gone = threading.Event()

    def drip(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")
        try:
            conversation.sock.recv(1)
        except OSError:
            pass
        gone.set()

    with scripted_server(drip, authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            with secure(worker, authority) as sock:
                sock.sendall(get("/"))
                read_head(sock)
                assert read_exactly(sock, 4) == b"some"
                _cut(worker, reason, when_idle=False, other=True)
                _cut(worker, Reason.DRAINING, when_idle=True)
                assert not gone.wait(0.2)
                _cut(worker, reason, when_idle=False)
                assert len(read_quietly(sock)) < 1_000
            assert gone.wait(WAIT_S)
            assert worker.wait_for(SessionClosed)[0].reason is reason
            finished = worker.of(OperationFinished)[0]
            assert (finished.outcome, finished.reason) == (Outcome.ABORTED, reason)


def test_a_draining_lease_lets_what_is_under_way_end(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """The answer is complete; then the connection is closed, though it could be kept."""
    go_on = threading.Event()

    def slow(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        go_on.wait(WAIT_S)
        conversation.send(b"lf")

    with scripted_server(slow, authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            with secure(worker, authority) as sock:
                sock.sendall(get("/", close=False))
                read_head(sock)
                assert read_exactly(sock, 2) == b"ha"
                _cut(worker, Reason.DRAINING, when_idle=True)
                go_on.set()
                assert read_quietly(sock) == b"lf"
            assert worker.wait_for(SessionClosed)[0].reason is Reason.DRAINING
            assert worker.of(OperationFinished)[0].outcome is Outcome.ANSWERED


@pytest.mark.parametrize("when_idle", [True, False])
def test_a_cut_leases_idle_connections_are_closed(
    authority: Authority, near: Namespace, tmp_path: Path, when_idle: bool
) -> None:
    """What its credential opened is in nobody's pool any more."""
    ended = threading.Event()

    def answer(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(OK)
        try:
            conversation.sock.recv(1)
        except OSError:
            pass
        ended.set()

    with scripted_server(answer, authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            with secure(worker, authority) as sock:
                sock.sendall(get("/", close=False))
                read_head(sock)
                assert read_exactly(sock, 2) == b"ok"
            worker.wait_for(SessionClosed)
            assert not ended.wait(0.1)
            _cut(worker, Reason.LEASE_REVOKED, when_idle=when_idle)
            assert ended.wait(WAIT_S)


def test_a_lease_that_is_cut_on_its_way_is_used_by_nobody(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """CutLease and LeaseTaken read in one turn, in either order: nothing goes upstream."""

    class Late(Harness):
        def _lease(self, attribution: Attribution) -> Message:
            taken = super()._lease(attribution)
            assert self.broker is not None
            lease_id = LeaseId("01" + attribution.run_id[2:])
            cut = CutLease(RunId(attribution.run_id), lease_id, Reason.LEASE_REVOKED, False)
            self.broker.notify(cut)
            return taken

    with scripted_server(answering(OK), authority.identity("api.example.com")) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path, kind=Late) as worker:
            answer = call(worker, authority, get("/"))
            assert answer.status == 503
            assert b"taken away" in answer.body
            assert worker.wait_for(OperationDenied)[0].reason is Reason.LEASE_REFUSED
            assert not server.conversations
