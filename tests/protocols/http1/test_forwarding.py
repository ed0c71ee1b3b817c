"""What goes upstream: canonical, with the credential, without what the loop may not say."""

import base64

import pytest

from agent.model.credential import (
    Basic,
    Bearer,
    ClientCertificate,
    Credential,
    Header,
    QueryParameter,
    Shape,
)
from agent.model.grant import UpstreamTls
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.protocols.http1 import SPEC
from agent.wire.commands import OpenUpstream, RecordIntent, RequestLease
from agent.wire.events import UpstreamOpened
from tests.conformance.conductor import CANARY, Conductor, World, lease, target
from tests.protocols.http1.server import Seen, Server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = b"Host: api.example.com\r\n"


def _world(credential: Credential, shape: Shape) -> tuple[World, Server]:
    server = Server((OK,))
    return World(target=target(shape=shape), lease=lease(credential), server=server), server


def _forwarded(request: bytes, world: World, server: Server) -> Seen:
    conductor = Conductor(SPEC, world)
    conductor.down(request)
    conductor.down_eof()
    conductor.check_ended()
    assert len(server.requests) == 1
    return server.requests[0]


def _bearer(request: bytes) -> Seen:
    return _forwarded(request, *_world(Bearer(Secret(CANARY)), Shape.BEARER))


def test_bearer() -> None:
    """A bearer token goes into Authorization; the loop's own is gone."""
    seen = _bearer(b"GET / HTTP/1.1\r\n" + HOST + b"authorization: Bearer mine\r\n\r\n")
    assert seen.header(b"authorization") == [b"Bearer " + CANARY]


def test_an_encoded_slash_is_judged_and_forwarded_as_it_is() -> None:
    """What the policy sees has it too: readings of it are the policy's to allow."""
    world, server = _world(Bearer(Secret(CANARY)), Shape.BEARER)
    conductor = Conductor(SPEC, world)
    conductor.down(b"GET /npm/@a%2fb HTTP/1.1\r\n" + HOST + b"\r\n")
    assert [one.resource for one in conductor.judged] == ["/npm/@a%2Fb"]
    assert server.requests[0].target == b"/npm/@a%2Fb"


def test_basic() -> None:
    """User and password go into Authorization as RFC 7617 says."""
    world, server = _world(Basic("user", Secret(CANARY)), Shape.BASIC)
    seen = _forwarded(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", world, server)
    assert seen.header(b"authorization") == [b"Basic " + base64.b64encode(b"user:" + CANARY)]


@pytest.mark.parametrize("own", [b"X-Api-Key: a", b"x-api-key: a\r\nX-API-KEY: b", b"X_Api_Key: a"])
def test_header(own: bytes) -> None:
    """A named field replaces all the loop's fields of that name, also with underscores."""
    world, server = _world(Header("X-Api-Key", Secret(CANARY)), Shape.HEADER)
    seen = _forwarded(b"GET / HTTP/1.1\r\n" + HOST + own + b"\r\n\r\n", world, server)
    assert seen.header(b"x-api-key") == [CANARY]
    assert seen.header(b"x_api_key") == []


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"", b""),
        (b"?", b"&"),
        (b"?key=mine", b""),
        (b"?a=1&key=mine&b=2", b"a=1&b=2&"),
        (b"?KEY=mine", b""),
        (b"?%6bey=mine", b""),
        (b"?key", b""),
        (b"?a=1;key=mine", b""),
        (b"?a=key", b"a=key&"),
    ],
)
def test_query_parameter(query: bytes, kept: bytes) -> None:
    """A query parameter replaces the loop's of that name, however it is spelled."""
    world, server = _world(QueryParameter("key", Secret(CANARY + b"&/")), Shape.QUERY_PARAMETER)
    seen = _forwarded(b"GET /a" + query + b" HTTP/1.1\r\n" + HOST + b"\r\n", world, server)
    if query == b"?":
        kept = b""
    assert seen.target == b"/a?" + kept + b"key=" + CANARY + b"%26%2F"


