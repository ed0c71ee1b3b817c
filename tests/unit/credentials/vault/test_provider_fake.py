"""The vault provider at a server that fails as told: queued, given up, limited, slow, nonsense."""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from agent.broker.sources import BrokerClient
from agent.credentials.spec import CredentialError, Issued, Wanted
from agent.credentials.vault import SPEC
from agent.credentials.vault.wire import LATER, REQUEST_S
from agent.model.credential import Basic, Password, Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.secret import Secret
from agent.runtime import clock
from tests.conformance.provider_suite import Case, check_all
from tests.servers.fake_vault import PASSWORD, ROLE_ID, SECRET_ID, FakeVault, Fault, fake_vault
from tests.unit.broker.passing import be_patient

pytestmark = pytest.mark.servers
KV_SHAPES = (Shape.BEARER, Shape.HEADER, Shape.QUERY_PARAMETER)


@pytest.fixture
def fake() -> Iterator[FakeVault]:
    """A server of the test's own."""
    with fake_vault() as running:
        yield running


@pytest.fixture
def client() -> BrokerClient:
    """A client that nobody logged in with yet."""
    return BrokerClient({"secret": Secret(SECRET_ID.encode())}, {})


def settings(fake: FakeVault, **changes: str) -> dict[str, str]:
    """Return settings that work, with changes."""
    return {
        "address": fake.url, "auth": "approle", "role_id": ROLE_ID, "systemd_credential": "secret",
        "token_role": "loopwarden", "path": "database/creds/orders", **changes,
    }  # fmt: skip


def request(fake: FakeVault) -> Wanted:
    """Return a new lease's request."""
    return Wanted(
        LeaseId(clock.fresh_ulid()), RunId(clock.fresh_ulid()), LoopName("nightly"),
        TargetName("orders-db"), settings(fake), Shape.PASSWORD, "", "",
    )  # fmt: skip


def issue(fake: FakeVault, client: BrokerClient) -> tuple[Wanted, Issued]:
    """Make a credential."""
    wanted = request(fake)
    return wanted, asyncio.run(SPEC.make().issue(wanted, client, clock.unix_ms()))


def gone(wanted: Wanted, issued: Issued, client: BrokerClient) -> bool:
    """Ask whether it is gone."""
    found: bool = asyncio.run(SPEC.make().confirm(wanted, issued.handle, client))  # type: ignore[attr-defined]
    return found


def failing(call: Coroutine[Any, Any, object]) -> CredentialError:
    """Return how a call failed; no secret is in it."""
    with pytest.raises(CredentialError) as caught:
        asyncio.run(call)
    assert SECRET_ID not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert "s.login" not in str(caught.value)
    assert "s.child" not in str(caught.value)
    return caught.value


def test_the_suite(fake: FakeVault, client: BrokerClient) -> None:
    """It is a vault, as far as every provider's suite can tell."""

    def alive(issued: Issued) -> bool:
        if isinstance(issued.credential, Password | Basic):
            return issued.credential.user in fake.users
        return True

    bad: tuple[dict[str, str], ...] = (
        {},
        settings(fake, role_id="nobody"),
        settings(fake, path="database/creds/none"),
        settings(fake, token_role="nobodys"),
        settings(fake, policies='["own"]'),
    )
    stored = settings(fake, path="secret/data/api")
    certificate = settings(fake, path="pki/issue/client", common_name="orders.app")
    key = settings(fake, path="ssh/sign/client")
    case = Case(
        SPEC,
        client,
        settings(fake),
        bad,
        PASSWORD.encode(),
        alive,
        {
            **dict.fromkeys(KV_SHAPES, stored),
            Shape.CLIENT_CERTIFICATE: certificate,
            Shape.SSH_CERTIFICATE: key,
        },
        dict.fromkeys((Shape.CLIENT_CERTIFICATE, Shape.SSH_CERTIFICATE), b"PRIVATE KEY-----"),
    )
    asyncio.run(check_all(case))
    assert fake.users == set()
    assert fake.children == {}


def test_queued_is_not_revoked(fake: FakeVault, client: BrokerClient) -> None:
    """202: accepted, and still there until the server has done it."""
    wanted, issued = issue(fake, client)
    fake.busy = True
    asyncio.run(SPEC.make().revoke(wanted, issued.handle, client))
    assert not gone(wanted, issued, client)
    fake.work()
    assert gone(wanted, issued, client)


def test_a_lease_that_the_server_gave_up(fake: FakeVault, client: BrokerClient) -> None:
    """Irrevocable: a person is told at once, the token is ended all the same, and it is kept."""
    wanted, issued = issue(fake, client)
    fake.leases[issued.provider_id].revoke_error = "failed to revoke: role owns objects"
    error = failing(SPEC.make().revoke(wanted, issued.handle, client))
    assert error.permanent
    assert "owns objects" in str(error)
    assert fake.children == {}
    assert not gone(wanted, issued, client)
    del fake.leases[issued.provider_id]  # the operator's revoke-force
    asyncio.run(SPEC.make().revoke(wanted, issued.handle, client))
    assert gone(wanted, issued, client)


