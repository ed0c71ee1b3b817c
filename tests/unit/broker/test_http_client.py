"""HTTP requests of providers: who is talked to, what is bounded, and what rogue servers get."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from agent.broker.http_client import REPLY_BYTES_MAX, URL_CHARACTERS_MAX, Http
from agent.broker.sources import BrokerClient
from agent.credentials.spec import (
    HTTP_BODY_BYTES_MAX,
    HTTP_HEADER_BYTES_MAX,
    SECRET_BYTES_MAX,
    CredentialError,
    HttpReply,
    HttpRequest,
)
from agent.model.secret import Secret
from tests.servers.certificates import Authority
from tests.servers.scripted import Conversation, Scripted, answering, scripted_server
from tests.unit.broker.passing import Deadlines

CANARY = "c4n4ry-http-51c0"
OK = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 04:00:00 GMT\r\nContent-Length: 2\r\n\r\nok"
Run = Callable[[HttpRequest], HttpReply]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def send(request: pytest.FixtureRequest) -> Run:
    """Send a request on each of the event loops that we run on."""

    def run(asked: HttpRequest) -> HttpReply:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(Http().request(asked))

    return run


def asking(server: Scripted, path: str = "/", **changes: object) -> HttpRequest:
    """Return a request to a server without TLS."""
    return HttpRequest("GET", f"http://127.0.0.1:{server.port}{path}", **changes)  # type: ignore[arg-type]


def refused(send: Run, asked: HttpRequest) -> CredentialError:
    """Return why there is no answer; it has nothing of the request's secrets."""
    with pytest.raises(CredentialError) as caught:
        send(asked)
    assert CANARY not in str(caught.value)
    return caught.value


@contextmanager
def tls_server(folder: Path, name: str = "127.0.0.1") -> Iterator[tuple[Scripted, Path]]:
    """Run a TLS server of that name; return it and its CA's file."""
    authority = Authority()
    ca = folder / "ca.pem"
    ca.write_text(authority.pem)
    with scripted_server(answering(OK), authority.identity(name)) as server:
        yield server, ca


def test_an_exchange(send: Run) -> None:
    """Method, path, query, fields and body arrive; status, fields, body and the clock return."""
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nX-One: a\r\nRetry-After: 7\r\n"
        b"Date: Mon, 23 Nov 2026 04:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    with scripted_server(answering(answer)) as server:
        headers: Mapping[str, str | Secret] = {"X-Token": Secret(CANARY.encode()), "X-Plain": "p"}
        asked = HttpRequest(
            "POST",
            f"http://127.0.0.1:{server.port}/v1/a%20b?c=d",
            headers,
            Secret(b'{"k": 1}'),
        )
        assert CANARY not in repr(asked)
        reply = send(asked)
    assert (reply.status, reply.body.reveal()) == (404, b"abcde")
    assert (reply.header("x-one"), reply.header("retry-after"), reply.header("no")) == (
        "a",
        "7",
        "",
    )
    assert reply.date_ms == 1_795_406_400_000
    sent = server.received
    assert sent.startswith(b"POST /v1/a%20b?c=d HTTP/1.1\r\n")
    for line in (f"X-Token: {CANARY}", "X-Plain: p", "Content-Length: 8", "Connection: close"):
        assert line.encode() + b"\r\n" in sent
    assert sent.endswith(b'\r\n\r\n{"k": 1}')


def test_no_redirection_is_followed_and_no_proxy_asked(
    send: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirection is an answer; what the environment says of proxies is not read."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    redirection = b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with scripted_server(answering(redirection)) as server:
        reply = send(asking(server))
    assert reply.status == 307
    assert reply.date_ms == 0
    assert len(server.conversations) == 1


def test_the_server_is_verified(send: Run, tmp_path: Path) -> None:
    """Of the right CA and name it gets the request; of another it gets nothing at all."""
    with tls_server(tmp_path) as (server, ca):
        url = f"https://127.0.0.1:{server.port}/"
        assert send(HttpRequest("GET", url, ca=str(ca))).body.reveal() == b"ok"
        secret = {"X-Token": Secret(CANARY.encode())}
        error = refused(send, HttpRequest("GET", url, secret))
        assert error.nothing_made
        assert not error.transient
    with tls_server(tmp_path, "elsewhere.internal") as (server, ca):
        url = f"https://127.0.0.1:{server.port}/"
        error = refused(send, HttpRequest("GET", url, secret, ca=str(ca)))
        assert "is not 127.0.0.1" in str(error)
        assert server.received == b""
    for path in ("/dev/null", "/nonexistent"):
        assert "CA file" in str(refused(send, HttpRequest("GET", url, ca=path)))


def test_nothing_goes_in_clear_but_to_loopback(send: Run) -> None:
    """Nor to a name, which may be anybody's; the operator may allow it."""
    for host in ("192.0.2.1", "localhost", "vault.internal", "[::ffff:192.0.2.1]"):
        asked = HttpRequest("GET", f"http://{host}:1/", {"X": Secret(CANARY.encode())})
        error = refused(send, asked)
        assert "in clear" in str(error)
        assert error.nothing_made
    with scripted_server(answering(OK)) as server:
        url = f"http://localhost:{server.port}/"
        assert send(HttpRequest("GET", url, allow_cleartext=True)).status == 200


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/", "https:///", "https://user:pw@127.0.0.1/", "https://127.0.0.1/a b",
        "https://127.0.0.1/#f", "https://127.0.0.1:99999/", "https://[::1/", "127.0.0.1:8200/",
        "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/\u00e9",
        "http://127.0.0.1/" + "x" * URL_CHARACTERS_MAX,
    ],
)  # fmt: skip
def test_urls_that_are_none(send: Run, url: str) -> None:
    """Refused before anything is sent."""
    assert refused(send, HttpRequest("GET", url)).nothing_made


