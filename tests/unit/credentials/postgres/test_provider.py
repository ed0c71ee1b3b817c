"""The postgres provider on a real server: the conformance suite, and what only roles can do."""

import asyncio
import base64
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest

from agent.broker.sources import BrokerClient
from agent.credentials.postgres import SPEC
from agent.credentials.postgres.naming import is_role_name, role_name
from agent.credentials.spec import CredentialError, Issued, Renewed, Wanted
from agent.model.ids import LeaseId, LoopName, TargetName, ulid_time
from agent.model.secret import Secret
from agent.runtime import clock
from tests.conformance.provider_suite import Case, check_all
from tests.servers.postgres import ADMIN_PASSWORD, SUPERUSER_PASSWORD, Postgres, canaries, programs
from tests.unit.broker.passing import be_patient
from tests.unit.credentials.moments import lasts
from tests.unit.credentials.postgres.stage import Stage, client, login, stage

pytestmark = [
    pytest.mark.servers,
    # a driver's transport that was closed as the test's event loop ended is collected afterwards
    pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
CANARY = b"c4n4ryc4n4ryc4n4"  # 12 bytes of base64


class CanaryClient(BrokerClient):
    """Its randomness begins as the canary's does."""

    def random(self, count: int) -> bytes:
        """See Client.random."""
        return (base64.urlsafe_b64decode(CANARY) + super().random(count))[:count]


@pytest.fixture(scope="module")
def running() -> Iterator[Postgres]:
    """A server for tests that leave it as it was."""
    with stage() as made:
        yield made.server


@pytest.fixture
def shared(running: Postgres) -> Stage:
    """The server, and a client of this test's own."""
    return Stage(running, client())


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_left(shared: Stage) -> Iterator[None]:
    """No test leaves a role on the shared server."""
    yield
    assert shared.roles() == []


def psql(made: Stage, issued: Issued, sql: str, database: str = "orders") -> str:
    """Run a statement as the role; return its output, or the error."""
    role, password = login(issued)
    done = subprocess.run(
        [str(programs() / "psql"), "-XAtc", sql],
        env=made.server.environment(role, password, database=database),
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout or done.stderr).strip()


def refusal(made: Stage, wanted: Wanted) -> str:
    """Return why a role can't be made; probe says the same, and nothing is left."""
    with pytest.raises(CredentialError) as caught:
        asyncio.run(made.issue(wanted))
    with pytest.raises(CredentialError):
        asyncio.run(SPEC.make().probe(wanted, made.client))
    assert made.roles() == []
    assert not any(canary in str(caught.value) for canary in canaries())
    return str(caught.value)


def test_the_suite(shared: Stage) -> None:
    """It passes what every provider must; being alive is logging in."""
    bad: tuple[dict[str, str], ...] = (
        {},
        shared.settings(grants=["SELECT ON TABLE no_such_table"]),
        shared.settings(grants=["SELECT ON orders; DROP TABLE orders"]),
        shared.settings(systemd_credential="none"),
        shared.settings(admin="app_scram"),
        shared.settings(database="no_such_database"),
        shared.settings(server_name="elsewhere.test.internal"),
        shared.settings(member_of=["pg_execute_server_program"]),
        shared.settings(address="127.0.0.1:1"),
        shared.settings(unknown="x"),
    )
    admin = {"admin": Secret(ADMIN_PASSWORD.encode())}
    case = Case(
        SPEC,
        CanaryClient(admin, {}),
        shared.settings(),
        bad,
        CANARY,
        lambda issued: psql(shared, issued, "SELECT 1") == "1",
    )
    asyncio.run(check_all(case))


def test_a_role_is_what_the_target_says(shared: Stage) -> None:
    """Its name, rights, membership, settings, limit and end are as asked for, and no more."""
    wanted = replace(
        shared.wanted(
            grants=["SELECT (id, email) ON customers", "EXECUTE ON FUNCTION order_total(integer)"],
            member_of=["app_all"],
            search_path=["public", '"odd ""Name\'"'],
            statement_timeout="7",
            connection_limit="3",
        ),
        ttl_s=900,
    )
    now_ms = clock.unix_ms()
    issued = asyncio.run(shared.issue(wanted))
    role, _ = login(issued)
    assert role == issued.handle == issued.provider_id == role_name(wanted)
    assert is_role_name(role)
    assert wanted.run_id.lower() in role
    assert len(role.encode()) <= 63
    [row] = shared.server.ask(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin,"
        " rolconnlimit, extract(epoch FROM rolvaliduntil) * 1000,"
        f" shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{role}'"
    )
    assert row[:7] == ("f", "f", "f", "f", "f", "t", "3")
    assert lasts(float(row[7]), 900, now_ms)
    assert lasts(issued.expires_ms, 900, now_ms)
    assert wanted.lease_id in row[8]
    assert shared.client.host in row[8]
    shown = psql(shared, issued, "SHOW search_path; SHOW statement_timeout")
    assert shown == 'public, "odd ""Name\'"\n7s'
    assert psql(shared, issued, "SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'USAGE')"
                " AND NOT pg_has_role('pg_monitor', oid, 'USAGE') ORDER BY 1").split() == [
        "app_all", role]  # fmt: skip
    asyncio.run(shared.revoke(wanted))


def test_rights_are_those_of_the_grants(shared: Stage) -> None:
    """Columns that are granted are read, others are not; nothing is written."""
    wanted = shared.wanted(grants=["SELECT (id, email) ON customers"])
    issued = asyncio.run(shared.issue(wanted))
    assert psql(shared, issued, "SELECT count(email) FROM customers") == "2000"
    for sql in (
        "SELECT card FROM customers",
        "DELETE FROM customers",
        "SELECT * FROM orders",
        "SET ROLE loopwarden_admin",
        "CREATE ROLE x",
        "CREATE TABLE public.x (i int)",
    ):
        assert "denied" in psql(shared, issued, sql), sql
    asyncio.run(shared.revoke(wanted))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"admin": "app_scram"}, "refuses the user app_scram"),
        ({"database": "no_such"}, 'database "no_such" does not exist'),
        ({"server_name": "other.test.internal"}, "is not other.test.internal"),
        ({"ca": "/nonexistent"}, "the CA file /nonexistent"),
        ({"address": "127.0.0.1:1"}, "127.0.0.1:1"),
        ({"grants": ["SELECT ON nowhere.at_all"]}, 'schema "nowhere" does not exist'),
        ({"member_of": ["no_such_role"]}, 'role "no_such_role" does not exist'),
    ],
)
def test_what_can_not_be_made_is_refused(
    shared: Stage, changes: dict[str, str | list[str]], text: str
) -> None:
    """The reason is told, nothing is left, and no password of anybody is in it."""
    assert text in refusal(shared, shared.wanted(**changes))


