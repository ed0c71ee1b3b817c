"""Leases: one flight, never without a row, revoked until it is confirmed."""

import asyncio
from pathlib import Path

import pytest

from agent.broker import leases as module
from agent.broker.journal import Journal
from agent.broker.leases import LeaseFailed, Leases
from agent.broker.sources import BrokerClient
from agent.credentials.spec import Client, CredentialError, Issued, Provider, ProviderSpec, Wanted
from agent.model.audit import AuditEvent, LeaseChanged
from agent.model.credential import Bearer, Shape
from agent.model.grant import Durability, UpstreamTls
from agent.model.ids import LoopName, RunId, TargetName
from agent.model.lease import LeaseState
from agent.model.secret import Secret
from agent.policy.schema import CredentialSource, TargetPolicy
from tests.unit.broker.harness import run_async

RUN, LOOP = RunId("run"), LoopName("nightly")
SOURCE = CredentialSource("slow", (), Shape.BEARER, "", "")
TARGET = TargetPolicy(
    TargetName("api"), "http", "a.example", 443, UpstreamTls.VERIFY_FULL, "", "a.example", 443,
    allow_cleartext=False, durability=Durability.DISK, credential=SOURCE,
)  # fmt: skip


class Slow:
    """A provider that issues when it is let, and revokes at the third try."""

    def __init__(self) -> None:
        self.issued = 0
        self.revoked: list[str] = []
        self.gate = asyncio.Event()
        self.began = asyncio.Event()
        self.fails = 0

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Wait for the gate."""
        self.issued += 1
        self.began.set()
        await self.gate.wait()
        return Issued(Bearer(Secret(b"x")), f"h{self.issued}", 0, renewable=False, revocable=True)

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Not here."""
        raise CredentialError("no")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """Fail as often as asked."""
        if self.fails:
            self.fails -= 1
            raise CredentialError("the backend is away", transient=True)
        self.revoked.append(handle)

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Not here."""


def _made(
    path: Path, slow: Provider, monkeypatch: pytest.MonkeyPatch
) -> tuple[Leases, list[AuditEvent]]:
    spec = ProviderSpec("slow", frozenset(Shape), (), lambda: slow)
    monkeypatch.setattr(module, "providers", lambda: {"slow": spec})
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    events: list[AuditEvent] = []
    return Leases(Journal(path / "j"), BrokerClient({}, {}), events.append), events


def _states(events: list[AuditEvent]) -> list[LeaseState]:
    return [event.state for event in events if isinstance(event, LeaseChanged)]


def test_many_who_ask_at_once_share_one_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty sessions, one issue, one lease."""

    async def main() -> None:
        slow = Slow()
        leases, events = _made(tmp_path, slow, monkeypatch)
        asked = [asyncio.ensure_future(leases.take(RUN, LOOP, TARGET)) for _ in range(50)]
        await slow.began.wait()
        slow.gate.set()
        found = [await each for each in asked]
        assert len({id(lease) for lease in found}) == 1
        assert slow.issued == 1
        assert _states(events) == [LeaseState.INTENT, LeaseState.ISSUED, LeaseState.ACTIVE]

    run_async(main())


def test_one_who_leaves_does_not_end_the_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled session leaves the lease to the others."""

    async def main() -> None:
        slow = Slow()
        leases, _ = _made(tmp_path, slow, monkeypatch)
        first = asyncio.ensure_future(leases.take(RUN, LOOP, TARGET))
        second = asyncio.ensure_future(leases.take(RUN, LOOP, TARGET))
        await slow.began.wait()
        first.cancel()
        slow.gate.set()
        assert (await second).target == "api"

    run_async(main())


def test_a_run_that_ends_while_its_lease_is_made_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was issued after the end is revoked by its handle; a later ask is refused."""

    async def main() -> None:
        slow = Slow()
        leases, events = _made(tmp_path, slow, monkeypatch)
        asked = asyncio.ensure_future(leases.take(RUN, LOOP, TARGET))
        await slow.began.wait()
        leases.run_ended(RUN)
        slow.gate.set()
        with pytest.raises(LeaseFailed):
            await asked
        await leases.settled()
        assert slow.revoked == ["h1"]
        assert _states(events)[-1] is LeaseState.REVOKED
        with pytest.raises(LeaseFailed, match="ended"):
            await leases.take(RUN, LOOP, TARGET)

    run_async(main())


def test_revocation_is_tried_until_it_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that is away for three tries: REVOKED comes after the fourth, once."""

    async def main() -> None:
        slow = Slow()
        slow.gate.set()
        slow.fails = 3
        leases, events = _made(tmp_path, slow, monkeypatch)
        await leases.take(RUN, LOOP, TARGET)
        leases.run_ended(RUN)
        leases.run_ended(RUN)
        assert len(leases) == 1
        await leases.settled()
        assert slow.revoked == ["h1"]
        assert len(leases) == 0
        assert _states(events) == list(LeaseState)

    run_async(main())


def test_a_crash_between_intent_and_issue_is_revoked_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is told by lease id, without a handle, though the run still lives."""

    async def main() -> None:
        slow = Slow()
        leases, _ = _made(tmp_path, slow, monkeypatch)
        asked = asyncio.ensure_future(leases.take(RUN, LOOP, TARGET))
        await slow.began.wait()
        leases._journal.close()  # the crash
        asked.cancel()
        again, _ = _made(tmp_path, slow, monkeypatch)
        again.reconcile(frozenset({RUN}))
        await again.settled()
        assert slow.revoked == [""]
        assert len(again) == 0

    run_async(main())


def test_a_lease_of_a_live_run_survives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions may be using it; it goes with the run."""

    async def main() -> None:
        slow = Slow()
        slow.gate.set()
        leases, _ = _made(tmp_path, slow, monkeypatch)
        await leases.take(RUN, LOOP, TARGET)
        leases._journal.close()
        again, _ = _made(tmp_path, slow, monkeypatch)
        again.reconcile(frozenset({RUN}))
        assert [row.state for row in again.rows(RUN)] == [LeaseState.ACTIVE]
        again.run_ended(RUN)
        await again.settled()
        assert slow.revoked == ["h1"]

    run_async(main())


def test_no_lease_without_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that can't be written issues nothing."""

    async def main() -> None:
        slow = Slow()
        leases, _ = _made(tmp_path, slow, monkeypatch)
        leases._journal._dead = "the disk is gone"
        with pytest.raises(LeaseFailed, match="journal"):
            await leases.take(RUN, LOOP, TARGET)
        assert slow.issued == 0

    run_async(main())
