"""Servers that are not what they should be: they get nothing, and the loop gets a clean end."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent.model.audit import Outcome
from agent.model.grant import PostgresOptions, UpstreamTls
from agent.model.reason import Reason
from agent.protocols.postgres import limits
from agent.protocols.postgres.messages import AUTHENTICATION_OK, message
from tests.conformance.conductor import CANARY, Conductor
from tests.protocols.postgres.rogues import ROGUES, Change
from tests.protocols.postgres.server import Server, authentication, error, welcome
from tests.protocols.postgres.world import begin, fatal, startup, target

PIECES = (1, 2, 3, 5, 8, 64, 100_000)
IDS = [row[0] for row in ROGUES]


@dataclass
class _Rogue(Server):
    """A server that goes wrong within SCRAM."""

    first_raw: bytes | None = None
    final_twice: bool = False

    def _login(self, frame: object) -> bytes:
        first, twice = self.first, self.final_twice
        self.first = b"" if first is not None or self.first_raw is not None else None
        answer = super()._login(frame)  # type: ignore[arg-type]
        self.first = first
        if self._step == 1 and self.first_raw is not None:
            return self.first_raw
        if self._step == 1 and first is not None:
            nonce = re.search(rb"r=([^,]+)", self.logins[0])
            assert nonce
            return authentication(11, first.replace(b"<nonce>", nonce[1]))
        if twice and self._step > 1:
            return answer[: answer.index(AUTHENTICATION_OK)] + answer
        return answer


def _play(change: Change, piece: int) -> tuple[Conductor, _Rogue]:
    server = _Rogue(**change)  # type: ignore[arg-type]
    conductor = begin(server, server_piece=piece)
    conductor.down(startup())
    return conductor, server


@pytest.mark.parametrize(("_", "change", "sqlstate"), ROGUES, ids=IDS)
def test_a_rogue_server_gets_nothing(_: str, change: Change, sqlstate: str) -> None:
    """Each rogue server: no secret either way, one FATAL with its SQLSTATE, one record, one end."""
    conductor, server = _play(change, 100_000)
    conductor.up_eof()
    conductor.check_ended()
    assert fatal(conductor)["C"] == sqlstate
    assert CANARY not in conductor.to_server + conductor.to_loop
    assert b"md5" not in conductor.to_server
    (outcome,) = conductor.outcomes
    assert outcome.outcome is Outcome.ABORTED
    assert outcome.reason in {Reason.UPSTREAM_UNTRUSTED, Reason.UPSTREAM_PROTOCOL_ERROR}
    assert b"R\0\0\0\x08\0\0\0\0" not in conductor.to_loop  # AuthenticationOk: never told
    proofs = [sent for sent in server.logins if b",p=" in sent]
    assert not proofs or "first" not in change


@pytest.mark.parametrize(("_", "change", "sqlstate"), ROGUES, ids=IDS)
def test_pieces_do_not_change_the_refusal(_: str, change: Change, sqlstate: str) -> None:
    """However a rogue server cuts its bytes, the loop reads the same FATAL."""
    if "tls" in change:
        return  # what stands behind one byte is judged by what came with it
    if any(len(part) > 10_000 for part in change.values() if isinstance(part, bytes)):
        pieces: tuple[int, ...] = (4096,)
    else:
        pieces = PIECES
    expected = _play(change, 100_000)[0].to_loop
    for piece in pieces:
        assert _play(change, piece)[0].to_loop == expected


def test_a_server_that_says_nothing_runs_out_of_time() -> None:
    """A server that never answers is left after OPENING_S, with a FATAL."""
    conductor = begin(Server(request=b""))
    conductor.down(startup())
    assert conductor.running()
    conductor.wait(limits.OPENING_S)
    conductor.check_ended()
    assert fatal(conductor)["C"] == "08006"
    assert conductor.finished is Reason.TIMED_OUT


@pytest.mark.parametrize(
    "server", [Server(request=b""), Server(first=b""), Server(behind=b"")], ids=["1", "2", "3"]
)
def test_a_server_that_leaves(server: Server) -> None:
    """A server that ends the connection at any step gives the loop a FATAL 08006."""
    conductor = begin(server)
    conductor.down(startup())
    conductor.up_eof()
    conductor.check_ended()
    assert fatal(conductor)["C"] == "08006"
    assert conductor.finished is Reason.UPSTREAM_CLOSED


def test_a_server_that_speaks_first() -> None:
    """Bytes from the server before it was asked anything end the session."""
    conductor = begin(recorded=None)
    conductor.down(startup())
    conductor.up(b"S")
    conductor.check_ended()
    assert fatal(conductor)["C"] == "08P01"
    assert not conductor.to_server


def test_tls_that_does_not_verify() -> None:
    """A certificate that does not verify: the server sees an SSLRequest and nothing of a login."""
    conductor = begin(tls=False)
    conductor.down(startup())
    conductor.check_ended()
    assert len(conductor.to_server) == 8
    assert fatal(conductor)["C"] == "28000"
    assert conductor.finished is Reason.UPSTREAM_UNTRUSTED


def test_the_server_s_own_refusal_is_told() -> None:
    """A proper ErrorResponse gives the loop its SQLSTATE, and its clean text as DETAIL."""
    conductor = begin(Server(request=error(b"53300", b"too many \x1b[31m connections")))
    conductor.down(startup())
    conductor.check_ended()
    said = fatal(conductor)
    assert said["C"] == "53300"
    assert "too many ?[31m connections" in said["D"]
    assert conductor.outcomes[0].status == "53300"


def test_a_server_that_has_let_us_in_speaks_for_itself() -> None:
    """What it says then is told as it is: no such database, too many connections, starting up."""
    said = error(b"3D000", 'database "näme" does not exist'.encode())
    conductor = begin(Server(behind=said))
    conductor.down(startup())
    conductor.check_ended()
    assert conductor.to_loop.endswith(said)
    assert conductor.outcomes[0].status == "3D000"
    assert conductor.finished is Reason.UPSTREAM_CLOSED


def test_a_server_that_echoes_the_password() -> None:
    """A server that was given the password can't give it to the loop: it is scrubbed."""
    for behind in (
        error(b"28P01", b"password " + CANARY),
        AUTHENTICATION_OK + message(b"N", b"C01000\0M" + CANARY + b"\0\0") + welcome(),
    ):
        server = Server(request=authentication(3), final=b"", behind=behind)
        conductor = begin(server, target=target(PostgresOptions(auth=("password",))))
        conductor.down(startup())
        assert server.logins == [CANARY + b"\0"]
        assert CANARY not in conductor.to_loop
        assert b"*" * len(CANARY) in conductor.to_loop
        assert not conductor.problems