def test_an_admin_that_can_not_grant_is_no_silent_success(shared: Stage) -> None:
    """PostgreSQL only warns when nothing was granted; we refuse."""
    shared.server.ask(
        "CREATE TABLE private_notes (n int); GRANT SELECT ON private_notes TO loopwarden_admin"
    )
    try:
        text = refusal(shared, shared.wanted(grants=["SELECT ON private_notes"]))
        assert "WITH GRANT OPTION" in text
    finally:
        shared.server.ask("DROP TABLE private_notes")


def test_an_admin_without_createrole_is_told(shared: Stage) -> None:
    """The text says what to run."""
    shared.server.ask("CREATE ROLE weak LOGIN PASSWORD 'weak-password'")
    made = replace(shared, client=client(password="weak-password"))
    try:
        text = refusal(made, shared.wanted(admin="weak"))
        assert 'ALTER ROLE "weak" CREATEROLE' in text
    finally:
        shared.server.ask("DROP ROLE weak")


def test_a_role_of_that_name_that_is_not_ours_is_let_be(shared: Stage) -> None:
    """Neither issue nor revoke touches it."""
    wanted = shared.wanted()
    role = role_name(wanted)
    shared.server.ask(f'CREATE ROLE "{role}"')
    try:
        with pytest.raises(CredentialError, match="is not of this lease"):
            asyncio.run(shared.issue(wanted))
        with pytest.raises(CredentialError, match="lost its comment") as caught:
            asyncio.run(shared.revoke(wanted))
        assert caught.value.permanent
        assert shared.roles() == [role]
    finally:
        shared.server.ask(f'DROP ROLE "{role}"')


def test_revoke_ends_sessions(shared: Stage) -> None:
    """A query under way ends, no new login works, and confirm says so before and after."""
    wanted = shared.wanted()

    async def run() -> None:
        issued = await shared.issue(wanted)
        role, password = login(issued)
        connection = await asyncpg.connect(
            host=shared.server.address, port=shared.server.port, user=role, password=password,
            database="orders", ssl="require",
        )  # fmt: skip
        sleeping = asyncio.ensure_future(connection.execute("SELECT pg_sleep(3600)"))
        await asyncio.to_thread(_wait_for_sleeper, shared)
        provider = SPEC.make()
        assert not await provider.confirm(wanted, issued.handle, shared.client)  # type: ignore[attr-defined]
        await shared.revoke(wanted, issued.handle)
        with pytest.raises((asyncpg.PostgresError, ConnectionError, asyncpg.InterfaceError)):
            await sleeping
        connection.terminate()
        assert await provider.confirm(wanted, issued.handle, shared.client)  # type: ignore[attr-defined]
        assert "authentication failed" in psql(shared, issued, "SELECT 1")

    asyncio.run(run())


