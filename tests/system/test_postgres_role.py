"""A run's database role exists only while the run does: the server is asked, whatever dies."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.servers.postgres import Stop, canaries, programs
from tests.system.host import Host
from tests.system.postgres_site import NAME, Site, Stage, postgres_site, postgres_stage
from tests.system.run_cgroups import end_runs
from tests.system.written import files

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(900)]
# Of what hangs otherwise. After a death the supervisor waits, longer each time, before a role is
# back; after a failed revocation the broker does.
WITHIN_S = 120.0
ROLES = "SELECT rolname FROM pg_roles WHERE rolname ~ '^loopwarden_[0-9a-z]{26}_' ORDER BY 1"
# whose role is gone has no name here: what a session is and whose is asked at once
SLEEPING = "SELECT usename, pid FROM pg_stat_activity WHERE query ~ '^select pg_sleep'"
# the admin waits for the rights of a table that somebody holds, as it makes or drops a role
WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE usename = 'loopwarden_admin'"
    " AND wait_event_type = 'Lock' AND query ~ "
)
# a loop that goes on whatever happens to its connection
LOOP = (
    "while :; do"
    f" {programs()}/psql -XAtqc 'select pg_sleep(600)' postgresql://{NAME}/orders >/dev/null 2>&1;"
    " sleep 0.1; done"
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A server that logs every statement."""
    with postgres_site({"log_statement": "all"}) as made:
        yield made


@pytest.fixture(scope="module")
def whole(site: Site) -> Iterator[Stage]:
    """A worker host whose loops may use it."""
    with postgres_stage(site) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_left(whole: Stage) -> Iterator[None]:
    """After each test: no run, no role, and no lease that is not over."""
    yield
    end_runs(whole.host)
    if not whole.site.server.running:
        whole.site.server.start()
    wait_for(lambda: not roles(whole), "a role is left")
    wait_for(lambda: not leases(whole), "a lease is left")


def wait_for(holds: Callable[[], object], what: str) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def roles(whole: Stage) -> list[str]:
    """Ask the server."""
    return [row[0] for row in whole.site.server.ask(ROLES)]


def sleeping(whole: Stage) -> list[str]:
    """Ask the server who runs a loop's query; "": somebody whose role is gone."""
    return [row[0] for row in whole.site.server.ask(SLEEPING)]


def sessions(whole: Stage) -> set[str]:
    """Ask the server for the process of each loop's query."""
    return {row[1] for row in whole.site.server.ask(SLEEPING)}


def leases(whole: Stage) -> list[str]:
    """Return the leases that are not over."""
    done = whole.host.cli("leases")
    return (
        re.findall(r"^[0-9A-Z]{26}.*", done.stdout, re.MULTILINE) if not done.returncode else ["?"]
    )