def test_the_password_across_the_cut_is_not_halved() -> None:
    """A server that knows it and lets its words be cut within it: not a part of it is told."""
    for lead in range(300 - len(CANARY) - 1, 301):
        conductor = begin(Server(request=error(b"28P01", b"x" * lead + CANARY)))
        conductor.down(startup())
        conductor.check_ended()
        assert CANARY[:4] not in conductor.to_loop
        assert fatal(conductor)["C"] == "28P01"


def test_a_password_in_a_messages_length_breaks_no_frame() -> None:
    """A server that makes its first byte the end of a length: the loop reads whole messages."""
    size = CANARY[0]
    rest = CANARY[1:] + b"\0"
    status = message(b"S", rest + b"v" * (size - 4 - len(rest) - 1) + b"\0")
    told = message(b"E", rest + b"C3D000\0M" + b"x" * (size - 4 - len(rest) - 10) + b"\0\0")
    assert CANARY in status
    assert CANARY in told
    for behind in (status + welcome(), told):
        conductor = begin(Server(behind=behind))
        conductor.down(startup())
        conductor.check_ended()
        assert CANARY not in conductor.to_loop
        assert fatal(conductor)["C"] in {"08P01", "3D000"}


def test_proofs_of_lesser_methods() -> None:
    """md5, cleartext and trust work where the target lists them, and only there."""
    rows: list[tuple[str, bytes, Callable[[list[bytes]], bool]]] = [
        ("md5", authentication(5, b"salt"), lambda sent: sent[0].startswith(b"md5")),
        ("password", authentication(3), lambda sent: sent == [CANARY + b"\0"]),
        ("trust", b"", lambda sent: not sent),
    ]
    for method, request, fits in rows:
        ok = AUTHENTICATION_OK + welcome()
        server = Server(request=request or ok, final=b"", behind=ok)
        conductor = begin(server, target=target(PostgresOptions(auth=(method,))))
        conductor.down(startup())
        assert conductor.running(), (method, conductor.to_loop)
        assert fits(server.logins)
        assert CANARY not in conductor.to_loop


def test_cleartext_is_never_sent_without_tls() -> None:
    """The password in clear is refused without TLS, also where it and clear text are allowed."""
    server = Server(request=authentication(3))
    options = PostgresOptions(auth=("password",))
    chosen = target(options, tls=UpstreamTls.NONE, allow_cleartext=True)
    conductor = begin(server, target=chosen)
    conductor.down(startup())
    conductor.check_ended()
    assert fatal(conductor)["C"] == "28000"
    assert not server.logins
