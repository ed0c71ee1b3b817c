"""A lease whose name never came is looked for before it is called gone."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.broker.sources import BrokerClient
from agent.credentials.spec import CredentialError, Wanted
from agent.credentials.vault import SPEC
from agent.credentials.vault.handle import Handle, parse_handle, serialize_handle
from agent.credentials.vault.provider import NAMELESS_SLACK_S
from agent.credentials.vault.unnamed import LISTED_MAX
from agent.model.credential import Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.secret import Secret
from agent.runtime import clock
from tests.servers.fake_vault import ROLE_ID, SECRET_ID, FakeVault, Fault, Lease, fake_vault

pytestmark = pytest.mark.servers
PATH = "database/creds/orders"


@pytest.fixture
def fake() -> Iterator[FakeVault]:
    """A server of the test's own."""
    with fake_vault() as running:
        yield running


@pytest.fixture
def client() -> BrokerClient:
    """A client that nobody logged in with yet."""
    return BrokerClient({"secret": Secret(SECRET_ID.encode())}, {})


def _lost(fake: FakeVault, client: BrokerClient) -> tuple[Wanted, str, str]:
    """Issue, and forget the lease's name; return request, what is left of the handle, and it."""
    settings = {
        "address": fake.url, "auth": "approle", "role_id": ROLE_ID, "systemd_credential": "secret",
        "token_role": "loopwarden", "path": PATH,
    }  # fmt: skip
    wanted = Wanted(
        LeaseId(clock.fresh_ulid()), RunId(clock.fresh_ulid()), LoopName("nightly"),
        TargetName("orders-db"), settings, Shape.PASSWORD, "", "",
    )  # fmt: skip
    issued = asyncio.run(SPEC.make().issue(wanted, client, clock.unix_ms()))
    handle = parse_handle(issued.handle)
    assert handle is not None
    return wanted, serialize_handle(Handle(handle.accessor)), handle.lease


def _gone(wanted: Wanted, handle: str, client: BrokerClient) -> bool:
    found: bool = asyncio.run(SPEC.make().confirm(wanted, handle, client))  # type: ignore[attr-defined]
    return found


def test_what_is_queued_is_not_gone(fake: FakeVault, client: BrokerClient) -> None:
    """The token is gone at once, and the login that it leased when the server came to it."""
    wanted, handle, lease = _lost(fake, client)
    fake.busy = True
    asyncio.run(SPEC.make().revoke(wanted, handle, client))
    assert fake.children == {}
    assert not _gone(wanted, handle, client)
    del fake.leases[lease]
    assert _gone(wanted, handle, client)


def test_leases_of_other_times_are_not_it(fake: FakeVault, client: BrokerClient) -> None:
    """What began before it was asked for, or after the call was cut off, is another run's."""
    wanted, handle, lease = _lost(fake, client)
    asyncio.run(SPEC.make().revoke(wanted, handle, client))
    assert lease not in fake.leases
    now = datetime.now(UTC)
    for at, gone in ((-3_600, True), (3_600, True), (0, False)):
        fake.leases = {f"{PATH}/x": Lease("a", "u", began=now + timedelta(seconds=at))}
        assert _gone(wanted, handle, client) is gone


def test_a_lease_without_a_time_may_be_it(fake: FakeVault, client: BrokerClient) -> None:
    """A server that does not tell when is not believed to have none."""
    wanted, handle, lease = _lost(fake, client)
    fake.busy = True
    asyncio.run(SPEC.make().revoke(wanted, handle, client))
    fake.leases[lease] = replace(fake.leases[lease], began=None)
    assert not _gone(wanted, handle, client)


def test_the_bound(fake: FakeVault, client: BrokerClient) -> None:
    """LISTED_MAX leases are looked at; with one more it is not known, and asked again."""
    wanted, handle, _ = _lost(fake, client)
    asyncio.run(SPEC.make().revoke(wanted, handle, client))
    old = datetime.now(UTC) - timedelta(hours=1)
    fake.leases = {f"{PATH}/{n}": Lease("a", "u", began=old) for n in range(LISTED_MAX)}
    assert _gone(wanted, handle, client)
    fake.leases[f"{PATH}/more"] = Lease("a", "u", began=old)
    with pytest.raises(CredentialError, match=f"more than {LISTED_MAX} leases") as caught:
        _gone(wanted, handle, client)
    assert caught.value.transient


def test_without_the_right_it_is_not_known(fake: FakeVault, client: BrokerClient) -> None:
    """A login that may not list is told what it lacks; nothing is called gone."""
    wanted, handle, _ = _lost(fake, client)
    asyncio.run(SPEC.make().revoke(wanted, handle, client))
    fake.fail("sys/leases/lookup/database", Fault(403, ("permission denied",)))
    with pytest.raises(CredentialError, match="may our login list the path's leases"):
        _gone(wanted, handle, client)


def _certificate(fake: FakeVault, kept: list[str]) -> Wanted:
    settings = {
        "address": fake.url, "auth": "approle", "role_id": ROLE_ID, "systemd_credential": "secret",
        "token_role": "loopwarden", "path": "pki/issue/client", "common_name": "orders",
    }  # fmt: skip
    return Wanted(
        LeaseId(clock.fresh_ulid()), RunId(clock.fresh_ulid()), LoopName("nightly"),
        TargetName("api"), settings, Shape.CLIENT_CERTIFICATE, "", "", ttl_s=600, keep=kept.append,
    )  # fmt: skip


def test_a_certificate_whose_name_never_came(fake: FakeVault, client: BrokerClient) -> None:
    """Nobody can revoke it, and its token's end is not its own: it is alive until its own end."""
    kept: list[str] = []
    wanted = _certificate(fake, kept)
    fake.fail("pki/issue", Fault(status=0, does=True))
    before_ms = clock.unix_ms()
    with pytest.raises(CredentialError) as caught:
        asyncio.run(SPEC.make().issue(wanted, client, before_ms))
    assert not caught.value.nothing_made
    for _ in range(2):
        with pytest.raises(CredentialError, match="nobody has its key") as caught:
            asyncio.run(SPEC.make().revoke(wanted, kept[-1], client))
        assert caught.value.permanent
        assert caught.value.ends_ms >= before_ms // 1000 * 1000 + 600_000
        assert caught.value.ends_ms <= clock.unix_ms() + 600_000 + 1000 * NAMELESS_SLACK_S
        assert fake.children == {}
    assert not _gone(wanted, kept[-1], client)
    handle = parse_handle(kept[-1])
    assert handle is not None
    past = serialize_handle(replace(handle, ends_s=before_ms // 1000))
    assert _gone(wanted, past, client)


def test_a_certificate_that_was_refused_is_none(fake: FakeVault, client: BrokerClient) -> None:
    """The engine said no: there is nothing that could be alive."""
    kept: list[str] = []
    wanted = _certificate(fake, kept)
    fake.fail("pki/issue", Fault(403, ("permission denied",)))
    with pytest.raises(CredentialError) as caught:
        asyncio.run(SPEC.make().issue(wanted, client, clock.unix_ms()))
    assert caught.value.nothing_made
    asyncio.run(SPEC.make().revoke(wanted, kept[-1], client))
    assert _gone(wanted, kept[-1], client)
