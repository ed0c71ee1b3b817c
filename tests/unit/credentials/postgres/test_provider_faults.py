"""The postgres provider when the server, or we, fail at the worst moment."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from agent.broker.sql_client import Session
from agent.credentials.postgres import SPEC
from agent.credentials.postgres.naming import comment, literal, role_name
from agent.credentials.spec import CredentialError, SqlRefused
from tests.servers.postgres import ADMIN_PASSWORD, Postgres, Stop
from tests.unit.broker.passing import be_patient
from tests.unit.credentials.postgres.stage import Stage, client, login, silent_port, stage

pytestmark = [
    pytest.mark.servers,
    # a driver's transport that was closed as the test's event loop ended is collected afterwards
    pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
SOON_S = 100.0
# what these claim is that a server is given up
GIVEN_UP = {
    "test_a_paused_server_cuts_the_call_off_and_nothing_stays", "test_a_server_that_never_answers",
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Postgres]:
    """A server that these tests stop, pause and start again."""
    with stage() as made:
        yield made.server


@pytest.fixture
def shared(running: Postgres) -> Stage:
    """The server, and a client of this test's own."""
    return Stage(running, client())


@pytest.fixture(autouse=True)
def _patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.name not in GIVEN_UP:
        be_patient(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_left(shared: Stage) -> Iterator[None]:
    """Whatever happened, no role is left at the end."""
    yield
    if not shared.server.running:
        shared.server.start()
    assert shared.roles() == []


async def failure(awaited: "asyncio.Future[object] | asyncio.Task[object]") -> CredentialError:
    """Return how a call failed."""
    with pytest.raises(CredentialError) as caught:
        await awaited
    return caught.value


def test_a_crash_after_issue_leaves_nothing(shared: Stage) -> None:
    """The journal has no handle: the role is found by its lease, and dropped."""
    wanted = shared.wanted()
    asyncio.run(shared.issue(wanted))  # and here the broker dies
    assert shared.roles() == [role_name(wanted)]
    asyncio.run(shared.revoke(wanted, ""))
    asyncio.run(shared.revoke(wanted, ""))


def test_a_cut_off_issue_can_not_commit_later(shared: Stage) -> None:
    """Revoke ends the session that is about to commit the role, before it says that it is gone."""
    wanted = shared.wanted()
    role = role_name(wanted)

    async def run() -> None:
        issuing = await asyncpg.connect(
            host=shared.server.address, port=shared.server.port, user="loopwarden_admin",
            password=ADMIN_PASSWORD, database="orders", ssl="require",
            server_settings={"application_name": role},
        )  # fmt: skip
        await issuing.execute(
            f'BEGIN; CREATE ROLE "{role}" LOGIN;'
            f'COMMENT ON ROLE "{role}" IS {literal(comment(wanted, shared.client.host))}'
        )
        await shared.revoke(wanted, "")
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await issuing.execute("COMMIT")
        issuing.terminate()

    asyncio.run(run())
    assert shared.roles() == []


def test_other_sessions_of_the_admin_are_let_be(shared: Stage) -> None:
    """Revoking what is not there ends nobody else."""
    wanted = shared.wanted()

    async def run() -> None:
        other = await asyncpg.connect(
            host=shared.server.address, port=shared.server.port, user="loopwarden_admin",
            password=ADMIN_PASSWORD, database="orders", ssl="require",
        )  # fmt: skip
        await shared.revoke(wanted, "")
        assert await other.fetchval("SELECT 1") == 1
        await other.close()

    asyncio.run(run())


def test_a_paused_server_cuts_the_call_off_and_nothing_stays(shared: Stage) -> None:
    """The caller's deadline holds while nothing answers; when it does, what was made is found."""
    requests = [shared.wanted() for _ in range(4)]

    async def run() -> None:
        tasks = [asyncio.ensure_future(shared.issue(wanted)) for wanted in requests]
        while not shared.roles():
            await asyncio.to_thread(shared.server.ask, "SELECT 1")
        shared.server.pause()
        try:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=SOON_S)
            assert all(task.done() for task in tasks)
            blocked = await failure(asyncio.ensure_future(shared.revoke(requests[0])))
            assert blocked.transient
        finally:
            shared.server.resume()
        for wanted in requests:
            await shared.revoke(wanted)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_that_stops_during_issue(
    shared: Stage, monkeypatch: pytest.MonkeyPatch, how: Stop
) -> None:
    """Each call ends with an error that may pass; whatever was made is found afterwards."""
    requests = [shared.wanted() for _ in range(8)]
    execute = Session.execute

    async def run() -> None:
        committed = asyncio.Event()

        async def noted(session: Session, text: str) -> tuple[str, ...]:
            said = await execute(session, text)
            if text == "COMMIT":
                committed.set()
            return said

        monkeypatch.setattr(Session, "execute", noted)
        tasks = [asyncio.ensure_future(shared.issue(wanted)) for wanted in requests]
        await committed.wait()  # transactions take turns: of the others, none is
        shared.server.stop(how)  # while it does, nothing goes on here
        done, _ = await asyncio.wait(tasks, timeout=SOON_S)
        assert len(done) == len(tasks)
        errors = [task.exception() for task in tasks if task.exception() is not None]
        assert errors
        for error in errors:
            assert isinstance(error, CredentialError)
            assert error.transient
        down = await failure(asyncio.ensure_future(shared.revoke(requests[0])))
        assert down.transient
        assert not down.permanent
        await asyncio.to_thread(shared.server.start)
        made = set(shared.roles())
        for wanted, task in zip(requests, tasks, strict=True):
            error = task.exception()
            if isinstance(error, CredentialError) and error.nothing_made:
                assert role_name(wanted) not in made
            await shared.revoke(wanted)

    asyncio.run(run())