@contextmanager
def running_loop(whole: Stage) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a loop that sleeps in the database."""
    process = subprocess.Popen(
        whole.host.run_command("everything", ["/bin/sh", "-c", LOOP]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=whole.host.loop_environment(),
        cwd="/",
    )
    try:
        yield process
    finally:
        end_runs(whole.host)
        process.wait(WITHIN_S)


@contextmanager
def rights_held(whole: Stage) -> Iterator[None]:
    """Hold the rights of a table, so that nobody can grant on it or take rights from it."""
    server = whole.site.server
    argv = [str(programs() / "psql"), "-XAtq", "-h", str(server.folder), "-p", str(server.port),
            "-U", "postgres", "orders"]  # fmt: skip
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("BEGIN; GRANT SELECT ON refunds TO app_trust; SELECT 'held';\n")
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.stdin.write("ROLLBACK;\n")
            holder.stdin.close()


def kill(host: Host, role: str) -> None:
    """SIGKILL a role; the whole daemon is started again by us, as systemd does."""
    host.kill_role(role)
    if role == "kernel":
        assert host.daemon is not None
        host.daemon.wait(WITHIN_S)
        host.start()


def test_the_role_is_there_while_the_run_is(whole: Stage) -> None:
    """One a run, named after it, dropped at its end; two runs have two."""
    with running_loop(whole):
        wait_for(lambda: sleeping(whole), "the loop does not run")
        (first,) = roles(whole)
        assert sleeping(whole) == [first]
        with running_loop(whole):
            wait_for(lambda: len(sleeping(whole)) == 2, "the second loop does not run")
            assert len(roles(whole)) == 2
            shown = whole.host.cli("leases").stdout
            assert all(name in shown for name in roles(whole))
            end_runs(whole.host)
            wait_for(lambda: not roles(whole), "the roles are left")
    assert not sleeping(whole)


@pytest.mark.parametrize("role", ["kernel", "broker", "proxy@0", "reporter"])
def test_killed_while_it_is_issued(whole: Stage, role: str) -> None:
    """SIGKILL in the middle of the transaction that makes it: nothing stays."""
    with rights_held(whole), running_loop(whole):
        grant = f"{WAITING} '^GRANT'"
        wait_for(lambda: whole.site.server.ask(grant), "nothing is issued")
        kill(whole.host, role)
    wait_for(lambda: not roles(whole), "a role is left")
    wait_for(lambda: not leases(whole), "a lease is left")


@pytest.mark.parametrize("role", ["kernel", "broker", "proxy@0", "reporter"])
def test_killed_while_it_is_used(whole: Stage, role: str) -> None:
    """SIGKILL while a query runs: the run gets in again, and at its end all roles go."""
    with running_loop(whole):
        wait_for(lambda: sleeping(whole), "the loop does not run")
        before = set() if role == "reporter" else sessions(whole)  # which needs none to live on
        kill(whole.host, role)
        wait_for(lambda: sessions(whole) - before, "the loop does not come back")
        assert "" not in sleeping(whole)
    wait_for(lambda: not roles(whole), "a role is left")
    assert not sleeping(whole)


@pytest.mark.parametrize("role", ["kernel", "broker", "proxy@0", "reporter"])
def test_killed_while_it_is_revoked(whole: Stage, role: str) -> None:
    """SIGKILL in the middle of the transaction that drops it: no login meanwhile, and it goes."""
    with running_loop(whole):
        wait_for(lambda: sleeping(whole), "the loop does not run")
        with rights_held(whole):
            end_runs(whole.host)
            drop = f"{WAITING} '^DROP OWNED'"
            wait_for(lambda: whole.site.server.ask(drop), "nothing is revoked")
            login = "SELECT rolcanlogin FROM pg_roles WHERE rolname ~ '^loopwarden_[0-9a-z]{26}_'"
            assert whole.site.server.ask(login) == [("f",)]
            assert not sleeping(whole)
            kill(whole.host, role)
    wait_for(lambda: not roles(whole), "a role is left")
    wait_for(lambda: not leases(whole), "a lease is left")


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_the_server_stopped_during_revoke(whole: Stage, how: Stop) -> None:
    """The lease is not forgotten: it is shown, tried again, and the role goes when it can."""
    server = whole.site.server
    with running_loop(whole):
        wait_for(lambda: sleeping(whole), "the loop does not run")
        (name,) = roles(whole)
        server.stop(how)
        end_runs(whole.host)
        wait_for(lambda: "revoke-retry" in "".join(leases(whole)), "nothing is tried again")
        broker = whole.host.role_pid("broker")
        os.kill(broker, signal.SIGSTOP)  # who tries again as soon as the server answers
        try:
            server.start()
            assert roles(whole) == [name]  # what did not answer can't have dropped it
        finally:
            os.kill(broker, signal.SIGCONT)
        wait_for(lambda: not roles(whole), "a role is left")


def test_a_server_that_hangs_during_revoke(whole: Stage) -> None:
    """A server that stops answering holds the revocation up, and the role goes when it answers."""
    server = whole.site.server
    with running_loop(whole):
        wait_for(lambda: sleeping(whole), "the loop does not run")
        server.pause()
        try:
            end_runs(whole.host)
            wait_for(lambda: "revoke-retry" in "".join(leases(whole)), "nothing is tried again")
        finally:
            server.resume()
    wait_for(lambda: not roles(whole), "a role is left")


def test_a_lost_journal(whole: Stage) -> None:
    """Killed, and its journal lost: the next start finds the role by its name, and tells of it."""
    host = whole.host
    with running_loop(whole):
        wait_for(lambda: sleeping(whole), "the loop does not run")
        (lost,) = roles(whole)
        host.kill_role("kernel")
        assert host.daemon is not None
        host.daemon.wait(WITHIN_S)
        end_runs(host)
        (host.state_dir / "broker/leases.journal").unlink()
        host.start()
        wait_for(lambda: lost not in roles(whole), "the role is left")
    wait_for(lambda: "lease-lost" in host.cli("status").stdout, "it is not told")


def test_nobody_is_told_a_password(whole: Stage) -> None:
    """Neither the server's log, with every statement, nor anything of ours holds one."""
    with running_loop(whole):
        wait_for(lambda: sleeping(whole), "the loop does not run")
        journal = (whole.host.state_dir / "broker/leases.journal").read_bytes()
        assert roles(whole)[0].encode() in journal
    kept = files(whole.host.log, whole.host.state_dir)
    texts = [whole.site.server.log().encode(), *(data for _, data in kept)]
    for canary in canaries():
        assert not [text for text in texts if canary.encode() in text]