def _wait_for_sleeper(made: Stage) -> None:
    while not made.server.ask("SELECT 1 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"):
        pass  # each look takes milliseconds


def test_twenty_at_once(shared: Stage) -> None:
    """Twenty runs of one host, and of twenty hosts, get roles on the same tables at once."""

    async def run(clients: list[BrokerClient]) -> None:
        requests = [(shared.wanted(), each) for each in clients]
        async with asyncio.TaskGroup() as group:
            for wanted, each in requests:
                group.create_task(SPEC.make().issue(wanted, each, clock.unix_ms()))
        assert shared.roles() == sorted(role_name(wanted) for wanted, _ in requests)
        async with asyncio.TaskGroup() as group:
            for wanted, each in requests:
                group.create_task(SPEC.make().revoke(wanted, "", each))
        assert shared.roles() == []

    one = client()
    asyncio.run(run([one] * 20))
    asyncio.run(run([client(str(number)) for number in range(20)]))


def test_renewal_moves_the_end(shared: Stage) -> None:
    """VALID UNTIL moves by the ttl, never past the target's longest; what is gone is no renewal."""
    wanted = replace(shared.wanted(), ttl_s=60)
    valid = (
        "SELECT extract(epoch FROM rolvaliduntil) FROM pg_roles"
        f" WHERE rolname = '{role_name(wanted)}'"
    )

    async def renew(asked: Wanted) -> Renewed:
        answer = await SPEC.make().renew(asked, "", shared.client, clock.unix_ms())
        assert isinstance(answer, Renewed)
        return answer

    asyncio.run(shared.issue(wanted))
    now_ms = clock.unix_ms()
    first = float(shared.server.ask(valid)[0][0])
    longer = asyncio.run(renew(replace(wanted, ttl_s=600)))
    second = float(shared.server.ask(valid)[0][0])
    assert second - first > 500
    assert lasts(1000 * second, 600, now_ms)
    assert lasts(longer.expires_ms, 600, now_ms)
    bounded = asyncio.run(renew(replace(wanted, ttl_s=600, max_ttl_s=120)))
    assert bounded.expires_ms <= bounded.max_ms
    assert 1000 * float(shared.server.ask(valid)[0][0]) < clock.unix_ms() + 121_000
    asyncio.run(shared.revoke(wanted))
    with pytest.raises(CredentialError, match="there is no role") as caught:
        asyncio.run(renew(wanted))
    assert not caught.value.transient


def test_a_role_that_owns_a_table(shared: Stage) -> None:
    """What it made is the admin's, or the named role's, or gone with it: as the target says."""
    create = ["CREATE ON SCHEMA public", "USAGE ON SCHEMA public"]
    shared.server.ask("GRANT orders_owner TO loopwarden_admin")
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'made'"
    cases: tuple[tuple[dict[str, str], list[tuple[str, ...]]], ...] = (
        ({}, [("loopwarden_admin",)]),
        ({"reassign_to": "orders_owner"}, [("orders_owner",)]),
        ({"on_drop": "drop"}, []),
    )
    for changes, left in cases:
        wanted = shared.wanted(grants=create, **changes)
        issued = asyncio.run(shared.issue(wanted))
        assert psql(shared, issued, "CREATE TABLE public.made (n int)") == "CREATE TABLE"
        asyncio.run(shared.revoke(wanted))
        assert shared.server.ask(owner) == left
        shared.server.ask("DROP TABLE IF EXISTS made")
    shared.server.ask("REVOKE orders_owner FROM loopwarden_admin")


VIEW = "CREATE VIEW scratch.leak AS SELECT card FROM public.customers"
RULE = """
CREATE TABLE scratch.leak (n int);
CREATE RULE r AS ON INSERT TO scratch.leak DO INSTEAD UPDATE public.customers SET name = name
"""
FUNCTION = """
CREATE FUNCTION scratch.leak() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
    AS 'SELECT card FROM public.customers'
"""


