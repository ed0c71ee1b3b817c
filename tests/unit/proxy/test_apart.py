"""A word beside a session: on a connection of its own, verified where the target asks for it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.model.grant import Target, UpstreamTls
from agent.proxy import apart, dial
from agent.proxy.apart import AT_ONCE_MAX, GOING_ON_MAX, Apart
from agent.proxy.dial import Dialler
from agent.proxy.upstream import DialRules
from agent.wire.commands import SendApart
from tests.servers.certificates import Authority
from tests.servers.scripted import server_context
from tests.unit.proxy.harness import target

WORD = SendApart(b"may I?", b"S", b"stop")
WITHIN_S = 60.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine gives up on nothing here."""
    monkeypatch.setattr(apart, "APART_S", WITHIN_S)
    monkeypatch.setattr(dial, "HANDSHAKE_TIMEOUT_S", WITHIN_S)


async def said(serve: Serve, times: int = 1, word: SendApart = WORD, **changes: Any) -> None:
    """Say it to a server."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)  # noqa: TID251 - the far end
    port = server.sockets[0].getsockname()[1]
    one: Target = target(dial_port=port, **changes)
    words = Apart(Dialler(DialRules(frozenset())))
    over: list[bool] = []
    async with server, asyncio.timeout(WITHIN_S):
        for _ in range(times):
            words.send(one, (), word, lambda: over.append(True))
        assert not over
        await words.settle(WITHIN_S)
        await asyncio.sleep(0)
    assert len(over) == times


def test_in_clear_where_the_target_is() -> None:
    """Without TLS the word goes at once."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(len(WORD.data)))
        writer.close()

    asyncio.run(said(serve, tls=UpstreamTls.NONE))
    assert heard == [WORD.data]


def test_within_verified_tls() -> None:
    """It is asked for, and the word goes to the server that the policy names."""
    authority = Authority()
    context = server_context(authority.identity("api.example.com"))
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(WORD.request)) == WORD.request
        writer.write(WORD.consent)
        await writer.start_tls(context)
        heard.append(await reader.readexactly(len(WORD.data)))
        writer.close()

    asyncio.run(said(serve, ca_pem=authority.pem))
    assert heard == [WORD.data]


@pytest.mark.parametrize("answer", [b"N", b"SS", b"E", b""])
def test_no_word_without_consent(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Another answer, or more than the answer, and nothing is said."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(WORD.request))
        writer.write(answer)
        if answer:
            heard.append(await reader.read(64))
        writer.close()

    asyncio.run(said(serve))
    assert WORD.data not in heard
    assert "is not told to stop" in caplog.text


def test_no_word_to_another_server(caplog: pytest.LogCaptureFixture) -> None:
    """A certificate of another name gets nothing."""
    authority = Authority()
    context = server_context(authority.identity("other.example.com"))
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(WORD.request))
        writer.write(WORD.consent)
        try:
            await writer.start_tls(context)
            heard.append(await reader.read(64))
        except (ssl.SSLError, OSError):
            writer.close()

    asyncio.run(said(serve, ca_pem=authority.pem))
    assert heard in ([], [b""])
    assert "does not verify" in caplog.text


@pytest.mark.parametrize(
    ("word", "most"), [(WORD, AT_ONCE_MAX), (replace(WORD, last=False), GOING_ON_MAX)]
)
@pytest.mark.parametrize("more", [0, 1])
def test_so_many_at_once(
    word: SendApart, most: int, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At the bound all are said; one past it is not, and the log tells. Most are for last words."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(len(WORD.data)))
        writer.close()

    asyncio.run(said(serve, most + more, word, tls=UpstreamTls.NONE))
    assert len(heard) == most
    assert ("too many" in caplog.text) is bool(more)