def test_a_client_certificate_changes_no_request() -> None:
    """It is leased before there is an upstream, and shown in TLS; the loop's credentials go."""
    key = Secret(b"-----BEGIN PRIVATE KEY-----\n" + CANARY + b"\n-----END PRIVATE KEY-----\n")
    world, server = _world(ClientCertificate("", "chain", key), Shape.CLIENT_CERTIFICATE)
    conductor = Conductor(SPEC, world)
    own = b"Authorization: Bearer mine\r\nA: b\r\n"
    conductor.down(b"GET /a?b=c HTTP/1.1\r\n" + HOST + own + b"\r\n")
    conductor.down_eof()
    conductor.check_ended()
    [seen] = server.requests
    assert seen.target == b"/a?b=c"
    assert {name for name, _ in seen.headers} == {b"host", b"a", b"accept-encoding"}
    kinds = [type(each) for each in conductor.commands]
    assert kinds.index(RequestLease) < kinds.index(OpenUpstream)
    [intent] = [each for each in conductor.commands if isinstance(each, RecordIntent)]
    assert intent.lease_id == "L" * 26


@pytest.mark.parametrize("allow_cleartext", [False, True])
def test_a_client_certificate_needs_tls(allow_cleartext: bool) -> None:
    """Whatever the target allows: nothing is leased, and nothing opened."""
    chosen = target(
        shape=Shape.CLIENT_CERTIFICATE, tls=UpstreamTls.NONE, allow_cleartext=allow_cleartext
    )
    conductor = Conductor(SPEC, World(target=chosen, tls_name=None))
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    conductor.down_eof()
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 502 ")
    assert [record.reason for record in conductor.denied] == [Reason.CLEARTEXT_REFUSED]
    kinds = {type(command) for command in conductor.commands}
    assert not kinds & {RequestLease, OpenUpstream}