def test_a_token_that_is_no_field_value(send: Run) -> None:
    """It can't smuggle a second field or request, and is not shown."""
    with scripted_server(answering(OK)) as server:
        for value in (b"a\r\nX: y", b"a\nb", b"a\0b"):
            asked = asking(server, headers={"X": Secret(CANARY.encode() + value)})
            assert refused(send, asked).nothing_made
        assert server.received == b""


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"H", id="status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: 1\r\n", id="fields"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", id="body"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="never the answer"),
    ],
)
def test_a_server_that_trickles(send: Run, monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    """One byte now and then does not extend the deadline."""
    deadlines = Deadlines()
    monkeypatch.setattr(asyncio, "timeout", deadlines.timeout)

    def drip(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        deadlines.pass_soon()
        conversation.send(piece)
        while True:
            time.sleep(0.05)
            conversation.send(piece if piece.endswith(b"\r\n\r\n") and b"100" in piece else b"x")

    with scripted_server(drip) as server:
        error = refused(send, asking(server, within_s=0.5))
    assert "did not answer within 0.5 s" in str(error)
    assert deadlines.asked_s == [0.5]
    assert error.transient
    assert not error.nothing_made


def test_a_server_that_says_nothing(send: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before TLS is up, certainly nothing was made."""
    deadlines = Deadlines()

    def silent(conversation: Conversation) -> None:
        if conversation.read_until(b"\r\n\r\n").startswith(b"GET"):
            deadlines.pass_soon()
        conversation.read_until(b"never")

    with scripted_server(silent) as server:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "timeout", deadlines.timeout)
            assert not refused(send, asking(server, within_s=0.3)).nothing_made
        url = f"https://127.0.0.1:{server.port}/"
        assert refused(send, HttpRequest("GET", url, within_s=0.3)).nothing_made
    assert refused(send, HttpRequest("GET", "http://127.0.0.1:1/")).nothing_made


def test_sizes(send: Run) -> None:
    """A body of SECRET_BYTES_MAX is an answer, one byte more is none; so with fields."""

    def body(size: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size)

    with scripted_server(answering(body(SECRET_BYTES_MAX))) as server:
        assert len(send(asking(server)).body.reveal()) == SECRET_BYTES_MAX
    with scripted_server(answering(body(SECRET_BYTES_MAX + 1))) as server:
        assert f"more than {SECRET_BYTES_MAX}" in str(refused(send, asking(server)))
    fields = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: %s\r\n\r\n"
    most = HTTP_HEADER_BYTES_MAX - len("Content-Length0X")
    with scripted_server(answering(fields % (b"x" * most))) as server:
        assert send(asking(server)).status == 200
    with scripted_server(answering(fields % (b"x" * (most + 1)))) as server:
        error = refused(send, asking(server))
        assert "HTTP/1.1" in str(error) or f"more than {HTTP_HEADER_BYTES_MAX}" in str(error)
    endless = b"HTTP/1.1 100 C\r\n\r\n" * (REPLY_BYTES_MAX // 18 + 1)
    with scripted_server(answering(endless)) as server:
        assert f"more than {REPLY_BYTES_MAX}" in str(refused(send, asking(server)))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        f"HTTP/1.1 2xx {CANARY}\r\n\r\n".encode(),
    ],
)
def test_answers_that_are_none(send: Run, answer: bytes) -> None:
    """Refused, without a word of theirs."""

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(answer)
        conversation.sock.shutdown(socket.SHUT_WR)

    with scripted_server(script) as server:
        error = refused(send, asking(server))
    assert error.transient
    assert not error.nothing_made


def test_a_larger_body_is_asked_for() -> None:
    """By the request, up to HTTP_BODY_BYTES_MAX; one byte more than asked for is no answer."""

    def body(size: int) -> bytes:
        return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size

    async def ask(server: Scripted, most: int) -> int:
        asked = asking(server, body_bytes_max=most)
        return len((await BrokerClient({}, {}).http(asked)).body.reveal())

    for size, most in ((20_000, 20_000), (HTTP_BODY_BYTES_MAX, 1 << 30)):
        with scripted_server(answering(body(size))) as server:
            assert asyncio.run(ask(server, most)) == size
    for size, most in ((20_001, 20_000), (HTTP_BODY_BYTES_MAX + 1, 1 << 30)):
        with (
            scripted_server(answering(body(size))) as server,
            pytest.raises(CredentialError, match="more than"),
        ):
            asyncio.run(ask(server, most))