def test_a_server_that_stops_during_revoke(shared: Stage) -> None:
    """Revoke fails until the server is back, and then the role goes."""
    wanted = shared.wanted()

    async def run() -> None:
        issued = await shared.issue(wanted)
        await asyncio.to_thread(shared.server.stop, "immediate")
        for _ in range(3):
            assert (await failure(asyncio.ensure_future(shared.revoke(wanted)))).transient
        with pytest.raises(CredentialError):
            await SPEC.make().confirm(wanted, issued.handle, shared.client)  # type: ignore[attr-defined]
        await asyncio.to_thread(shared.server.start)
        assert shared.roles() == [login(issued)[0]]
        await shared.revoke(wanted)

    asyncio.run(run())


def test_revocations_at_any_moment_of_issues(shared: Stage) -> None:
    """Issues that are cut off at 40 different moments, each revoked at once: none comes back."""

    async def run() -> None:
        for step in range(40):
            wanted = shared.wanted()
            task = asyncio.ensure_future(shared.issue(wanted))
            await asyncio.wait((task,), timeout=step * 0.002)
            task.cancel()
            revoking = asyncio.ensure_future(shared.revoke(wanted))
            await asyncio.wait((task, revoking))
            revoking.result()
            assert (
                shared.server.ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{role_name(wanted)}'")
                == []
            )

    asyncio.run(run())
    assert shared.roles() == []


def test_a_server_that_never_answers(shared: Stage) -> None:
    """It is given up, within the bound, with certainty that nothing was made."""
    with silent_port() as silent:
        wanted = shared.wanted(address=f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(CredentialError, match="did not answer within 5 s") as caught:
            asyncio.run(shared.issue(wanted))
    assert caught.value.transient
    assert caught.value.nothing_made


def test_a_refusal_makes_nothing(shared: Stage) -> None:
    """What the server refuses is rolled back, and said so."""
    with pytest.raises(SqlRefused) as caught:
        asyncio.run(shared.issue(shared.wanted(grants=["SELECT ON nothing_here"])))
    assert caught.value.nothing_made
    assert not caught.value.transient
