"""Calls of a loop through the real worker to a real API: allowed, denied, unlisted, mismatched."""

import dataclasses
import socket
import ssl
from pathlib import Path

import pytest

from agent.model.audit import (
    OperationDenied,
    OperationFinished,
    OperationIntended,
    Outcome,
    SessionClosed,
    SessionOpened,
    SessionRefused,
)
from agent.model.flow import Evidence
from agent.model.grant import Rule, Target
from agent.model.ids import RuleId, RunId
from agent.model.reason import Reason
from agent.model.verdict import Mode
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace
from tests.servers.nginx import Api
from tests.servers.scripted import Conversation, answering, scripted_server
from tests.unit.proxy.calls import (
    HOST,
    call,
    get,
    is_reset,
    parse,
    read_all,
    read_exactly,
    read_head,
    read_until,
    secure,
)
from tests.unit.proxy.harness import UNATTRIBUTED_MARK, World, harness, target

ONLY_V1 = (Rule(RuleId("nightly/0"), "allow", Mode.ENFORCE, frozenset({"GET"}), ("/v1/**",)),)


def secure_target(api: Api, authority: Authority) -> Target:
    return target(dial_port=api.tls_port, ca_pem=authority.pem)


def test_a_call_over_tls_is_answered_with_the_injected_token(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """TLS on both sides: the API answers 200 to a loop without a secret; recorded in order."""
    with harness(World(authority, [secure_target(api, authority)]), near, tmp_path) as worker:
        answer = call(worker, authority, get("/v1/orders"))
        assert (answer.status, answer.body) == (200, b'{"method":"GET","path":"/v1/orders"}')
        worker.wait_for(SessionClosed)
        kinds = [type(event) for event in worker.events]
        assert kinds == [SessionOpened, OperationIntended, OperationFinished, SessionClosed]
        assert worker.of(OperationFinished)[0].outcome is Outcome.ANSWERED


def test_a_call_in_clear_text_reaches_an_api_under_tls(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """A loop that can take no CA speaks clear text to us, and we speak verified TLS upstream."""
    world = World(authority, [secure_target(api, authority)])
    with harness(world, near, tmp_path) as worker, worker.connect(port=80) as sock:
        sock.sendall(get("/v1/orders"))
        assert parse(read_all(sock)).status == 200


def test_a_call_over_ipv6_is_answered(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """The synthetic IPv6 address of a target serves like the IPv4 one."""
    world = World(authority, [secure_target(api, authority)])
    with harness(world, near, tmp_path) as worker:
        sock = worker.connect("fd4c:6f6f:7000::1", port=80)
        sock.sendall(get("/v1/orders"))
        assert parse(read_all(sock)).status == 200
        sock.close()


def test_the_token_never_comes_downstream(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """An API that echoes the Authorization field shows the loop nothing of the token."""
    with harness(World(authority, [secure_target(api, authority)]), near, tmp_path) as worker:
        answer = call(worker, authority, get("/echo-headers"))
        assert answer.status == 200
        assert b"authorization" in answer.body
        assert worker.world.token not in answer.head + answer.body


def test_what_the_policy_does_not_allow_is_denied_with_why(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """403 with rule and next step, recorded, and the API hears nothing of it."""
    world = World(authority, [secure_target(api, authority)], rules=ONLY_V1)
    with harness(world, near, tmp_path) as worker:
        before = len(api.requests())
        answer = call(worker, authority, get("/echo-headers"))
        assert answer.status == 403
        assert b'"rule": "default-deny"' in answer.body
        assert b"next_step" in answer.body
        assert worker.wait_for(OperationDenied)[0].reason is Reason.POLICY_DENIED
        assert len(api.requests()) == before


def test_a_denied_upload_is_read_until_its_sender_can_read_why(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """Who sends 16 MiB before it reads gets its 403 whole: neither its sending nor ours breaks."""
    world = World(authority, [secure_target(api, authority)], rules=ONLY_V1)
    body = bytes(16 << 20)
    head = get("/denied").replace(b"GET", b"POST")[:-2] + b"Content-Length: %d\r\n\r\n" % len(body)
    with harness(world, near, tmp_path) as worker:
        for encrypted in (False, True):
            with secure(worker, authority) if encrypted else worker.connect(port=80) as sock:
                sock.sendall(head + body)
                answer = parse(read_all(sock))
            assert answer.status == 403
            assert answer.body.endswith(b"}")


def test_answers_that_end_with_their_connection_follow_each_other(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """On one connection of a loop: each is complete, and the next request gets a new upstream."""

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        conversation.sock.unwrap()  # type: ignore[attr-defined]  # it is under TLS

    with scripted_server(script, authority.identity(HOST)) as server:
        world = World(authority, [target(dial_port=server.port, ca_pem=authority.pem)])
        with harness(world, near, tmp_path) as worker, secure(worker, authority) as sock:
            for _ in range(3):
                sock.sendall(get("/", close=False))
                assert b"Transfer-Encoding: chunked" in read_head(sock)
                assert read_until(sock, b"0\r\n\r\n") == b"5\r\nhello\r\n0\r\n\r\n"
            assert len(server.conversations) == 3


def test_an_answer_is_there_for_who_reads_it_behind_the_body(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """An upstream that answers at once: a client that sends its whole body first gets it."""
    size = 16 << 20

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
        conversation.count_until_end(size)

    with scripted_server(script, authority.identity(HOST)) as server:
        world = World(authority, [target(dial_port=server.port, ca_pem=authority.pem)])
        with harness(world, near, tmp_path) as worker, secure(worker, authority) as sock:
            head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n"
            sock.sendall(head.encode() + bytes(size))
            assert parse(read_all(sock)).body == b"early"


def test_an_expired_grant_denies(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """A grant is worth nothing after its time."""
    world = World(authority, [secure_target(api, authority)], expires_ms=1)
    with harness(world, near, tmp_path) as worker:
        answer = call(worker, authority, get("/v1/orders"))
        assert (answer.status, b"grant-expired" in answer.body) == (403, True)


def test_a_flow_with_one_kernel_fact_gets_no_credential(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """Injection needs tag and cgroup, whatever the broker says."""
    world = World(authority, [secure_target(api, authority)], evidence=Evidence.CGROUP_ONLY)
    with harness(world, near, tmp_path) as worker:
        assert call(worker, authority, get("/v1/orders")).status == 503


def test_an_unlisted_address_in_clear_text_gets_a_403(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """The loop is told why and what to do; the session is recorded without a target."""
    with harness(World(authority, [secure_target(api, authority)]), near, tmp_path) as worker:
        with worker.connect("198.18.99.99", port=80) as sock:
            sock.sendall(get("/", host="elsewhere.example"))
            answer = parse(read_all(sock))
        assert (answer.status, b"Ask for a target" in answer.body) == (403, True)
        assert worker.wait_for(SessionClosed)[0].reason is Reason.DESTINATION_UNLISTED
        assert worker.of(SessionOpened)[0].target is None


def test_an_unlisted_address_under_tls_gets_an_alert(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """No certificate is minted for what the policy does not name: a TLS alert ends it."""
    with harness(World(authority, [secure_target(api, authority)]), near, tmp_path) as worker:
        sock = worker.connect("198.18.99.99", port=443)
        context = ssl.create_default_context(cadata=authority.pem)
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            context.wrap_socket(sock, server_hostname="elsewhere.example")
        sock.close()
        assert worker.wait_for(SessionClosed)[0].reason is Reason.DESTINATION_UNLISTED
        assert not [one for one in worker.messages if type(one).__name__ == "SignLeaf"]


@pytest.mark.parametrize("name", ["other.example.com", None])
def test_a_tls_name_that_is_not_the_targets_is_answered_421(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path, name: str | None
) -> None:
    """Another SNI, or none, on the target's address: 421 with what to do, though the Host fits.

    The certificate is the target's, whatever name was asked for. Nothing goes upstream, and a
    connection that names the target is served beside it.
    """
    with harness(World(authority, [secure_target(api, authority)]), near, tmp_path) as worker:
        context = ssl.create_default_context(cadata=authority.pem)
        context.check_hostname = False
        before = api.requests()
        for _ in range(2):  # the second finds the certificate there
            with context.wrap_socket(worker.connect(), server_hostname=name) as sock:
                shown = sock.getpeercert()
                sock.sendall(get("/"))
                answer = parse(read_all(sock))
            assert shown is not None
            assert shown["subjectAltName"] == (("DNS", "api.example.com"),)
            assert (answer.status, b"destination-mismatch" in answer.body) == (421, True)
        (denied,) = {record.reason for record in worker.wait_for(OperationDenied, 2)}
        assert denied is Reason.DESTINATION_MISMATCH
        assert api.requests() == before
        with context.wrap_socket(worker.connect(), server_hostname="api.example.com") as sock:
            sock.sendall(get("/v1/orders"))
            assert parse(read_all(sock)).status == 200


def test_a_client_that_speaks_only_http2_gets_an_alert(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """ALPN without http/1.1 is refused in TLS's own words."""
    with harness(World(authority, [secure_target(api, authority)]), near, tmp_path) as worker:
        sock = worker.connect()
        context = ssl.create_default_context(cadata=authority.pem)
        context.set_alpn_protocols(["h2"])
        with pytest.raises(ssl.SSLError, match="no application protocol"):
            context.wrap_socket(sock, server_hostname="api.example.com")
        sock.close()


def test_a_client_that_does_not_trust_us_is_recorded(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """A pinned client refuses our leaf: TLS_FAILED, and no lease was taken."""
    with harness(World(authority, [secure_target(api, authority)]), near, tmp_path) as worker:
        with pytest.raises(ssl.SSLCertVerificationError):
            secure(worker, Authority("somebody else"))
        assert worker.wait_for(SessionClosed)[0].reason is Reason.TLS_FAILED
        assert not [one for one in worker.messages if type(one).__name__ == "TakeLease"]


@pytest.mark.parametrize(
    ("name", "days", "signer"),
    [
        ("api.example.com", 1, "somebody else"),
        ("other.example.com", 1, "tests"),
        ("api.example.com", -1, "tests"),
    ],
    ids=["wrong-ca", "wrong-name", "expired"],
)
def test_an_upstream_that_does_not_verify_gets_nothing(
    authority: Authority, near: Namespace, tmp_path: Path, name: str, days: int, signer: str
) -> None:
    """Wrong CA, wrong name, expired: the loop gets 502 and the server not one byte."""
    by = authority if signer == "tests" else Authority(signer)
    with scripted_server(answering(b""), by.identity(name, days=days)) as server:
        one = target(dial_port=server.port, ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            answer = call(worker, authority, get("/v1/orders"))
            assert (answer.status, b"upstream-untrusted" in answer.body) == (502, True)
        assert server.received == b""


def test_an_upstream_that_refuses_connections_is_a_502(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Nobody listens at the policy's address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        one = target(dial_port=unused.getsockname()[1], ca_pem=authority.pem)
        with harness(World(authority, [one]), near, tmp_path) as worker:
            answer = call(worker, authority, get("/v1/orders"))
            assert (answer.status, b"upstream-unreachable" in answer.body) == (502, True)


def test_a_connection_of_nobody_is_reset(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Unattributed is a result: reset before a byte, recorded with why."""
    with harness(World(authority, [target()]), near, tmp_path) as worker:
        assert is_reset(worker, mark=UNATTRIBUTED_MARK)
        assert worker.wait_for(SessionRefused)[0].reason is Reason.UNATTRIBUTED


def test_a_connection_to_the_listener_itself_is_reset(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Who was not redirected to us has no business here."""
    with harness(World(authority, [target()]), near, tmp_path) as worker:
        assert is_reset(worker, "127.0.0.1", 15001)
        refused = worker.wait_for(SessionRefused)[0]
        assert "listener" in refused.flow.detail


def test_upstream_connections_are_reused_for_the_same_run_and_lease_only(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Two sessions of a run share one upstream connection; another run gets its own."""
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with scripted_server(answering(response), authority.identity("api.example.com")) as server:
        world = World(authority, [target(dial_port=server.port, ca_pem=authority.pem)])
        world.runs[2] = RunId("01ARZ3NDEKTSV4RRFFQ69G5FAV")
        with harness(world, near, tmp_path) as worker:
            sessions = ((1, 1), (1, 1), (2, 2), (2, 2))
            for closed, (mark, connections) in enumerate(sessions, 1):
                with secure(worker, authority, mark=mark) as sock:
                    sock.sendall(get("/", close=False))
                    assert read_head(sock).startswith(b"HTTP/1.1 200 ")
                    assert read_exactly(sock, 2) == b"ok"
                worker.wait_for(SessionClosed, closed)
                assert len(server.conversations) == connections


def test_a_target_named_by_an_address_needs_no_tls_name(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """A target whose host is an IP literal is served without SNI, and verified by that address."""
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with scripted_server(answering(response), authority.identity("198.18.0.1")) as server:
        one = dataclasses.replace(
            target(dial_port=server.port, ca_pem=authority.pem), host="198.18.0.1"
        )
        with harness(World(authority, [one]), near, tmp_path) as worker:
            sock = secure(worker, authority, name="198.18.0.1")
            sock.sendall(get("/", host="198.18.0.1"))
            assert parse(read_all(sock)).body == b"ok"
            sock.close()
