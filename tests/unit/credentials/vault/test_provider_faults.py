"""The vault provider when a server, or we, fail at the worst moment; servers on a disk."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from agent.credentials.spec import CredentialError, HttpRequest, Issued, Wanted
from agent.credentials.vault.child import BIRTH_S
from agent.credentials.vault.login import log_in
from agent.credentials.vault.settings import read_settings
from agent.credentials.vault.wire import REQUEST_S
from agent.runtime import clock
from tests.unit.broker.passing import be_patient
from tests.unit.credentials.postgres.stage import silent_port
from tests.unit.credentials.vault.stage import Stage, login, psql, stage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]
SOON_S = 100.0
# what these claim is that a server is given up
GIVEN_UP = {"test_a_server_that_hangs", "test_a_server_that_never_answers"}
USED_AS_IT_IS_S = 2.0  # a login that lasts for 3 s (FRESH)
STEPS = 5  # requests of a first issue: login, token, its life, the engine; one more is none


class Killed(BaseException):
    """We are no more."""


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    """Servers that these tests stop, seal and start again."""
    with stage(lasting=True) as made:
        yield made


@pytest.fixture
def shared(running: Stage) -> Stage:
    """The servers, and a client of this test's own."""
    return running.with_secret(running.vault.secret_id())


@pytest.fixture(autouse=True)
def _patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.name not in GIVEN_UP:
        be_patient(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_left(running: Stage) -> Iterator[None]:
    """Whatever happened, no user and no lease is left, and no token but those of a birth."""
    yield
    if not running.server.running:
        running.server.start()
    if not running.bao.running:
        running.bao.start()
    wait_for(lambda: running.users() == [], "a user is left")
    wait_for(lambda: running.vault.leases() == [], "a lease is left")
    assert all(child["ttl"] <= BIRTH_S for child in running.vault.children())


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Return when it holds; the servers end things on their own time."""
    end = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def failure(call: Callable[[], object]) -> CredentialError:
    """Return how a call failed."""
    with pytest.raises(CredentialError) as caught:
        call()
    return caught.value


def revoking(made: Stage, wanted: Wanted, issued: Issued) -> CredentialError:
    """Return how a revocation failed."""
    return failure(lambda: asyncio.run(made.revoke(wanted, issued.handle)))


def renewing(made: Stage, wanted: Wanted, issued: Issued) -> CredentialError:
    """Return how a renewal failed."""
    return failure(lambda: asyncio.run(made.renew(wanted, issued.handle)))


def kill_at(number: int) -> Callable[[HttpRequest], None]:
    """Return what ends us at the request of this number."""
    left = [number]

    def hook(_request: HttpRequest) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return hook


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_at_every_step_of_issue(shared: Stage, step: int, moment: str) -> None:
    """What was kept is enough: a new broker ends all of it; what was not kept is short-lived."""
    setattr(shared.client, moment, kill_at(step))
    wanted = shared.wanted()
    try:
        asyncio.run(shared.issue(wanted))
    except Killed:
        pass
    else:
        assert step == STEPS
    restarted = replace(shared.with_secret(shared.vault.secret_id()), kept=[])
    handle = (shared.kept or [""])[-1]
    asyncio.run(restarted.revoke(wanted, handle))
    # what a revoked token leased is ended on the server's own time
    wait_for(lambda: asyncio.run(restarted.gone(wanted, handle)), "the lease is left")
    wait_for(lambda: restarted.users() == [], "a user is left")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 4))
def test_killed_at_every_step_of_revoke(shared: Stage, step: int, moment: str) -> None:
    """It is begun again, and ends."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    setattr(shared.client, moment, kill_at(step))
    try:
        asyncio.run(shared.revoke(wanted, issued.handle))
    except Killed:
        pass
    restarted = shared.with_secret(shared.vault.secret_id())
    asyncio.run(restarted.revoke(wanted, issued.handle))
    assert asyncio.run(restarted.gone(wanted, issued.handle))
    assert shared.users() == []


def test_the_journal_fails_after_the_token_is_made(shared: Stage) -> None:
    """Nothing is asked of the engine with a token that nobody could revoke; it is ended."""

    def broken(_handle: str) -> None:
        raise CredentialError("the lease journal cannot be written")

    error = failure(lambda: asyncio.run(shared.issue(replace(shared.wanted(), keep=broken))))
    assert "journal" in str(error)
    assert shared.client.count("database/creds") == 0
    assert all(child["meta"]["host"] != shared.client.host for child in shared.vault.children()
               if child["ttl"] > BIRTH_S)  # fmt: skip


def test_the_database_stops_during_renew_and_revoke(shared: Stage) -> None:
    """400 is not "gone" (the lease is looked up): kept, tried again, done when it is back."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    shared.server.stop("immediate")
    error = renewing(shared, wanted, issued)
    assert (error.transient, error.gone) == (True, False)
    for _ in range(2):
        error = revoking(shared, wanted, issued)
        assert (error.transient, error.permanent) == (True, False)
        assert not asyncio.run(shared.gone(wanted, issued.handle))
    down = failure(lambda: asyncio.run(shared.issue(shared.wanted())))
    assert not down.nothing_made  # the engine failed halfway: it is revoked all the same
    shared.server.start()
    assert shared.users() == [login(issued)[0]]
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))
    assert shared.users() == []


def test_a_user_that_owns_a_table(shared: Stage) -> None:
    """DROP ROLE fails, so the lease is there, and said so, until a person moves the table."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    user, _ = login(issued)
    shared.server.ask(f'CREATE TABLE mine (n int); ALTER TABLE mine OWNER TO "{user}"')
    error = revoking(shared, wanted, issued)
    assert "cannot be dropped" in str(error)
    assert error.transient
    assert not asyncio.run(shared.gone(wanted, issued.handle))
    shared.server.ask("DROP TABLE mine")
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))