@pytest.mark.parametrize("status", sorted(LATER))
@pytest.mark.parametrize(
    "part", ["sys/leases/revoke", "sys/leases/lookup", "revoke-accessor", "lookup-accessor"]
)
def test_statuses_that_pass(fake: FakeVault, client: BrokerClient, status: int, part: str) -> None:
    """Sealed, standing by, limited, failing: never taken for gone, and done when it has passed."""
    wanted, issued = issue(fake, client)
    fake.fail(part, Fault(status, (), html=True))

    async def both() -> bool:
        provider = SPEC.make()
        await provider.revoke(wanted, issued.handle, client)
        found: bool = await provider.confirm(wanted, issued.handle, client)  # type: ignore[attr-defined]
        return found

    assert failing(both()).transient
    assert asyncio.run(both())


def test_retry_after_is_handed_on(fake: FakeVault, client: BrokerClient) -> None:
    """The broker waits for so long at least; nonsense is no time."""
    wanted, issued = issue(fake, client)
    for said, seconds in (("7", 7.0), ("soon", 0.0), ("-1", 0.0), ("9" * 30, 0.0)):
        fault = Fault(429, ("rate limit quota exceeded",), {"Retry-After": said})
        fake.fail("renew-accessor", fault)
        call = SPEC.make().renew(wanted, issued.handle, client, clock.unix_ms())
        error = failing(call)
        assert (error.transient, error.retry_after_s) == (True, seconds)


@pytest.mark.parametrize(
    "errors",
    [
        ("failed to renew entry: failed to connect to the database",),
        ("lease not found",),
        (),
    ],
)
def test_a_400_of_renew_means_nothing(
    fake: FakeVault, client: BrokerClient, errors: tuple[str, ...]
) -> None:
    """The look-up decides: a lease that is there is kept and tried again."""
    wanted, issued = issue(fake, client)
    fake.fail("sys/leases/renew", Fault(400, errors))
    error = failing(SPEC.make().renew(wanted, issued.handle, client, clock.unix_ms()))
    assert (error.transient, error.gone) == (True, False)
    fake.fail("sys/leases/revoke", Fault(400, errors))
    error = failing(SPEC.make().revoke(wanted, issued.handle, client))
    assert (error.transient, error.permanent) == (True, False)


@pytest.mark.parametrize(
    "part",
    ["approle/login", "token/create", "renew-accessor", "database/creds"],
)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(0), id="closed"),
        pytest.param(Fault(0, does=True), id="done, then closed"),
        pytest.param(Fault(200, (), html=True), id="nonsense"),
        pytest.param(Fault(200, (), html=True, does=True), id="done, then nonsense"),
        pytest.param(Fault(307, (), {"Location": "http://127.0.0.1:1/"}), id="redirection"),
        pytest.param(Fault(403, ("permission denied",)), id="forbidden"),
        pytest.param(Fault(404, ()), id="not there"),
        pytest.param(Fault(500, ("internal error",), does=True), id="done, then failed"),
        pytest.param(Fault(200, ("x" * 20_000,)), id="too large"),
        pytest.param(Fault(400, ("it is TOKEN",)), id="a token repeated"),
    ],
)
def test_what_fails_in_issue_leaves_nothing(
    fake: FakeVault, client: BrokerClient, part: str, fault: Fault
) -> None:
    """Whatever step fails in whatever way: what was kept ends all that was made."""
    kept = [""]
    wanted = request(fake)
    asked = replace(wanted, keep=kept.append)
    fake.fail(part, fault)
    error = failing(SPEC.make().issue(asked, client, clock.unix_ms()))
    if error.nothing_made:
        assert fake.users == set()
        assert part != "token/create" or fake.children == {}
    asyncio.run(SPEC.make().revoke(wanted, kept[-1], client))
    assert fake.users == set()
    unkept = part == "token/create" and fault.does
    assert len(fake.children) == int(unkept)  # over within BIRTH_S, and nobody has it


def test_a_secret_that_is_repeated(fake: FakeVault, client: BrokerClient) -> None:
    """What the server says is shown, unless it repeats what we sent."""
    fake.fail("approle/login", Fault(400, (f"no {SECRET_ID} here", "try later")))
    assert "try later" in str(failing(SPEC.make().issue(request(fake), client, 0)))


def test_a_slow_loris(fake: FakeVault, client: BrokerClient) -> None:
    """A byte now and then does not extend a request."""
    wanted, issued = issue(fake, client)
    fake.fail("*renew-accessor", Fault(drip=True))
    error = failing(SPEC.make().renew(wanted, issued.handle, client, clock.unix_ms()))
    assert f"did not answer within {REQUEST_S:.3g} s" in str(error)
    assert error.transient


def test_a_thousand_runs_log_in_once(
    fake: FakeVault, client: BrokerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One login, one token each, and the count of leases is what it was."""
    be_patient(monkeypatch)

    async def one() -> None:
        wanted = request(fake)
        issued = await SPEC.make().issue(wanted, client, clock.unix_ms())
        await SPEC.make().revoke(wanted, issued.handle, client)

    async def run() -> None:
        gate = asyncio.Semaphore(16)

        async def bounded() -> None:
            async with gate:
                await one()

        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(bounded())

    asyncio.run(run())
    assert sum("login" in asked for asked in fake.asked) == 1
    assert sum("token/create" in asked for asked in fake.asked) == 1000
    assert (fake.users, fake.children) == (set(), {})
