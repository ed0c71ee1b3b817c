"""Places that give tokens: what is asked of them, and what their mischief comes to."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.cli.oidc_http import ANSWER_BYTES_MAX, NoToken, azure, github, google, is_github
from tests.servers.certificates import Authority
from tests.servers.scripted import Conversation, Scripted, answering, scripted_server

CANARY = "c4n4ry-request-token"


def _ok(body: bytes, *fields: str) -> bytes:
    head = "\r\n".join(("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields))
    return head.encode() + b"\r\n\r\n" + body


def _metadata(server: Scripted) -> Mapping[str, str]:
    return {
        "GCE_METADATA_HOST": f"127.0.0.1:{server.port}",
        "IDENTITY_ENDPOINT": f"http://127.0.0.1:{server.port}/token",
        "IDENTITY_HEADER": CANARY,
        "http_proxy": "http://127.0.0.1:1",
    }


def test_github_is_asked_as_its_documentation_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's URL with the audience behind it, the job's own token as bearer, over TLS."""
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    body = json.dumps({"count": 1, "value": "a.b.c"}).encode()
    with scripted_server(answering(_ok(body)), authority.identity("localhost")) as server:
        environment = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"https://localhost:{server.port}/t?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": CANARY,
        }
        assert is_github(environment)
        assert github(environment, "a&b") == "a.b.c"
        asked = server.received.decode()
    assert asked.startswith("GET /t?api-version=2.0&audience=a%26b HTTP/1.1\r\n")
    assert f"Authorization: Bearer {CANARY}\r\n" in asked


@pytest.mark.parametrize("url", ["http://localhost/t", "file:///etc/passwd", "ftp://localhost/"])
def test_github_is_asked_over_tls_alone(url: str) -> None:
    """Whatever its variable says."""
    environment = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": CANARY}
    with pytest.raises(NoToken, match="not https"):
        github(environment, "x")


def test_a_server_that_is_not_github_gets_no_bearer(tmp_path: Path) -> None:
    """Its certificate is of no CA that is trusted here."""
    with scripted_server(answering(_ok(b"{}")), Authority().identity("localhost")) as server:
        environment = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"https://localhost:{server.port}/t",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": CANARY,
        }
        with pytest.raises(NoToken, match="certificate"):
            github(environment, "x")
        assert CANARY.encode() not in server.received
    assert not is_github({"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"})
    with pytest.raises(NoToken, match="id-token: write"):
        github({}, "x")


def test_google_answers_as_google() -> None:
    """Asked with its header, without a proxy; an answer without that header is another's."""
    with scripted_server(answering(_ok(b"a.b.c", "Metadata-Flavor: Google"))) as server:
        assert google(_metadata(server), "loopwarden") == "a.b.c"
        asked = server.received.decode()
    assert "/service-accounts/default/identity?audience=loopwarden&format=full " in asked
    assert "Metadata-Flavor: Google\r\n".lower() in asked.lower()
    with (
        scripted_server(answering(_ok(b"a.b.c"))) as server,
        pytest.raises(NoToken, match="no metadata server"),
    ):
        google(_metadata(server), "loopwarden")


def test_azure_gives_an_access_token() -> None:
    """Of the audience as resource, with the header that its endpoint wants."""
    with scripted_server(answering(_ok(b'{"access_token": "a.b.c"}'))) as server:
        assert azure(_metadata(server), "api://x") == "a.b.c"
        asked = server.received.decode()
    assert asked.startswith("GET /token?api-version=2019-08-01&resource=api%3A%2F%2Fx HTTP/1.1")
    assert f"x-identity-header: {CANARY}\r\n" in asked.lower()


MISCHIEF = [
    (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302"),
    (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "answers 500"),
    (_ok(b"x" * (ANSWER_BYTES_MAX + 1)), "sends more than"),
    (_ok(b"not json"), "gave no access_token"),
    (_ok(b'{"access_token": 7}'), "gave no access_token"),
    (_ok(b"[" * 20_000), "gave no access_token"),
    (b"garbage\r\n\r\n", "127.0.0.1"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", "ended before its end"),
]


@pytest.mark.parametrize(("answer", "said"), MISCHIEF)
def test_mischief_is_no_token(answer: bytes, said: str) -> None:
    """In words that hold no secret."""

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(answer)
        conversation.sock.shutdown(socket.SHUT_WR)

    with scripted_server(script) as server, pytest.raises(NoToken) as caught:
        azure(_metadata(server), "x")
    assert said in str(caught.value)
    assert CANARY not in str(caught.value)


def test_an_answer_that_drips_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter now and then does not keep the run waiting."""
    monkeypatch.setattr("agent.cli.oidc_http.METADATA_S", 0.5)

    def script(conversation: Conversation) -> None:
        conversation.read_until(b"\r\n\r\n")
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        conversation.sock.settimeout(0.2)
        while True:
            conversation.send(b"x")
            try:
                if not conversation.sock.recv(1):
                    return
            except TimeoutError:
                continue

    with (
        scripted_server(script) as server,
        pytest.raises(NoToken, match="did not answer within"),
    ):
        azure(_metadata(server), "x")


def test_a_server_that_says_nothing_is_told_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether nothing comes at all, or nothing more behind the head."""
    monkeypatch.setattr("agent.cli.oidc_http.METADATA_S", 0.3)
    for said in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"):

        def script(conversation: Conversation, said: bytes = said) -> None:
            conversation.read_until(b"\r\n\r\n")
            conversation.send(said)
            conversation.read_until(b"never")

        with (
            scripted_server(script) as server,
            pytest.raises(NoToken, match="did not answer within"),
        ):
            azure(_metadata(server), "x")


def test_nobody_there_is_no_token() -> None:
    """The usual case outside a cloud."""
    with pytest.raises(NoToken, match="refused"):
        azure({"IDENTITY_ENDPOINT": "http://127.0.0.1:1/"}, "x")
