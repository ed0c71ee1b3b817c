"""Openings against a real PostgreSQL: it is the oracle of SCRAM, of settings and of cancelling."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.credential import ClientCertificate, Credential, Password, Shape
from agent.model.grant import PostgresOptions, Target, UpstreamTls
from agent.model.ids import LeaseId, RunId, TargetName
from agent.model.lease import Lease
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.messages import cancel_request
from agent.protocols.postgres.settings import split_options
from tests.protocols.postgres.sockets import TIMEOUT_S, Wire
from tests.protocols.postgres.world import fatal, frames, query, startup, target
from tests.servers.certificates import Authority
from tests.servers.postgres import PASSWORD, Postgres, postgres_server, version

pytestmark = pytest.mark.servers
NAME = "orders.test.internal"
RUN = "01JD0000000000000000000001"
AUTHORITY = Authority()
READY = b"Z\0\0\0\x05I"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server with TLS, that also takes connections in clear."""
    with postgres_server(AUTHORITY, name=NAME, plain=True) as running:
        yield running


def _target(server: Postgres, *auth: str, **changes: object) -> Target:
    fields: dict[str, object] = {
        "host": NAME, "port": server.port, "dial_host": server.address,
        "dial_port": server.port,
    }  # fmt: skip
    return target(PostgresOptions(auth=auth), **(fields | changes))


def _lease(user: str, password: str = PASSWORD) -> Lease:
    return _lease_of(Password(user, Secret(password.encode())))


def _lease_of(credential: Credential) -> Lease:
    return Lease(LeaseId("L" * 26), RunId(RUN), TargetName("orders"), credential, 0, True)


def _said(data: bytes) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for frame in frames(data):
        found.setdefault(chr(frame.kind), []).append(frame.payload)
    return found


def _value(wire: Wire, text: str) -> str:
    rows = _said(wire.ask(query(text), READY))["D"]
    return rows[0][6:].decode()


@pytest.mark.parametrize("binds", [True, False], ids=["PLUS", "plain"])
def test_scram(server: Postgres, binds: bool) -> None:
    """SCRAM-SHA-256-PLUS is used when there is a binding, SCRAM-SHA-256 when there is none."""
    with Wire(_target(server), _lease("app_scram"), ca=AUTHORITY.pem, binds=binds) as wire:
        wire.down(startup(application_name="psql"))
        opened = wire.opening.opened
        assert opened is not None, wire.to_loop
        assert _value(wire, "SELECT current_user") == "app_scram"
        assert _value(wire, "SELECT current_database()") == "orders"
        assert _value(wire, "SHOW application_name") == f"psql loopwarden/{RUN}"
        assert _value(wire, "SHOW backslash_quote") == "safe_encoding"
        assert opened.pinned["client_encoding"] == "UTF8"
        assert opened.pinned["session_authorization"] == "app_scram"
        said = _said(wire.to_loop)
        assert list(said) == ["R", "S", "K", "Z"]
        assert said["R"] == [bytes(4)]
        assert int.from_bytes(said["K"][0][:4], "big") == int(
            _value(wire, "SELECT pg_backend_pid()")
        )
        assert PASSWORD.encode() not in wire.to_loop


def test_a_password_that_is_prepared(server: Postgres) -> None:
    """A password with characters that SASLprep maps logs in: the server prepared it too."""
    password = "I\u00adX \u2168 \u00aa\u3000end-of-it"
    server.ask(f"CREATE ROLE prepared LOGIN PASSWORD '{password}'")
    with Wire(_target(server), _lease("prepared", password), ca=AUTHORITY.pem) as wire:
        wire.down(startup())
        assert wire.opening.opened is not None, wire.to_loop


def test_a_wrong_password(server: Postgres) -> None:
    """The server's refusal comes down with its SQLSTATE, and without the password."""
    with Wire(_target(server), _lease("app_scram", "wrong-password"), ca=AUTHORITY.pem) as wire:
        wire.down(startup())
        assert wire.finished is Reason.UPSTREAM_CLOSED
        assert fatal(wire)["C"] == "28P01"
        assert b"wrong-password" not in wire.to_loop


@pytest.mark.parametrize("method", ["md5", "password", "trust"])
def test_lesser_logins(server: Postgres, method: str) -> None:
    """A role that logs in by a lesser method does so where the target lists it, and only there."""
    lease = _lease(f"app_{method}")
    with Wire(_target(server, method), lease, ca=AUTHORITY.pem) as wire:
        wire.down(startup())
        assert wire.opening.opened is not None, wire.to_loop
    with Wire(_target(server), lease, ca=AUTHORITY.pem) as wire:
        wire.down(startup())
        assert wire.finished is Reason.UPSTREAM_UNTRUSTED
        assert fatal(wire)["C"] == "28000"


def test_a_client_certificate(server: Postgres, tmp_path: Path) -> None:
    """A role that logs in by certificate needs no method: the server asks for nothing else."""
    identity = AUTHORITY.client("app_cert")
    path = tmp_path / "client.pem"
    path.write_bytes(identity.chain_pem + identity.key_pem)
    credential = ClientCertificate("app_cert", identity.chain_pem.decode(), Secret(b"unused-here"))
    chosen = _target(server, shape=Shape.CLIENT_CERTIFICATE)
    lease = _lease_of(credential)
    with Wire(chosen, lease, ca=AUTHORITY.pem, identity=(identity, str(path))) as wire:
        wire.down(startup())
        assert wire.opening.opened is not None, wire.to_loop
        assert _value(wire, "SELECT current_user") == "app_cert"