def test_hop_by_hop_fields_end_here() -> None:
    """Fields of this connection, and credentials of the loop, are not forwarded."""
    fields = (
        b"Connection: keep-alive, TE\r\nKeep-Alive: 5\r\nTE: trailers\r\nTrailer: X\r\n"
        b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nProxy: http://a\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-Own: yes\r\nCookie: a=b\r\n"
    )
    seen = _bearer(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert {name for name, _ in seen.headers} == {
        b"host", b"x-own", b"cookie", b"accept-encoding", b"authorization",
    }  # fmt: skip


@pytest.mark.parametrize("offer", [b"TLS/1.2", b"h2c", b"H2C, tls/1.0"])
def test_an_offer_that_nobody_has_to_take_is_ignored(offer: bytes) -> None:
    """Clients that offer TLS or HTTP/2 in clear text go on without it (RFC 9110 section 7.8)."""
    fields = b"Connection: Upgrade\r\nUpgrade: " + offer + b"\r\n"
    seen = _bearer(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert {name for name, _ in seen.headers} == {b"host", b"accept-encoding", b"authorization"}


def test_only_what_can_be_scanned_is_asked_for() -> None:
    """With a credential the answer is asked for without content coding and without ranges."""
    fields = b"Accept-Encoding: gzip\r\nRange: bytes=0-9\r\nIf-Range: x\r\n"
    seen = _bearer(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert seen.header(b"accept-encoding") == [b"identity"]
    assert seen.header(b"range") + seen.header(b"if-range") == []


def test_without_a_credential_nothing_is_leased_or_limited() -> None:
    """A target without credential: no lease, no injection, codings and ranges pass."""
    server = Server((b"HTTP/1.1 206 P\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",))
    world = World(target=target(shape=None), server=server)
    conductor = Conductor(SPEC, world)
    fields = b"Accept-Encoding: gzip\r\nRange: bytes=0-9\r\nAuthorization: x\r\n"
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    conductor.down_eof()
    conductor.check_ended()
    assert not any(isinstance(command, RequestLease) for command in conductor.commands)
    assert server.requests[0].header(b"range") == [b"bytes=0-9"]
    assert server.requests[0].header(b"authorization") == []
    assert b"HTTP/1.1 206 P" in conductor.to_loop


def test_the_operation_says_what_is_forwarded() -> None:
    """Verb and resource are the forwarded method and path; values of the query are not recorded."""
    conductor = Conductor(SPEC, World(server=Server((OK,))))
    conductor.down(
        b"POST /a%7e/%c3%a4?token=s3cret&b HTTP/1.1\r\n" + HOST + b"User-Agent: curl/8\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
    )
    operation = conductor.judged[0]
    assert (operation.protocol, operation.verb) == ("http", "POST")
    assert operation.resource == "/a~/%C3%A4"
    assert conductor.to_server.startswith(b"POST /a~/%C3%A4?token=s3cret&b HTTP/1.1\r\n")
    assert dict(operation.attributes) == {
        "query-keys": "token,b",
        "content-length": "2",
        "content-type": "text/plain",
        "user-agent": "curl/8",
    }


def test_long_attributes_are_bounded() -> None:
    """A long field is recorded as its head, its hash and its tail."""
    conductor = Conductor(SPEC, World(server=Server((OK,))))
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + b"User-Agent: " + b"a" * 5000 + b"z\r\n\r\n")
    agent = dict(conductor.judged[0].attributes)["user-agent"]
    assert len(agent) <= 256
    assert "sha256:" in agent
    assert agent.endswith("az")


def test_one_lease_and_one_upstream_serve_many_requests() -> None:
    """Lease and connection are asked for once; each request is judged and recorded."""
    server = Server((OK,))
    conductor = Conductor(SPEC, World(server=server))
    conductor.down((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 5)
    conductor.down_eof()
    conductor.check_ended()
    kinds = [type(command) for command in conductor.commands]
    assert (kinds.count(RequestLease), kinds.count(OpenUpstream)) == (1, 1)
    assert len(server.requests) == len(conductor.judged) == len(conductor.outcomes) == 5


def test_cleartext_is_refused_before_anything_is_opened() -> None:
    """A target without TLS gets no credential: not leased, not opened, not sent; 502."""
    conductor = Conductor(SPEC, World(target=target(tls=UpstreamTls.NONE, port=80), tls_name=None))
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    conductor.down_eof()
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 502 ")
    assert [record.reason for record in conductor.denied] == [Reason.CLEARTEXT_REFUSED]
    kinds = {type(command) for command in conductor.commands}
    assert not kinds & {RequestLease, OpenUpstream}


def test_cleartext_by_surprise_is_refused() -> None:
    """An upstream that turns out not to be under TLS is closed with nothing sent."""
    conductor = Conductor(SPEC, World(opened=UpstreamOpened("192.0.2.1:80", encrypted=False)))
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    conductor.down_eof()
    conductor.check_ended()
    assert not conductor.to_server
    assert [record.reason for record in conductor.denied] == [Reason.CLEARTEXT_REFUSED]


def test_cleartext_may_be_allowed() -> None:
    """allow_cleartext on the target lets the credential go."""
    named = target(tls=UpstreamTls.NONE, port=80, allow_cleartext=True)
    server = Server((OK,))
    opened = UpstreamOpened("192.0.2.1:80", encrypted=False)
    conductor = Conductor(SPEC, World(target=named, tls_name=None, opened=opened, server=server))
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert server.requests[0].header(b"authorization") == [b"Bearer " + CANARY]


@pytest.mark.parametrize(
    "wrong",
    [
        lease(Basic("u", Secret(CANARY))),
        lease(Bearer(Secret(CANARY)), name="another"),
        lease(Bearer(Secret(b"short"))),
        lease(Bearer(Secret(b"has\r\nInjected: field"))),
        lease(Bearer(Secret(b"trailing space "))),
    ],
)
def test_a_lease_that_does_not_fit(wrong: object) -> None:
    """Another shape, another target, or a value that can't stand in a field: 503, nothing sent."""
    conductor = Conductor(SPEC, World(lease=wrong))  # type: ignore[arg-type]
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    conductor.down_eof()
    conductor.check_ended()
    assert not conductor.to_server
    assert conductor.to_loop.startswith(b"HTTP/1.1 503 ")
    assert [record.reason for record in conductor.denied] == [Reason.CREDENTIAL_MISFIT]


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "Transfer-Encoding", "Connection", "a b"]
)
def test_a_credential_field_can_not_be_framing(name: str) -> None:
    """A header credential can't replace a field that frames or routes the request."""
    world, _ = _world(Header(name, Secret(CANARY)), Shape.HEADER)
    conductor = Conductor(SPEC, world)
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    conductor.down_eof()
    assert not conductor.to_server
    assert [record.reason for record in conductor.denied] == [Reason.CREDENTIAL_MISFIT]
