"""Logins without TLS: whatever a server asks for, it gets SCRAM's proof or nothing."""

import asyncio
import re
from collections.abc import Callable, Sequence

import pytest

from agent.broker.sql_client import ERROR_CHARACTERS_MAX, Sql
from agent.broker.sql_login import ITERATIONS_MAX, MESSAGE_BYTES_MAX
from agent.credentials.spec import CredentialError, SqlServer
from agent.model.secret import Secret

pytestmark = [
    # a driver's transport that was closed as the test's event loop ended is collected afterwards
    pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
PASSWORD = b"canary-login-7d31aa90"
HASHED = b"p\0\0\0\x28md5"  # how such a message begins; a nonce may have these three letters too
Answer = bytes | Callable[[bytes], bytes]


def message(kind: bytes, payload: bytes) -> bytes:
    """Return one message of a server."""
    return kind + (len(payload) + 4).to_bytes(4, "big") + payload


def authentication(code: int, data: bytes = b"") -> bytes:
    """Return an authentication message."""
    return message(b"R", code.to_bytes(4, "big") + data)


OK = authentication(0)
SASL = authentication(10, b"SCRAM-SHA-256\0\0")
MD5 = authentication(5, b"salt")
CLEAR = authentication(3)


def first(iterations: str) -> Callable[[bytes], bytes]:
    """Return a server-first-message that asks for so many iterations."""

    def answer(got: bytes) -> bytes:
        nonce = re.search(rb"r=([^,]+)", got)
        assert nonce
        return authentication(11, b"r=%bx,s=c2FsdA==,i=%b" % (nonce[1], iterations.encode()))

    return answer


class _Server(asyncio.Protocol):
    """Answers one time each time it is told something."""

    def __init__(self, answers: Sequence[Answer], piece: int) -> None:
        self._answers = list(answers)
        self._piece = piece
        self.got = b""
        self.left = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self._answers:
            answer = self._answers.pop(0)
            self._say(answer if isinstance(answer, bytes) else answer(self.got))

    def _say(self, data: bytes) -> None:
        self._transport.write(data[: self._piece])
        if rest := data[self._piece :]:  # in a turn of its own
            asyncio.get_running_loop().call_soon(self._say, rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left.set()


async def _log_in(answers: Sequence[Answer], piece: int) -> tuple[CredentialError, bytes]:
    peer = _Server(answers, piece)
    server = await asyncio.get_running_loop().create_server(lambda: peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    where = SqlServer("127.0.0.1", port, "", "", "admin", "orders", "label")
    async with server:
        with pytest.raises(CredentialError) as caught:
            async with Sql().session(where, Secret(PASSWORD)):
                pass
        async with asyncio.timeout(60):
            await peer.left.wait()
    return caught.value, peer.got


def log_in(*answers: Answer, piece: int = 1 << 20) -> tuple[CredentialError, bytes]:
    """Log in at a server that answers so; return why it failed, and what the server got."""
    error, got = asyncio.run(_log_in(answers, piece))
    assert error.nothing_made
    assert PASSWORD not in got
    assert HASHED not in got
    assert PASSWORD.decode() not in str(error)
    return error, got


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        pytest.param(CLEAR, "the password in clear", id="cleartext"),
        pytest.param(MD5, "an MD5 of the password", id="md5"),
        pytest.param(authentication(7), "not SCRAM", id="GSSAPI"),
        pytest.param(authentication(9), "not SCRAM", id="SSPI"),
        pytest.param(authentication(99), "not SCRAM", id="unknown"),
        pytest.param(message(b"N", b"C01000\0\0") + CLEAR, "in clear", id="behind a notice"),
        pytest.param(OK + CLEAR, "in clear", id="behind Ok"),
        pytest.param(OK + MD5, "MD5", id="md5 behind Ok"),
        pytest.param(message(b"R", b"\0"), "not SCRAM", id="no code"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_what_shows_the_password_is_refused(request_: bytes, said: str, piece: int) -> None:
    """Asked for first, or after it let us in, whole or byte by byte: the server gets our name."""
    error, got = log_in(request_, piece=piece)
    assert said in str(error)
    assert not error.transient
    assert got[4:8] == b"\0\3\0\0"
    assert int.from_bytes(got[:4], "big") == len(got)  # the startup message, and nothing behind


@pytest.mark.parametrize("request_", [CLEAR, MD5], ids=["cleartext", "md5"])
def test_nor_within_scram(request_: bytes) -> None:
    """Asked for in place of SCRAM's first or last message."""
    for answers in ((SASL, request_), (SASL, first("4096"), request_)):
        error, _ = log_in(*answers)
        assert "without TLS" in str(error)


@pytest.mark.parametrize(
    "iterations", [str(ITERATIONS_MAX + 1), f"000{ITERATIONS_MAX + 1}", str(2**31), "9" * 5000]
)
def test_so_many_iterations_are_not_done(iterations: str) -> None:
    """One more than ITERATIONS_MAX, however it is written: no proof is made."""
    error, got = log_in(SASL, first(iterations))
    assert f"more than {ITERATIONS_MAX}" in str(error)
    assert b",p=" not in got


def test_at_the_limit_they_are() -> None:
    """ITERATIONS_MAX of them give a proof; what does not prove itself in turn is left."""
    error, got = log_in(SASL, first(str(ITERATIONS_MAX)), authentication(12, b"v=eA=="))
    assert b",p=" in got
    assert "does not talk as a PostgreSQL server" in str(error)


def test_a_message_is_bounded() -> None:
    """One of MESSAGE_BYTES_MAX is passed on, one byte more ends the login, and so does -1."""
    for size, said in ((MESSAGE_BYTES_MAX, "in clear"), (MESSAGE_BYTES_MAX + 1, "length")):
        notice = message(b"N", b"M" + b"x" * (size - 7) + b"\0\0")
        assert said in str(log_in(notice + CLEAR)[0])
    assert "length" in str(log_in(b"N\xff\xff\xff\xff")[0])


def test_words_are_cut_when_the_password_is_out_of_them() -> None:
    """A server that knows it and puts it across the cut: not half of it is told."""
    for lead in range(ERROR_CHARACTERS_MAX - len(PASSWORD) - 1, ERROR_CHARACTERS_MAX + 1, 3):
        words = b"SFATAL\0VFATAL\0C28P01\0M" + b"x" * lead + PASSWORD + b"\0\0"
        error, _ = log_in(message(b"E", words))
        assert PASSWORD[:4].decode() not in str(error)
        assert "28P01" in str(error)


@pytest.mark.parametrize("code", [PASSWORD, b"28P0", b"28p01", b"28P01 "])
def test_a_code_that_is_none_is_not_told(code: bytes) -> None:
    """A server that puts the password, or anything else, where five letters and digits stand."""
    error, _ = log_in(message(b"E", b"SFATAL\0VFATAL\0C" + code + b"\0Mno\0\0"))
    assert str(error).endswith(": no ()")
