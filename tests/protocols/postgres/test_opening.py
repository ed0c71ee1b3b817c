"""Openings that go well: in every form a client begins in, with what each side is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.audit import Outcome
from agent.model.credential import Bearer, ClientCertificate, Password, Shape
from agent.model.grant import PostgresOptions, UpstreamTls
from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.model.sql import Effect
from agent.model.verdict import Allow
from agent.protocols.postgres import limits
from agent.protocols.postgres.cancel import CancelKeys
from agent.protocols.postgres.messages import (
    AUTHENTICATION_OK,
    SSL_REQUEST,
    cancel_request,
    message,
    parameter_status,
)
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.opening import Opening
from agent.wire.commands import AnswerTo, Command, OpenUpstream, Pause, Resume, Send, StartTls
from agent.wire.events import Data, Event, TimedOut, UpstreamFailed
from agent.wire.relay import ProtocolSpec
from agent.wire.side import Side
from tests.conformance.conductor import CANARY, RUN_KEY, Conductor, deny
from tests.protocols.postgres.server import KEY, PARAMETERS, PID, READY, Server, welcome
from tests.protocols.postgres.world import fatal, frames, lease, query, startup, target, world
from tests.protocols.postgres.wrongs import GSS_REQUEST, V32

# the opening alone: what follows ReadyForQuery is the steady half's
ALONE = ProtocolSpec("postgres", (Shape.PASSWORD, Shape.CLIENT_CERTIFICATE), Opening)
TLS = "orders.internal"


def _begin(server: Server | None = None, **changes: object) -> Conductor:
    return Conductor(ALONE, world(server, **changes))


def _opened(conductor: Conductor) -> Opened:
    opening = conductor.relay
    assert isinstance(opening, Opening)
    assert opening.opened is not None, conductor.to_loop
    assert not conductor.problems
    assert conductor.running()
    return opening.opened


def _kinds(data: bytes) -> str:
    return "".join(chr(frame.kind) for frame in frames(data))


WAYS: tuple[tuple[str, str | None, tuple[bytes, ...], bytes], ...] = (
    ("in clear", None, (startup(),), b""),
    ("TLS asked for", None, (SSL_REQUEST, startup()), b"S"),
    ("GSSAPI, then TLS", None, (GSS_REQUEST, SSL_REQUEST, startup()), b"NS"),
    ("GSSAPI and TLS at once", None, (GSS_REQUEST + SSL_REQUEST, startup()), b"NS"),
    ("GSSAPI, then in clear", None, (GSS_REQUEST, startup()), b"N"),
    ("direct TLS", TLS, (startup(),), b""),
    ("direct TLS, in capitals", "ORDERS.internal.", (startup(),), b""),
    ("direct TLS, no name", "", (startup(),), b""),
    ("a password nobody asked for", None, (startup() + b"p\0\0\0\x0bsecret\0",), b""),
)


@pytest.mark.parametrize(("_", "name", "flights", "before"), WAYS, ids=[row[0] for row in WAYS])
def test_every_form_of_startup(
    _: str, name: str | None, flights: tuple[bytes, ...], before: bytes
) -> None:
    """Each form a client begins in ends in the same session, and no password goes on."""
    conductor = _begin(tls_name=name)
    for flight in flights:
        conductor.down(flight)
    opened = _opened(conductor)
    assert conductor.to_loop.startswith(before)
    told = conductor.to_loop[len(before) :]
    assert _kinds(told) == "R" + "S" * len(PARAMETERS) + "KZ"
    assert told.startswith(AUTHENTICATION_OK)
    assert opened.user == "lease_user"
    assert not opened.leftover_downstream + opened.leftover_upstream
    assert b"secret" not in conductor.to_server + conductor.to_loop
    assert CANARY not in conductor.to_server


def test_what_the_server_is_told() -> None:
    """The startup message has the lease's user, the run's name, and what decides over meaning."""
    server = Server()
    conductor = _begin(server)
    asked = {"application_name": "réport" * 20, "options": "-c search_path=a\\ b --jit=off"}
    conductor.down(startup(TimeZone="UTC", client_encoding="'utf-8'", **asked))
    _opened(conductor)
    assert server.parameters == {
        "user": "lease_user",
        "database": "orders",
        "application_name": ("r?port" * 5)[:25] + " loopwarden/" + "R" * 26,
        "search_path": "a b",
        "jit": "off",
        "timezone": "UTC",
        "client_encoding": "UTF8",
        "standard_conforming_strings": "on",
        "backslash_quote": "safe_encoding",
    }
    assert len(server.parameters["application_name"]) == limits.APPLICATION_NAME_BYTES_MAX


def test_one_record_of_the_session() -> None:
    """The login is one operation: intended with the lease before a byte, ended when it is ready."""
    conductor = _begin()
    conductor.down(startup())
    _opened(conductor)
    (finished,) = conductor.outcomes
    assert finished.outcome is Outcome.ANSWERED
    assert finished.status == "00000"
    assert finished.upstream
    assert finished.request_bytes == len(conductor.to_server)
    assert finished.response_bytes


def test_databases_of_the_target() -> None:
    """A target's one database is every session's; of several the loop names one."""
    rows: list[tuple[PostgresOptions, dict[str, str], str | None]] = [
        (PostgresOptions(), {}, "orders"),
        (PostgresOptions(), {"database": ""}, "agent"),
        (PostgresOptions(database="sales"), {}, "sales"),
        (PostgresOptions(database="sales"), {"database": "x" * 64}, "sales"),
        (PostgresOptions(databases=("orders", "sales")), {}, "orders"),
        (PostgresOptions(databases=("sales", "stock")), {}, None),
        (PostgresOptions(databases=("sales",)), {"database": "SALES"}, None),
    ]
    for options, asked, wanted in rows:
        server = Server()
        conductor = _begin(server, target=target(options))
        conductor.down(startup(**asked))
        if wanted is None:
            said = fatal(conductor)
            assert said["C"] == "3D000"
            assert said["H"] == f"Ask for one of: {', '.join(options.databases)}."
            assert not conductor.to_server
        else:
            assert server.parameters["database"] == wanted == _opened(conductor).database


def test_read_only_targets() -> None:
    """A read-only target starts read-only, and a server that says otherwise ends it."""
    options = PostgresOptions(read_only=True)
    told = welcome(parameters=PARAMETERS | {"default_transaction_read_only": "on"})
    server = Server(final=None, behind=told)
    conductor = _begin(server, target=target(options))
    conductor.down(startup(default_transaction_read_only="true"))
    assert server.parameters["default_transaction_read_only"] == "on"
    assert _opened(conductor).pinned["default_transaction_read_only"] == "on"
    other = _begin(target=target(options))
    other.down(startup())
    assert fatal(other)["C"] == "08P01"
    asked = _begin(target=target(options))
    asked.down(startup(options="-c default_transaction_read_only=off"))
    assert fatal(asked)["C"] == "42501"
    assert "default_transaction_read_only" in fatal(asked)["M"]


def test_settings_of_the_target() -> None:
    """A target's settings are sent, and the loop may only ask for the same."""
    options = PostgresOptions(settings=(("statement_timeout", "5s"),))
    server = Server()
    same = _begin(server, target=target(options))
    same.down(startup(statement_timeout="5S"))
    _opened(same)
    assert server.parameters["statement_timeout"] == "5s"
    other = _begin(target=target(options))
    other.down(startup(statement_timeout="0"))
    assert fatal(other)["C"] == "42501"