def test_sealed(shared: Stage) -> None:
    """A sealed server answers 503: everything may be asked again, nothing is taken for gone."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    shared.bao.seal()
    try:
        for error in (
            renewing(shared, wanted, issued),
            revoking(shared, wanted, issued),
            failure(lambda: asyncio.run(shared.gone(wanted, issued.handle))),
            failure(lambda: asyncio.run(shared.issue(shared.wanted()))),
        ):
            assert error.transient
            assert not error.gone
            assert not error.permanent
    finally:
        shared.bao.unseal()
    asyncio.run(shared.renew(wanted, issued.handle))
    assert psql(shared, issued, "SELECT 1") == "1"
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_restarted(shared: Stage, how: signal.Signals) -> None:
    """While it is down calls fail and may be tried again; afterwards lease and login are known."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    shared.bao.stop(how)
    assert renewing(shared, wanted, issued).transient
    assert revoking(shared, wanted, issued).transient
    shared.bao.start()
    asyncio.run(shared.renew(wanted, issued.handle))
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))
    assert shared.client.count("/login") == 1


def test_a_server_that_hangs(shared: Stage) -> None:
    """Each call is given up within its bound; what was under way is found afterwards."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    shared.bao.pause()
    try:
        error = revoking(shared, wanted, issued)
        assert error.transient
        assert f"did not answer within {REQUEST_S:.3g} s" in str(error)
    finally:
        shared.bao.resume()
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))


def test_a_server_that_never_answers(shared: Stage) -> None:
    """It is given up, with certainty that nothing was made."""
    with silent_port() as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = failure(lambda: asyncio.run(shared.issue(shared.wanted(address=url, ca=None))))
    assert error.transient
    assert error.nothing_made


def test_our_login_dies(shared: Stage) -> None:
    """A 403 of a dead login is one new login and the same again; runs' tokens live on."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    settings = read_settings(wanted.settings)
    own = asyncio.run(log_in(settings, shared.client))
    shared.bao.write("auth/token/revoke", {"token": own.token.reveal().decode()})
    assert psql(shared, issued, "SELECT 1") == "1"
    asyncio.run(shared.renew(wanted, issued.handle))
    assert shared.client.count("/login") == 2
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))


