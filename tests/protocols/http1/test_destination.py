"""Destination binding: SNI and Host must both name the target, else 421, nothing upstream."""

import pytest

from agent.model.grant import Target, UpstreamTls
from agent.model.reason import Reason
from agent.protocols.http1 import SPEC
from agent.wire.commands import OpenUpstream, RequestLease
from tests.conformance.conductor import Conductor, World, target
from tests.protocols.http1.server import Server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
API = target()
OTHER_PORT = target(port=8443)
CLEAR = target(port=8080, tls=UpstreamTls.NONE, allow_cleartext=True)
IPV4 = target(host="192.0.2.7", synthetic4="", synthetic6="")
IPV6 = target(host="2001:db8::7", synthetic4="", synthetic6="")
NAME = "api.example.com"

MISMATCHES: tuple[tuple[Target, str | None, bytes], ...] = (
    # SNI names the target, Host another
    (API, NAME, b"evil.example.com"),
    (API, NAME, b"api.example.com.evil.com"),
    (API, NAME, b"evil.com.api.example.com"),
    (API, NAME, b"xapi.example.com"),
    (API, NAME, b"example.com"),
    (API, NAME, b"api.example.com:80"),
    (API, NAME, b"api.example.com:8443"),
    (API, NAME, b"api.example.com:0443443"),
    (API, NAME, b"api.example.com:"),
    (API, NAME, b"api.example.com:443:443"),
    (API, NAME, b"api.example.com:+443"),
    (API, NAME, b"api.example.com.."),
    (API, NAME, b"api..example.com"),
    (API, NAME, b".api.example.com"),
    (API, NAME, b"api.example.com/"),
    (API, NAME, b"api.example.com/admin"),
    (API, NAME, b"api.example.com?x"),
    (API, NAME, b"api.example.com#x"),
    (API, NAME, b"user@api.example.com"),
    (API, NAME, b"api.example.com@evil.com"),
    (API, NAME, b"api.example.com,evil.com"),
    (API, NAME, b"api.example.com evil.com"),
    (API, NAME, b"api.example.com\\evil.com"),
    (API, NAME, b"api%2eexample.com"),
    (API, NAME, "api\u3002example.com".encode()),
    (API, NAME, "\uff41pi.example.com".encode()),
    (API, NAME, b"[api.example.com]"),
    (API, NAME, b"192.0.2.1"),
    (API, NAME, b"198.18.0.1"),
    (API, NAME, b"[fd00::1]"),
    (API, NAME, b"localhost"),
    (API, NAME, b""),
    # Host names the target, SNI another, or none
    (API, "evil.example.com", b"api.example.com"),
    (API, "example.com", b"api.example.com"),
    (API, "api.example.com.evil.com", b"api.example.com"),
    (API, "", b"api.example.com"),
    (API, "192.0.2.1", b"api.example.com"),
    # both name another
    (API, "evil.example.com", b"evil.example.com"),
    # clear text
    (API, None, b"evil.example.com"),
    (API, None, b"api.example.com:8080"),
    (CLEAR, None, b"api.example.com:443"),
    (CLEAR, None, b"api.example.com:8081"),
    (CLEAR, NAME, b"api.example.com"),
    # another port
    (OTHER_PORT, NAME, b"api.example.com"),
    (OTHER_PORT, NAME, b"api.example.com:443"),
    # address literals
    (IPV4, "", b"192.0.2.8"),
    (IPV4, "", b"192.0.2.07"),
    (IPV4, "", b"3221225991"),
    (IPV4, NAME, b"192.0.2.7"),
    (IPV6, "", b"[2001:db8::8]"),
    (IPV6, "", b"2001:db8::7"),
    (IPV6, "", b"[2001:db8::7%25eth0]"),
)
MATCHES: tuple[tuple[Target, str | None, bytes, bytes], ...] = (
    (API, NAME, b"api.example.com", b"api.example.com"),
    (API, NAME, b"API.Example.COM", b"api.example.com"),
    (API, NAME, b"api.example.com.", b"api.example.com"),
    (API, NAME, b"api.example.com:443", b"api.example.com"),
    (API, "API.example.com.", b"api.example.com", b"api.example.com"),
    (API, None, b"api.example.com", b"api.example.com"),
    (API, None, b"api.example.com:80", b"api.example.com"),
    (API, None, b"api.example.com:443", b"api.example.com"),
    (OTHER_PORT, NAME, b"api.example.com:8443", b"api.example.com:8443"),
    (OTHER_PORT, None, b"api.example.com", b"api.example.com:8443"),
    (CLEAR, None, b"api.example.com:8080", b"api.example.com:8080"),
    (CLEAR, None, b"api.example.com", b"api.example.com:8080"),
    (IPV4, "", b"192.0.2.7", b"192.0.2.7"),
    (IPV6, "", b"[2001:0DB8:0:0::7]", b"[2001:db8::7]"),
    (IPV6, None, b"[2001:db8::7]:443", b"[2001:db8::7]"),
)