@pytest.mark.parametrize("code", [VIEW, RULE, FUNCTION])
def test_code_of_a_run_never_gets_the_admins_rights(shared: Stage, code: str) -> None:
    """A view over what the run may not read would read it once it is the admin's."""
    shared.server.ask("CREATE SCHEMA scratch; GRANT ALL ON SCHEMA scratch TO loopwarden_admin"
                      " WITH GRANT OPTION")  # fmt: skip
    grants = ["CREATE ON SCHEMA scratch", "USAGE ON SCHEMA scratch", "USAGE ON SCHEMA public"]
    admins = (
        "SELECT relname FROM pg_class WHERE relowner = 'loopwarden_admin'::regrole"
        " UNION SELECT proname FROM pg_proc WHERE proowner = 'loopwarden_admin'::regrole"
    )
    try:
        wanted = shared.wanted(grants=grants)
        issued = asyncio.run(shared.issue(wanted))
        assert "denied" in psql(shared, issued, "SELECT card FROM public.customers")
        assert "CREATE" in psql(shared, issued, f"SET check_function_bodies = off; {code}")
        with pytest.raises(CredentialError, match="admin: leak") as caught:
            asyncio.run(shared.revoke(wanted))
        assert caught.value.permanent
        assert shared.server.ask(admins) == []
        assert "authentication failed" in psql(shared, issued, "SELECT 1")
        shared.server.ask(f'DROP OWNED BY "{role_name(wanted)}"')
        asyncio.run(shared.revoke(wanted))
    finally:
        shared.server.ask("DROP SCHEMA scratch CASCADE")


def test_what_a_role_owns_elsewhere_needs_a_person(shared: Stage) -> None:
    """It is disabled and keeps nothing here; the text names the other database; then it goes."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    role = role_name(wanted)
    shared.server.ask(
        f'CREATE TABLE mine (n int); ALTER TABLE mine OWNER TO "{role}"', database="other"
    )
    for _ in range(2):
        with pytest.raises(CredentialError, match="in other; its target is orders") as caught:
            asyncio.run(shared.revoke(wanted))
        assert caught.value.permanent
        assert "authentication failed" in psql(shared, issued, "SELECT 1")
    shared.server.ask(f'REASSIGN OWNED BY "{role}" TO postgres', database="other")
    asyncio.run(shared.revoke(wanted))


def test_the_sweep_drops_only_what_is_ours_and_lost(shared: Stage) -> None:
    """Known leases, other hosts' roles, and leases younger than the list stay."""
    lost, known, foreign, theirs = (_aged(shared.wanted(), 60_000) for _ in range(4))
    young = shared.wanted()

    async def run() -> None:
        for wanted in (lost, known, young):
            await shared.issue(wanted)
        await SPEC.make().issue(foreign, client("another"), clock.unix_ms())
        shared.server.ask(f'CREATE ROLE "{role_name(theirs)}"')
        before_ms = clock.unix_ms() - 30_000
        provider = SPEC.make()
        dropped = await provider.sweep(  # type: ignore[attr-defined]
            lost, {known.lease_id}, before_ms, shared.client
        )
        assert dropped == (role_name(lost),)
        left = {role_name(each) for each in (known, young, foreign, theirs)}
        assert set(shared.roles()) == left
        for wanted in (known, young, foreign):
            await shared.revoke(wanted)
        shared.server.ask(f'DROP ROLE "{role_name(theirs)}"')

    asyncio.run(run())


def _aged(wanted: Wanted, by_ms: int) -> Wanted:
    """Return the request as if it had been made earlier."""
    lease_id = LeaseId(ulid_time(clock.unix_ms() - by_ms) + wanted.lease_id[10:])
    return replace(wanted, lease_id=lease_id)


def test_names_fit_at_their_longest(shared: Stage) -> None:
    """The longest names of loop and target leave the comment whole."""
    wanted = replace(shared.wanted(), loop=LoopName("l" * 64), target=TargetName("t" * 64))
    asyncio.run(shared.issue(wanted))
    asyncio.run(shared.revoke(wanted))


def test_a_superuser_is_an_admin_too(shared: Stage) -> None:
    """A superuser as admin makes and drops roles the same."""
    wanted = shared.wanted(admin="postgres")
    superuser = client(password=SUPERUSER_PASSWORD)

    async def run() -> None:
        await SPEC.make().issue(wanted, superuser, clock.unix_ms())
        assert shared.roles() == [role_name(wanted)]
        await SPEC.make().revoke(wanted, "", superuser)

    asyncio.run(run())


def test_no_password_is_in_the_servers_log(shared: Stage) -> None:
    """With every statement logged: neither the role's password nor the admin's."""
    wanted = shared.wanted()
    issued = asyncio.run(shared.issue(wanted))
    _, password = login(issued)
    assert psql(shared, issued, "SELECT 1") == "1"
    assert password not in repr(issued)
    asyncio.run(shared.revoke(wanted))
    log = shared.server.log()
    assert f'CREATE ROLE "{role_name(wanted)}"' in log
    for secret in (password, *canaries()):
        assert secret not in log
