"""A run's end, and a revoke by hand, stop what it has the server do: the server is asked."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.postgres import programs
from tests.system.postgres_site import NAME, Site, Stage, postgres_site, postgres_stage
from tests.system.run_cgroups import end_runs, live_runs

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(900)]
WITHIN_S = 120.0  # of what hangs otherwise
UNCONFIRMED = 1  # of `loopwarden revoke`: not within 10 s, on a busy machine; it goes on
STATEMENTS = {
    "sleep": "SELECT pg_sleep(600)",
    "copy": "COPY (SELECT repeat('x', 100), generate_series(1, 100000000)) TO STDOUT",
}
HOSTS = {"orders": NAME, "app": "app.test.internal"}  # a role for the run, and a login that stays
ROLES = "SELECT rolname FROM pg_roles WHERE rolname ~ '^loopwarden_[0-9a-z]{26}_'"
BUSY = (
    "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
    " AND (query ~ 'pg_sleep' OR query ~ '^COPY')"
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A server."""
    with postgres_site() as made:
        yield made


@pytest.fixture(scope="module")
def whole(site: Site) -> Iterator[Stage]:
    """A worker host whose loops may use it."""
    with postgres_stage(site) as made:
        yield made


def wait_for(whole: Stage, sql: str, *, rows: bool) -> list[tuple[str, ...]]:
    """Ask the server until there are rows, or none; return them."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        found = whole.site.server.ask(sql)
        if bool(found) is rows:
            return found
        assert time.monotonic() < deadline, (sql, found)
        time.sleep(0.02)


@contextmanager
def working(whole: Stage, target: str, statement: str) -> Iterator[str]:
    """Run a loop whose statement is under way; yield its run's id."""
    address = f"postgresql://{HOSTS[target]}/orders"
    command = [str(programs() / "psql"), "-XAtqc", STATEMENTS[statement], address]
    with subprocess.Popen(
        whole.host.run_command("everything", command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=whole.host.loop_environment(),
        cwd="/",
    ):
        try:
            wait_for(whole, BUSY, rows=True)
            (run_id,) = live_runs(whole.host)
            yield run_id
        finally:
            end_runs(whole.host)


def test_a_runs_end_does_not_wait_for_the_broker(whole: Stage) -> None:
    """With the broker stopped its connections are cut all the same; the role when it goes on."""
    with working(whole, "orders", "sleep") as run_id:
        broker = whole.host.role_pid("broker")
        os.kill(broker, signal.SIGSTOP)
        try:
            end_runs(whole.host, run_id)
            wait_for(whole, BUSY, rows=False)
            assert whole.site.server.ask(ROLES)
        finally:
            os.kill(broker, signal.SIGCONT)
        wait_for(whole, ROLES, rows=False)
    (cut,) = whole.operations(at_least=1, run_id=run_id, outcome="aborted")
    assert cut["reason"] == "run-ended"


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("target", HOSTS)
@pytest.mark.parametrize("how", ["run-ended", "run-revoked"])
def test_what_is_under_way_stops(whole: Stage, how: str, target: str, statement: str) -> None:
    """The server works on it no more, the role is dropped, and the records tell why."""
    with working(whole, target, statement) as run_id:
        if how == "run-revoked":
            assert whole.host.cli("revoke", run_id).returncode in {0, UNCONFIRMED}
        else:
            end_runs(whole.host, run_id)
        wait_for(whole, BUSY, rows=False)
        wait_for(whole, ROLES, rows=False)
    (cut,) = whole.operations(at_least=1, run_id=run_id, outcome="aborted")
    assert STATEMENTS[statement] == cut["resource"]
    assert cut["reason"] == how