def test_our_login_reaches_its_longest(shared: Stage) -> None:
    """It is renewed while it is used and replaced before its end; leases of before live on."""
    shared.vault.login("3s", "6s")
    wanted = shared.wanted()
    began = time.monotonic()
    try:
        issued = asyncio.run(shared.issue(wanted))
        while not (shared.client.count("renew-self") and shared.client.count("/login") > 1):
            asyncio.run(shared.renew(wanted, issued.handle))
            assert psql(shared, issued, "SELECT 1") == "1"
            time.sleep(0.25)
        lived_s = time.monotonic() - began
        logins = shared.client.count("/login")
    finally:
        shared.vault.login("1h", "24h")
    assert logins <= 1 + lived_s / USED_AS_IT_IS_S
    asyncio.run(shared.renew(wanted, issued.handle))
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))


def test_a_right_that_our_login_lost(shared: Stage) -> None:
    """A 403 of a live login is no reason to log in again: a person is told."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    policy = shared.bao.read("sys/policies/acl/own")["data"]["policy"]
    shared.bao.write("sys/policies/acl/own", {"policy": policy.replace("sys/leases/revoke", "x")})
    try:
        error = revoking(shared, wanted, issued)
        assert error.permanent
        assert shared.client.count("/login") == 1
    finally:
        shared.bao.write("sys/policies/acl/own", {"policy": policy})
    asyncio.run(shared.revoke(wanted, issued.handle))
    assert asyncio.run(shared.gone(wanted, issued.handle))


def test_a_runs_token_dies(shared: Stage) -> None:
    """Then its lease dies too, whatever renewing it would say: it is gone, and replaced."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    accessor = json.loads(issued.handle)["accessor"]
    shared.bao.write("auth/token/revoke-accessor", {"accessor": accessor})
    error = renewing(shared, wanted, issued)
    assert error.gone
    assert not error.transient
    asyncio.run(shared.revoke(wanted, issued.handle))
    wait_for(lambda: asyncio.run(shared.gone(wanted, issued.handle)), "the lease is left")


def test_a_token_at_its_longest(shared: Stage) -> None:
    """Where the token role lets it live no longer: renewals give less and less, then it is gone."""
    role = "auth/token/roles/loopwarden"
    shared.bao.write(role, {"token_explicit_max_ttl": "10s"})
    wanted = replace(shared.wanted(), ttl_s=9)
    try:
        issued = asyncio.run(shared.issue(wanted))
        issued_ms = clock.unix_ms()
        lasts: list[int] = []

        def renewed() -> bool:
            answer = asyncio.run(shared.renew(wanted, issued.handle))
            lasts.append(answer.expires_ms)
            return False

        error = failure(lambda: wait_for(renewed, "it does not end"))
    finally:
        shared.bao.write(role, {"token_explicit_max_ttl": "0"})
    assert error.gone or "at its longest" in str(error)
    assert not error.transient
    assert max(lasts) <= issued_ms + 10_000 + 1_000  # the server counts in whole seconds
    wait_for(lambda: shared.users() == [], "the user outlives its token")
    asyncio.run(shared.revoke(wanted, issued.handle))
    wait_for(lambda: asyncio.run(shared.gone(wanted, issued.handle)), "the lease is left")


def test_a_lease_at_the_targets_longest(shared: Stage) -> None:
    """The server would go on; we do not."""
    wanted = replace(shared.wanted(), ttl_s=60)
    issued = asyncio.run(shared.issue(wanted))
    time.sleep(1.1)
    error = renewing(shared, replace(wanted, max_ttl_s=1), issued)
    assert "max_ttl" in str(error)
    assert not error.transient
    asyncio.run(shared.revoke(wanted, issued.handle))