def _request(host: bytes) -> bytes:
    return b"GET /a HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def test_the_table_is_long_enough() -> None:
    """There are at least 24 mismatches."""
    assert len(MISMATCHES) >= 24


@pytest.mark.parametrize(("named", "tls_name", "host"), MISMATCHES)
def test_a_mismatch_is_421(named: Target, tls_name: str | None, host: bytes) -> None:
    """421, recorded, the session ends; no lease was asked for and nothing opened or sent."""
    conductor = Conductor(SPEC, World(target=named, tls_name=tls_name))
    conductor.down(_request(host) + _request(b"api.example.com"))
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 421 ")
    assert conductor.to_loop.count(b"HTTP/1.1 ") == 1
    assert not conductor.to_server
    assert not any(isinstance(c, OpenUpstream | RequestLease) for c in conductor.commands)
    assert [record.reason for record in conductor.denied] == [Reason.DESTINATION_MISMATCH]


HOST = b"Host: api.example.com\r\n"
BEGINNINGS = (
    (b"CONNECT api.example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n", b"405"),
    (b"TRACE /a HTTP/1.1\r\n" + HOST + b"\r\n", b"405"),
    (b"GET https://api.example.com/a HTTP/1.1\r\n" + HOST + b"\r\n", b"421"),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", b"421"),
    (b"GET /a HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"421"),
    (b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", b"421"),
    (b"POST /a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", b"421"),
    (b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"421"),
    (b"GET /a HTTP/1.1\r\n\r\n", b"400"),
)


@pytest.mark.parametrize("tls_name", ["evil.example.com", ""])
@pytest.mark.parametrize(("begins", "status"), BEGINNINGS)
def test_nothing_goes_up_from_a_connection_with_another_tls_name(
    tls_name: str, begins: bytes, status: bytes
) -> None:
    """However its first request begins, and what comes behind it: refused, nothing opened."""
    conductor = Conductor(SPEC, World(tls_name=tls_name))
    conductor.down(begins)
    conductor.down(_request(b"api.example.com"))
    conductor.down_eof()
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 " + status + b" ")
    assert b"HTTP/1.1 1" not in conductor.to_loop
    assert b"HTTP/1.1 2" not in conductor.to_loop
    assert not conductor.to_server
    assert not any(isinstance(c, OpenUpstream | RequestLease) for c in conductor.commands)


@pytest.mark.parametrize(("named", "tls_name", "host", "forwarded"), MATCHES)
def test_a_match_is_forwarded_with_the_targets_own_host(
    named: Target, tls_name: str | None, host: bytes, forwarded: bytes
) -> None:
    """Every spelling of the target is let through, and the target's own form is forwarded."""
    server = Server((OK,))
    conductor = Conductor(SPEC, World(target=named, tls_name=tls_name, server=server))
    conductor.down(_request(host))
    conductor.down_eof()
    conductor.check_ended()
    assert server.requests[0].header(b"host") == [forwarded]


def test_each_request_of_a_connection_is_bound() -> None:
    """A connection whose first request fitted does not carry a second one to another host."""
    server = Server((OK,))
    conductor = Conductor(SPEC, World(server=server))
    conductor.down(_request(b"api.example.com") + _request(b"evil.example.com"))
    conductor.check_ended()
    assert len(server.requests) == 1
    assert b"HTTP/1.1 421 " in conductor.to_loop