@pytest.mark.parametrize("value", ["database", "true", "ON", "1"])
def test_replication_is_an_operation(value: str) -> None:
    """A replication session is judged: refused in the rule's words, or recorded under its rule."""
    seen: list[Operation] = []

    def grant(operation: Operation) -> Allow:
        seen.append(operation)
        return Allow(RuleId("loop/7"))

    refused = _begin(verdict=deny)
    refused.down(startup(replication=value))
    refused.check_ended()
    said = fatal(refused)
    assert said["C"] == "42501"
    assert "loop/1" in said["D"]
    assert not refused.to_server
    server = Server()
    granted = _begin(server, verdict=grant)
    granted.down(startup(replication=value))
    kind = "database" if value == "database" else "true"
    assert _opened(granted).replication == server.parameters["replication"] == kind
    assert seen[0].verb == "REPLICATION"
    assert seen[0].statements[0].effects == {Effect.ADMIN}
    plain = _begin(verdict=deny)
    plain.down(startup(replication="off"))
    assert not _opened(plain).replication


def test_mechanisms() -> None:
    """PLUS where the server offers it and there is a binding; else the header says why not."""
    plain = (b"SCRAM-SHA-256",)
    both = (b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS")
    rows = [(both, b"x", b"p=tls-server-end-point,,"), (plain, b"x", b"y,,"), (both, None, b"n,,")]
    for mechanisms, binding, header in rows:
        server = Server(mechanisms=mechanisms, binding=binding)
        conductor = _begin(server, binding=binding)
        conductor.down(startup())
        _opened(conductor)
        assert server.logins[0].partition(b"\0")[2][4:].startswith(header)


def test_versions() -> None:
    """A client gets the version that both ends speak, and is told when it asked for another."""
    rows = [
        (3 << 16, b"", 0, False),
        (3 << 16 | 1, b"", 0, True),
        (V32, b"", 2, False),
        (V32, message(b"v", (3 << 16).to_bytes(4, "big") + bytes(4)), 0, True),
        (3 << 16 | 9999, b"", 2, True),
        (V32, message(b"v", bytes(8)), 0, True),
    ]
    for asked, negotiated, version, told in rows:
        conductor = _begin(_Negotiating(negotiated))
        conductor.down(startup(asked))
        assert _opened(conductor).version == version
        first = frames(conductor.to_loop)[0]
        assert (chr(first.kind) == "v") == told
        if told:
            assert first.payload == (3 << 16 | version).to_bytes(4, "big") + bytes(4)


class _Negotiating(Server):
    """Says a version before it asks for the login."""

    def __init__(self, before: bytes) -> None:
        super().__init__()
        self._before = before

    def _packet(self, packet: bytes) -> bytes:
        answer = super()._packet(packet)
        return self._before + answer if self.startup else answer


def test_keys_of_3_2() -> None:
    """A long key comes down as long, mapped by the run's key, with the server's process id."""
    key = bytes(range(256))
    server = _Negotiating(b"")
    server.behind = welcome(key=key)
    conductor = _begin(server)
    conductor.down(startup(V32))
    _opened(conductor)
    payload = next(f.payload for f in frames(conductor.to_loop) if f.kind == ord("K"))
    assert payload[:4] == PID
    assert payload[4:] != key
    assert CancelKeys(RUN_KEY).upstream(PID, payload[4:]) == key


def test_no_run_key_no_key() -> None:
    """Without a run's key the loop gets a key of chance, and a cancel goes nowhere."""
    conductor = _begin(run_key=b"")
    conductor.down(startup())
    _opened(conductor)
    assert PID + KEY not in conductor.to_loop
    cancel = _begin(run_key=b"")
    cancel.down(cancel_request(PID, KEY))
    cancel.check_ended()
    assert cancel.finished is Reason.DONE
    assert not cancel.to_loop + cancel.to_server


@pytest.mark.parametrize("way", ["eof", "failed", "timeout"])
def test_a_cancel(way: str) -> None:
    """A CancelRequest reaches the server mapped back, recorded, and its sender is told nothing."""
    server = Server()
    conductor = _begin(server)
    keys = CancelKeys(RUN_KEY)
    conductor.down(cancel_request(PID, keys.downstream(PID, KEY)) + b"more")
    conductor.down_eof()
    assert server.cancelled == cancel_request(PID, KEY)
    ends: dict[str, Event] = {
        "failed": UpstreamFailed(Reason.UPSTREAM_CLOSED, "cut off"),
        "timeout": TimedOut(limits.CANCEL_TIMER),
    }
    if way == "eof":
        conductor.up_eof()
    else:
        conductor.give(ends[way])
    conductor.check_ended()
    assert not conductor.to_loop
    (finished,) = conductor.outcomes
    assert finished.outcome is (Outcome.ABORTED if way == "timeout" else Outcome.ANSWERED)


def test_a_cancel_of_what_is_held_here() -> None:
    """A session of ours gave it up: recorded, and no connection to the server is made."""
    conductor = _begin(holding=PID + KEY)
    conductor.down(cancel_request(PID, CancelKeys(RUN_KEY).downstream(PID, KEY)))
    conductor.check_ended()
    assert not conductor.to_loop + conductor.to_server
    assert not any(isinstance(command, OpenUpstream) for command in conductor.commands)
    (finished,) = conductor.outcomes
    assert finished.outcome is Outcome.ANSWERED
    assert conductor.finished is Reason.DONE


def test_a_session_answers_to_its_key() -> None:
    """To the server's own, which its run's relays make of the key that the loop was told."""
    conductor = _begin()
    conductor.down(startup())
    _opened(conductor)
    assert AnswerTo(PID + KEY) in conductor.commands


def test_a_cancel_that_fails_is_silent() -> None:
    """Whatever is wrong with a cancel, its sender only sees the connection end."""
    unreachable = UpstreamFailed(Reason.UPSTREAM_UNREACHABLE, "no")
    for conductor in (
        _begin(recorded=False),
        _begin(tls=False),
        _begin(Server(tls=b"N")),
        _begin(opened=unreachable),
    ):
        conductor.down(cancel_request(PID, KEY))
        conductor.check_ended()
        assert not conductor.to_loop


def test_what_came_early_is_handed_over() -> None:
    """What either side sent behind the opening is left over for the steady half, in order."""
    notice = message(b"N", b"SWARNING\0C01000\0Mcollation\0\0")
    late = parameter_status("x", "y")
    server = Server(behind=welcome()[: -len(READY)] + notice + READY + late)
    conductor = _begin(server)
    conductor.down(startup() + query("SELECT 1") + query("SELECT 2"))
    opened = _opened(conductor)
    assert opened.leftover_downstream == query("SELECT 1") + query("SELECT 2")
    assert opened.leftover_upstream == late
    assert notice in conductor.to_loop


def test_the_loop_waits_when_it_is_early() -> None:
    """More than HELD_BYTES_MAX held makes the loop wait, and it goes on when the session is up."""
    at = startup() + query("x" * (limits.HELD_BYTES_MAX - 6))
    for data, waits in ((at, False), (at + b"S", True)):
        conductor = _begin(lease=None)
        conductor.down(data)
        assert conductor.paused == waits
        conductor.world.lease = lease()
        conductor._lease()  # the broker answers now
        conductor.give(TimedOut("nobody's"))
        opened = _opened(conductor)
        assert not conductor.paused
        assert opened.leftover_downstream == data[len(startup()) :]
        count = len([c for c in conductor.commands if isinstance(c, Pause | Resume)])
        assert count == 2 * waits


def test_a_driver_that_does_not_wait() -> None:
    """More than HELD_BYTES_HARD in spite of Pause ends the session."""
    conductor = _begin(lease=None)
    conductor.down(startup())
    for size, ends in ((limits.HELD_BYTES_HARD, False), (1, True)):
        conductor.give(Data(Side.DOWNSTREAM, b"Q" * size))
        assert conductor.running() != ends
    assert conductor.finished is Reason.OVERLOADED


def test_leases_that_do_not_fit() -> None:
    """A lease of another shape, target or without a user is refused before a byte goes up."""
    for credential in (
        Bearer(Secret(CANARY)), Password("", Secret(CANARY)), Password("a\0b", Secret(CANARY)),
        Password("user", Secret(b"short")), ClientCertificate("u", "", Secret(CANARY)),
    ):  # fmt: skip
        conductor = _begin(lease=lease(credential))
        conductor.down(startup())
        conductor.check_ended()
        assert conductor.finished is Reason.CREDENTIAL_MISFIT
        assert not conductor.to_server


def test_no_credential_no_secret() -> None:
    """A target without a credential is opened as the user the loop names, where it may be."""
    server = Server(request=AUTHENTICATION_OK + welcome(parameters=PARAMETERS | {
        "session_authorization": "agent"
    }))  # fmt: skip
    conductor = _begin(server, target=target(shape=None, tls=UpstreamTls.NONE))
    conductor.down(startup())
    opened = _opened(conductor)
    assert opened.user == server.parameters["user"] == "agent"
    assert opened.scrubber is None
    assert not any(isinstance(c, StartTls) for c in conductor.commands)
    asked = _begin(target=target(shape=None))
    asked.down(startup())
    assert fatal(asked)["C"] == "28000"


def test_a_certificate_needs_tls() -> None:
    """A client certificate is no use without TLS: refused before it is leased."""
    chosen = target(shape=Shape.CLIENT_CERTIFICATE, tls=UpstreamTls.NONE, allow_cleartext=True)
    conductor = _begin(target=chosen)
    conductor.down(startup())
    assert conductor.finished is Reason.CLEARTEXT_REFUSED


@pytest.mark.parametrize("reason", [Reason.RUN_ENDED, Reason.RUN_REVOKED, Reason.POLICY_CHANGED])
def test_a_cut_says_why(reason: Reason) -> None:
    """A cut at any step says FATAL 57P01 with the true cause, and closes the record."""
    stops = (
        _begin(lease=None),
        _begin(opened=None),
        _begin(recorded=None),
        _begin(Server(first=b"")),
    )
    for conductor in stops:
        conductor.down(startup())
        conductor.cut(reason)
        conductor.check_ended()
        said = fatal(conductor)
        assert said["C"] == "57P01"
        assert reason.value in said["D"]
    before = _begin()
    before.cut(reason)
    assert fatal(before)["C"] == "57P01"


def test_record_and_connection_side_by_side() -> None:
    """The intent is recorded while the server is dialled; a byte goes when both are there."""
    conductor = _begin(recorded=None)
    conductor.down(startup())
    assert any(isinstance(command, OpenUpstream) for command in conductor.commands)
    assert not conductor.to_server
    failed = _begin(recorded=False)
    failed.down(startup())
    failed.check_ended()
    assert fatal(failed)["C"] == "58030"
    assert failed.denied


@given(piece=st.integers(1, 40), server_piece=st.integers(1, 40))
def test_pieces_do_not_matter(piece: int, server_piece: int) -> None:
    """However both sides cut their bytes, both read the same."""
    data = startup(V32, application_name="x") + query("SELECT 1")
    expected = _play(data, 1000, 1000)
    assert _play(data, piece, server_piece) == expected


def test_every_split() -> None:
    """At every byte, in two pieces, of either side, both read the same."""
    data = startup() + query("SELECT 1")
    expected = _play(data, 1000, 1000)
    for at in range(1, len(data)):
        conductor = _begin()
        conductor.down(data, at)
        assert (conductor.to_loop, conductor.to_server) == expected
    for at in range(2, 500):
        assert _play(data, 1000, at) == expected


def _play(data: bytes, piece: int, server_piece: int) -> tuple[bytes, bytes]:
    conductor = _begin(server_piece=server_piece)
    conductor.down(data, piece)
    _opened(conductor)
    return conductor.to_loop, conductor.to_server


def test_nothing_is_said_after_the_end() -> None:
    """An opening that has handed over, or ended, gives no more commands."""
    done, ended = _begin(), _begin()
    done.down(startup())
    ended.cut()
    for conductor in (done, ended):
        events: list[Event] = [Data(Side.DOWNSTREAM, b"x"), TimedOut(limits.OPENING_TIMER)]
        more: list[Command] = []
        for event in events:
            more += conductor.relay.handle(event, 0)
        assert not more
    assert not [c for c in ended.commands if isinstance(c, Send) and c.side is Side.UPSTREAM]
