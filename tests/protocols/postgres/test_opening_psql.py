"""The distribution's own client through the whole relay to a real server, with no password."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.credential import Password
from agent.model.ids import LeaseId, RunId, TargetName
from agent.model.lease import Lease
from agent.model.secret import Secret
from tests.protocols.postgres.bridge import Bridge
from tests.protocols.postgres.world import target
from tests.servers.certificates import Authority
from tests.servers.postgres import PASSWORD, Postgres, newest_client, postgres_server, programs

pytestmark = pytest.mark.servers
NAME = "orders.test.internal"
AUTHORITY = Authority()
LEASE = Lease(
    LeaseId("L" * 26),
    RunId("01JD0000000000000000000001"),
    TargetName("orders"),
    Password("app_scram", Secret(PASSWORD.encode())),
    0,
    True,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server with TLS."""
    with postgres_server(AUTHORITY, name=NAME) as running:
        yield running


@pytest.fixture
def bridge(server: Postgres) -> Iterator[Bridge]:
    """The relay in front of it."""
    chosen = target(host=NAME, port=server.port, dial_host=server.address, dial_port=server.port)
    running = Bridge(chosen, LEASE, AUTHORITY)
    yield running
    running.close()


def _psql(bridge: Bridge, tmp_path: Path, *arguments: str, **changes: str) -> list[str]:
    ca = tmp_path / "ca.pem"
    ca.write_text(AUTHORITY.pem)
    environment = {
        "PGHOST": NAME, "PGHOSTADDR": "127.0.0.1", "PGPORT": str(bridge.port), "PGUSER": "agent",
        "PGDATABASE": "orders", "PGSSLROOTCERT": str(ca), "PGCONNECT_TIMEOUT": "120",
    } | newest_client() | changes  # fmt: skip
    argv = [str(programs() / "psql"), "--no-psqlrc", "--no-password", "--tuples-only",
            "--no-align", *arguments]  # fmt: skip
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, check=False, timeout=180
    )
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-full"])
def test_psql_gets_in_without_a_password(bridge: Bridge, tmp_path: Path, mode: str) -> None:
    """In clear, and by TLS asked for and verified, psql is the lease's user at its first query."""
    said = _psql(bridge, tmp_path, "-c", "SELECT current_user, 6 * 7", PGSSLMODE=mode)
    assert said == ["app_scram|42"]
    assert [operation.resource for operation in bridge.operations][-1].startswith("SELECT")


def test_psql_is_told_why(bridge: Bridge, tmp_path: Path) -> None:
    """A setting that may not be set ends psql with our words: what, why, and what to do."""
    said = "\n".join(
        _psql(bridge, tmp_path, "-c", "SELECT 1", PGOPTIONS="-c standard_conforming_strings=off")
    )
    assert "FATAL:  loopwarden: The setting standard_conforming_strings may not be set" in said
    assert "DETAIL:  It is pinned to 'on' for this target." in said
    assert "HINT:  Remove it" in said


def test_psql_cancels_its_query(bridge: Bridge, server: Postgres, tmp_path: Path) -> None:
    """psql's own cancel (SIGINT) ends its query by way of a session of its own."""
    argv = [str(programs() / "psql"), "--no-psqlrc", "--no-password", "--tuples-only",
            "-c", "SELECT pg_sleep(600)"]  # fmt: skip
    environment = {
        "PGHOST": "127.0.0.1", "PGPORT": str(bridge.port), "PGUSER": "agent",
        "PGDATABASE": "orders", "PGSSLMODE": "disable",
    } | newest_client()  # fmt: skip
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as psql:
        try:
            while server.ask(sleeping) != [("1",)]:
                assert psql.poll() is None
            psql.send_signal(signal.SIGINT)
            _, said = psql.communicate(timeout=180)
        finally:
            psql.kill()
    assert "canceling statement due to user request" in said
