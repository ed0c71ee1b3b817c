"""The real worker with leases that are client certificates: shown in TLS, each by its own run."""

import ssl
from collections.abc import Mapping
from pathlib import Path

from agent.ipc.messages import LeaseTaken, Message
from agent.model.audit import OperationDenied, SessionClosed
from agent.model.credential import Shape
from agent.model.flow import Attribution
from agent.model.ids import LeaseId, RunId
from agent.model.reason import Reason
from agent.runtime.clock import fresh_ulid
from tests.servers.certificates import Authority, Identity
from tests.servers.netns import Namespace
from tests.servers.scripted import Conversation, Scripted, scripted_server, server_context
from tests.unit.proxy.calls import call, get, read_exactly, read_head, secure
from tests.unit.proxy.harness import Harness, World, harness, target

CALLS = 12


def _harness(identities: Mapping[RunId, Identity]) -> type[Harness]:
    """Return one whose broker leases each run its own certificate."""

    class Certified(Harness):
        def _lease(self, attribution: Attribution) -> Message:
            identity = identities[attribution.run_id]
            return LeaseTaken(
                LeaseId("01" + attribution.run_id[2:]),
                attribution.run_id,
                self.world.targets[0].name,
                Shape.CLIENT_CERTIFICATE,
                (b"", identity.chain_pem, identity.key_pem.strip()),  # as providers give it
                0,
                False,
            )

    return Certified


def _whoami(conversation: Conversation) -> None:
    """Answer each request with the name in the certificate."""
    assert isinstance(conversation.sock, ssl.SSLSocket)
    found = conversation.sock.getpeercert()
    assert found is not None
    name = found["subject"][0][0][1].encode()
    while b"\r\n\r\n" in conversation.read_until(b"\r\n\r\n"):
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))


def _mutual(server: Scripted, authority: Authority, clients: Authority) -> None:
    """Let a server take nobody without a certificate of these clients'."""
    server.context = server_context(authority.identity("api.example.com"))
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_verify_locations(cadata=clients.pem)


def test_each_run_shows_its_own_certificate(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Over connections that are kept and used again: never the other's."""
    clients = Authority("clients")
    runs = {1: RunId(fresh_ulid()), 2: RunId(fresh_ulid())}
    identities = {run_id: clients.client(f"run-{mark}") for mark, run_id in runs.items()}
    with scripted_server(_whoami) as server:
        _mutual(server, authority, clients)
        chosen = target(dial_port=server.port, ca_pem=authority.pem, shape=Shape.CLIENT_CERTIFICATE)
        world = World(authority, [chosen], runs=runs)
        with harness(world, near, tmp_path, kind=_harness(identities)) as worker:
            for number in range(CALLS):
                mark = number % 2 + 1
                worker.wait_for(SessionClosed, number)  # and what it had is there for the next
                with secure(worker, authority, mark=mark) as sock:
                    sock.sendall(get("/", close=False))
                    assert read_head(sock).startswith(b"HTTP/1.1 200 ")
                    assert read_exactly(sock, 5) == b"run-%d" % mark
        assert len(server.conversations) == 2  # each run has kept one
        for identity in identities.values():
            assert identity.key_pem not in server.received


def test_a_certificate_that_is_refused(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """One of other clients, and one that is none: 502, and nothing of the key is told."""
    run_id = RunId(fresh_ulid())
    stranger = Authority("strangers").client("run-1")
    identities = {run_id: stranger}
    with scripted_server(_whoami) as server:
        _mutual(server, authority, Authority("clients"))
        chosen = target(dial_port=server.port, ca_pem=authority.pem, shape=Shape.CLIENT_CERTIFICATE)
        world = World(authority, [chosen], runs={1: run_id})
        with harness(world, near, tmp_path, kind=_harness(identities)) as worker:
            answer = call(worker, authority, get("/"))
            assert answer.status == 502
            assert stranger.key_pem not in answer.head + answer.body
            identities[run_id] = Identity(b"no certificate\n", stranger.key_pem)
            answer = call(worker, authority, get("/"))
            assert answer.status == 502
            assert b"client certificate is of no use" in answer.body
            assert worker.wait_for(OperationDenied)[-1].reason is Reason.UPSTREAM_UNTRUSTED
        assert server.received == b""
