"""A run's database user is made by a vault, and gone with the run: both servers are asked."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.servers.openbao_setup import canaries
from tests.servers.postgres import programs
from tests.system.host import BIN
from tests.system.postgres_site import NAME, Stage
from tests.system.run_cgroups import end_runs
from tests.system.vault_site import LEDGER, VaultSite, vault_site, vault_stage
from tests.system.written import files

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(900)]
# Of what hangs otherwise. After a death the supervisor waits, longer each time, before a role is
# back; after a failed revocation the broker does.
WITHIN_S = 120.0
SLEEPING = "SELECT usename FROM pg_stat_activity WHERE query ~ '^select pg_sleep'"
PSQL = f"{programs()}/psql -XAtq"
LOOP = (
    f"while :; do {PSQL} -c 'select pg_sleep(600)' postgresql://{NAME}/orders >/dev/null 2>&1;"
    " sleep 0.1; done"
)


@pytest.fixture(scope="module")
def made() -> Iterator[VaultSite]:
    """The servers."""
    with vault_site() as site:
        yield site


@pytest.fixture(scope="module")
def whole(made: VaultSite) -> Iterator[Stage]:
    """A worker host that uses them."""
    with vault_stage(made) as stage:
        yield stage


@pytest.fixture(autouse=True)
def _nothing_left(made: VaultSite, whole: Stage) -> Iterator[None]:
    """After each test: no run, no user, no lease here or there, no run's token."""
    yield
    end_runs(whole.host)
    if not made.site.server.running:
        made.site.server.start()
    wait_for(lambda: not made.users(), "a user is left")
    wait_for(lambda: not leases(whole), "a lease is left")
    # of what ends by itself the vault drops the user first, and its own entry then
    wait_for(lambda: not made.vault.leases() + made.vault.leases("short"), "the vault has a lease")
    wait_for(lambda: not made.vault.children(), "a run's token is left")


def wait_for(holds: Callable[[], object], what: str) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def leases(whole: Stage, *words: str) -> list[dict[str, Any]]:
    """Return what `loopwarden leases` says; while the broker is away, that there are some."""
    done = whole.host.cli("leases", *words, "--json")
    found: list[dict[str, Any]] = [{"state": "?"}] if done.returncode else json.loads(done.stdout)
    return found


def states(whole: Stage) -> list[str]:
    """Return the states of the leases that are not over."""
    return [each["state"] for each in leases(whole)]


def sleeping(made: VaultSite) -> list[str]:
    """Ask the database who runs a loop's query."""
    return [row[0] for row in made.site.server.ask(SLEEPING)]


@contextmanager
def running_loop(made: VaultSite, whole: Stage) -> Iterator[str]:
    """Start a loop that sleeps in the database; yield its user."""
    process = subprocess.Popen(
        whole.host.run_command("report", ["/bin/sh", "-c", LOOP]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=whole.host.loop_environment(),
        cwd="/",
    )
    try:
        wait_for(lambda: sleeping(made), "the loop does not run")
        yield sleeping(made)[0]
    finally:
        end_runs(whole.host)
        process.wait(WITHIN_S)


def test_the_user_is_there_while_the_run_is(made: VaultSite, whole: Stage) -> None:
    """Plain psql, no password; after the run the user is gone and the lease confirmed revoked."""
    before = {lease["lease_id"] for lease in leases(whole, "--all")}
    query = "select current_user, count(*) from orders"
    done = whole.host.run(
        "report", ["/bin/sh", "-c", f'{PSQL} -c "{query}" postgresql://{NAME}/orders']
    )
    assert done.returncode == 0, done.stderr
    user, count = done.stdout.strip().split("|")
    assert user.startswith("v-token-")
    assert count == "5000"
    wait_for(lambda: not leases(whole), "the lease is left")
    assert made.users() == []
    assert made.vault.leases() == []
    [lease] = [each for each in leases(whole, "--all") if each["lease_id"] not in before]
    assert (lease["state"], lease["revocable"]) == ("revoked", True)
    assert lease["provider_id"].startswith("database/creds/orders/")
    log = made.site.server.log()
    assert f"user={user} " in log


def test_a_certificate_lets_in_while_the_run_is(made: VaultSite, whole: Stage) -> None:
    """curl and psql without key or password: each server sees the run's certificate, then revoked.

    Without one nobody gets in, and its key is nowhere.
    """
    before = {lease["lease_id"] for lease in leases(whole, "--all")}
    url = f"https://{LEDGER}/a"
    query = "select current_user"
    shell = f"curl -sS {url}; {PSQL} -c '{query}' postgresql://certified.test.internal/orders"
    done = whole.host.run("report", ["/bin/sh", "-c", shell])
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"hello": "reports"}app_cert\n'
    wait_for(lambda: not leases(whole), "a lease is left")
    past = (each for each in leases(whole, "--all") if each["lease_id"] not in before)
    over = {each["target"]: each for each in past}
    assert {(name, each["state"]) for name, each in over.items()} == {
        ("ledger", "revoked"),
        ("certified", "revoked"),
    }
    [asked] = made.ledger.asked
    serial = over["ledger"]["provider_id"]
    assert asked.shown == ("reports", serial.replace(":", "").upper())
    for each in over.values():
        answer = made.bao.read(f"pki/cert/{each['provider_id']}")
        assert answer["data"]["revocation_time"] > 0
    outside = ["curl", "-sS", "-k", made.ledger.url]
    assert whole.host.bystander(outside).returncode != 0
    assert len(made.ledger.asked) == 1
    kept = files(whole.host.state_dir, whole.host.log)
    with_key = [path for path, data in kept if b"PRIVATE KEY" in data]
    assert [path for path in with_key if path.suffix != ".pem"] == []  # the host's own CA