def test_clear_text(server: Postgres) -> None:
    """Where the target asks for no TLS, and clear text is allowed, SCRAM goes in clear."""
    chosen = _target(server, tls=UpstreamTls.NONE, allow_cleartext=True)
    with Wire(chosen, _lease("app_scram"), ca="") as wire:
        wire.down(startup())
        assert wire.opening.opened is not None, wire.to_loop
    refused = _target(server, tls=UpstreamTls.NONE)
    with Wire(refused, _lease("app_scram"), ca="") as wire:
        wire.down(startup())
        assert wire.finished is Reason.CLEARTEXT_REFUSED
        assert fatal(wire)["C"] == "28000"


def test_protocol_3_2_is_negotiated(server: Postgres) -> None:
    """A client of 3.2 is told what an older server speaks, before it is let in.

    Since PostgreSQL 18 that is 3.2, and the cancel key has 32 bytes.
    """
    with Wire(_target(server), _lease("app_scram"), ca=AUTHORITY.pem) as wire:
        wire.down(startup(3 << 16 | 2, **{"_pq_.whatever": "1"}))
        opened = wire.opening.opened
        assert opened is not None, wire.to_loop
        newest = opened.version
        first = frames(wire.to_loop)[0]
        assert chr(first.kind) == "v"
        assert first.payload == (3 << 16 | newest).to_bytes(4, "big") + b"\0\0\0\1_pq_.whatever\0"
        key = _said(wire.to_loop)["K"][0][4:]
        assert (newest, len(key)) == ((2, 32) if version() >= 18 else (0, 4))


def test_settings_of_the_target(server: Postgres) -> None:
    """The target's settings hold over the loop's, and read-only sessions are so."""
    options = PostgresOptions(read_only=True, settings=(("search_path", "sales, public"),))
    chosen = _target(server, postgres=options)
    with Wire(chosen, _lease("app_scram"), ca=AUTHORITY.pem) as wire:
        wire.down(startup(options=r"-c statement_timeout=7s --intervalstyle=iso_8601"))
        assert wire.opening.opened is not None, wire.to_loop
        assert wire.opening.opened.pinned["default_transaction_read_only"] == "on"
        assert _value(wire, "SHOW transaction_read_only") == "on"
        assert _value(wire, "SHOW search_path") == "sales, public"
        assert _value(wire, "SHOW statement_timeout") == "7s"
        assert _value(wire, "SHOW intervalstyle") == "iso_8601"


@pytest.mark.parametrize("minor", [0, 2])
def test_a_cancel_of_the_same_run_alone(server: Postgres, minor: int) -> None:
    """The key that the loop was told cancels by way of its run's relay, and by no other way."""
    own, other = b"o" * 32, b"x" * 32
    before = server.log().count("wrong key in cancel request")
    with Wire(_target(server), _lease("app_scram"), ca=AUTHORITY.pem, run_key=own) as wire:
        wire.down(startup(3 << 16 | minor))
        key = _said(wire.to_loop)["K"][0]
        wire.send(query("SELECT pg_sleep(600)"))
        pid = int.from_bytes(key[:4], "big")
        while server.ask(f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}") != [
            ("PgSleep",)
        ]:
            pass  # a server ignores a cancel that comes before the query
        for run_key in (other, b"", own):
            with Wire(_target(server), None, ca=AUTHORITY.pem, run_key=run_key) as cancel:
                cancel.down(cancel_request(key[:4], key[4:]))
                assert cancel.finished is Reason.DONE
                assert not cancel.to_loop
        said = _said(wire.read(READY))
        assert b"C57014\0" in said["E"][0]
        assert server.log().count("wrong key in cancel request") == before + 1


OPTIONS = (
    "-c application_name=a", "-capplication_name=a", "--application_name=a",
    "--application-name=a-b", "-c application-name=a-b", "-c APPLICATION_NAME=a",
    r"-c application_name=a\ b", r"-c application_name=a\\b", r"-c application_name=a\-b",
    "-c application_name=a=b", "-c application_name=", "\t-c\v--x=y", "-c\fapplication_name=a",
    "-c application_name=a\r\n", "-c application_name=a -c application_name=b", "-c", "--",
    "-c application_name", "application_name=a", "-d", "-x", r"-c\ application_name=a",
    r"\-c application_name=a", "-c application_name='a'", "-c =a", "--=a", "-",
)  # fmt: skip


@pytest.mark.parametrize("text", OPTIONS)
def test_options_are_read_as_the_server_reads_them(server: Postgres, text: str) -> None:
    """Where we read settings in `options`, the server reads the same; what it refuses, so do we."""
    try:
        settings = [(name.lower(), value) for name, value in split_options(text)]
        told = dict(settings).get("application_name")
        ours = None if len(set(settings)) > 1 else told
    except Malformed:
        ours = None
    with socket.create_connection((server.address, server.port), TIMEOUT_S) as sock:
        sock.sendall(startup(user="app_trust", options=text))
        data = b""
        while (piece := sock.recv(65536)) and not (data + piece).endswith(READY):
            data += piece
        data += piece
    said = [frame for frame in frames(data) if frame.kind == ord("S")]
    pairs = [frame.payload[:-1].decode().partition("\0") for frame in said]
    names = {name: value for name, _, value in pairs}
    if ours is not None:
        assert names.get("application_name") == ours