def test_the_end_of_a_lease_ends_its_query(made: VaultSite, whole: Stage) -> None:
    """At the server's longest a long query ends in PostgreSQL's words, before the user's end.

    From the last renewal on the vault is held: what is seen is what we do by our own clock.
    """
    command = f"{PSQL} -v VERBOSITY=verbose -c 'select pg_sleep(600)'"
    line = ["/bin/sh", "-c", f"{command} postgresql://short.test.internal/orders"]
    before = len(whole.host.log.read_bytes())
    with subprocess.Popen(
        whole.host.run_command("report", line),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=whole.host.loop_environment(),
        cwd="/",
    ) as process:
        last = b"renewed for the last time"
        wait_for(lambda: last in whole.host.log.read_bytes()[before:], "it is not renewed")
        made.bao.pause()
        try:
            _, said = process.communicate(timeout=WITHIN_S)
        finally:
            made.bao.resume()
            process.kill()
    assert process.returncode != 0
    assert "FATAL:  57P01: " in said
    assert "lease-expired" in said


@pytest.mark.parametrize("role", ["broker", "kernel"])
def test_killed_while_it_is_used(made: VaultSite, whole: Stage, role: str) -> None:
    """SIGKILL: the old user is taken away, the run gets in again as another, and all goes."""
    host = whole.host
    with running_loop(made, whole) as first:
        host.kill_role(role)
        if role == "kernel":
            assert host.daemon is not None
            host.daemon.wait(WITHIN_S)
            host.start()
        wait_for(lambda: first not in made.users(), "the old user is left")
        wait_for(lambda: sleeping(made), "the loop does not come back")


def test_the_vault_is_sealed_at_the_end_of_a_run(made: VaultSite, whole: Stage) -> None:
    """The session is closed at once all the same; the lease is kept, shown, and then revoked."""
    with running_loop(made, whole) as user:
        made.bao.seal()
        try:
            end_runs(whole.host)
            wait_for(lambda: not sleeping(made), "the session is open")
            wait_for(lambda: states(whole) == ["revoke-retry"], "nothing is tried again")
            assert made.users() == [user]
        finally:
            made.bao.unseal()


def test_a_person_revokes_while_the_vault_is_sealed(made: VaultSite, whole: Stage) -> None:
    """The open session of a run that goes on is cut at once; "revoked" is not said."""
    with running_loop(made, whole) as user:
        [lease] = leases(whole)
        made.bao.seal()
        try:
            asking = subprocess.Popen(
                [str(BIN / "loopwarden"), "--config", str(whole.host.config), "revoke",
                 lease["lease_id"]],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )  # fmt: skip
            assert asking.stdout is not None
            assert "is taken away" in asking.stdout.readline()
            wait_for(lambda: user not in sleeping(made), "the session is open")
            shown, _ = asking.communicate(timeout=WITHIN_S)
            assert asking.returncode == 1, shown
            assert "NOT confirmed yet" in shown
            wait_for(lambda: states(whole) == ["revoke-retry"], "nothing is tried again")
        finally:
            made.bao.unseal()


def test_the_database_is_stopped_at_the_end_of_a_run(made: VaultSite, whole: Stage) -> None:
    """The vault says 400: that is not "revoked"; it is tried until the user is gone."""
    with running_loop(made, whole) as user:
        made.site.server.stop("fast")
        end_runs(whole.host)
        wait_for(lambda: states(whole) == ["revoke-retry"], "nothing is tried again")
        made.site.server.start()
        assert made.users() in ([user], [])


def test_nobody_is_told_a_secret(made: VaultSite, whole: Stage) -> None:
    """Neither in what we log and keep, nor in the vault's log at level debug."""
    with running_loop(made, whole):
        texts = [data for _, data in files(whole.host.state_dir)]
    texts += [whole.host.log.read_bytes(), made.bao.log().encode()]
    secret_id = (made.site.folder / "secret-id").read_text().strip()
    for canary in (*canaries(), secret_id, made.bao.root):
        assert not [text for text in texts if canary.encode() in text]
