"""Leases with a clock that tests move, and a provider with a backend that tests break.

The backend is the truth about what is alive; the provider does to it what its script says.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.broker import lease_calls
from agent.broker.journal import Journal
from agent.broker.leases import Leases
from agent.broker.sources import BrokerClient
from agent.credentials.spec import (
    Client,
    CredentialError,
    Issued,
    ProviderSpec,
    Renewed,
    Wanted,
)
from agent.ipc.messages import CutLease
from agent.model.audit import Alarm, AuditEvent, LeaseChanged
from agent.model.credential import Bearer, Shape
from agent.model.grant import Durability, UpstreamTls
from agent.model.ids import LeaseId, LoopName, RunId, SessionId, TargetName
from agent.model.lease import Lease, LeaseState
from agent.model.secret import Secret
from agent.policy.schema import CredentialSource, TargetPolicy

RUN, LOOP = RunId("run"), LoopName("nightly")
SECRET = b"s3cr3t-c4n4ry"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def target(name: str = "api", provider: str = "scripted") -> TargetPolicy:
    """Return a target whose credential the scripted provider issues."""
    return TargetPolicy(
        TargetName(name), "http", "a.example", 443, UpstreamTls.VERIFY_FULL, "", "a.example", 443,
        allow_cleartext=False, durability=Durability.DISK,
        credential=CredentialSource(provider, (("role", "reader"),), Shape.BEARER, "", ""),
    )  # fmt: skip


class HandClock:
    """Stands still until a test moves it; see LeaseClock."""

    def __init__(self) -> None:
        self.boot = "boot-1"
        self.unix = 1_800_000_000_000
        self.up = 5_000_000
        self.luck = 0.5
        self._timers: list[tuple[int, asyncio.Future[None]]] = []

    def unix_ms(self) -> int:
        """See LeaseClock."""
        return self.unix

    def boot_ms(self) -> int:
        """See LeaseClock."""
        return self.up

    def chance(self) -> float:
        """See LeaseClock."""
        return self.luck

    async def wait(self, event: asyncio.Event, until_boot_ms: int | None) -> None:
        """See LeaseClock."""
        if event.is_set() or (until_boot_ms is not None and self.up >= until_boot_ms):
            return
        told = asyncio.ensure_future(event.wait())
        waits: set[asyncio.Future[object]] = {told}  # type: ignore[arg-type]
        if until_boot_ms is not None:
            timer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._timers.append((until_boot_ms, timer))
            waits.add(timer)  # type: ignore[arg-type]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def advance(self, ms: int) -> None:
        """Let time pass, in order: each timer fires at its own moment."""
        end = self.up + ms
        await calm()
        while True:
            self._timers = [each for each in self._timers if not each[1].done()]
            due = min((until for until, _ in self._timers), default=end + 1)
            if due > end:
                break
            self._pass(max(0, due - self.up))
            for until, timer in self._timers:
                if until <= self.up and not timer.done():
                    timer.set_result(None)
            await calm()
        self._pass(end - self.up)

    def set_wall(self, ms: int) -> None:
        """Somebody sets the host's clock; no time passes."""
        self.unix += ms

    def reboot(self, *moments: dict[LeaseId, int]) -> None:
        """Another boot's clock, from its own begin; moments of the old one are moved to it."""
        before, self.up = self.up, 10_000
        self.boot += "+1"
        for known in moments:
            for key, at in known.items():
                known[key] = at and at - before + self.up

    def _pass(self, ms: int) -> None:
        self.up += ms
        self.unix += ms


async def calm() -> None:
    """Let everything that can run, run."""
    for _ in range(60):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Backend:
    """What is alive outside, and how the provider fails next: names in `faults`, by call.

    transient, permanent, refused (of issue: nothing made), silent (never answers), broken (raises
    something else), nonsense (an answer of another kind), late (does it, then fails), limited (says
    when to ask again), gone, kept and kept-endless (of issue: a handle is kept; then silence).
    """

    clock: HandClock
    alive: dict[LeaseId, int] = field(default_factory=dict)  # → boot ms at which it dies; 0: never
    calls: list[str] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    ttl_ms: int = HOUR
    most_ms: int = 0  # from the issue; a renewal gives no more
    renewable: bool = True
    revocable: bool = True
    gates: dict[str, asyncio.Event] = field(default_factory=dict)  # calls of a kind wait for it
    sticky: bool = False  # revoke is accepted and does nothing
    born: dict[LeaseId, int] = field(default_factory=dict)
    revoked_with: list[tuple[LeaseId, str]] = field(default_factory=list)
    before_revoke: list[LeaseId] = field(default_factory=list)

    def lives(self, lease_id: LeaseId) -> bool:
        """Whether the backend takes this credential now."""
        end = self.alive.get(lease_id)
        return end is not None and (end == 0 or end > self.clock.up)

    def fault(self, call: str) -> str:
        """Take the next fault of a call; a last one that begins with * stays."""
        waiting = self.faults.get(call)
        if not waiting:
            return ""
        return waiting[0][1:] if waiting[0].startswith("*") else waiting.pop(0)


class Scripted:
    """A provider over the backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Make one, or fail as told."""
        backend = self._backend
        fault = await self._begin("issue")
        if fault == "refused":
            raise CredentialError("the role does not exist", nothing_made=True)
        end = backend.clock.up + backend.ttl_ms if backend.ttl_ms else 0
        if fault.startswith("kept"):
            wanted.keep("h" * 5_000 if fault == "kept-endless" else f"k-{wanted.lease_id}")
            await asyncio.Event().wait()
        backend.alive[wanted.lease_id] = end
        backend.born[wanted.lease_id] = backend.clock.up
        await self._late(fault)
        credential = Bearer(Secret(SECRET if fault != "empty" else b""))
        expires_ms = now_ms + backend.ttl_ms if backend.ttl_ms else 0
        if fault == "expired":
            expires_ms = now_ms
        return Issued(
            credential, f"h-{wanted.lease_id}" if fault != "endless" else "h" * 5_000, expires_ms,
            renewable=backend.renewable, revocable=backend.revocable, provider_id="db/creds/x/1",
        )  # fmt: skip

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Renewed:
        """Extend it."""
        backend, lease_id = self._backend, wanted.lease_id
        fault = await self._begin("renew")
        if fault == "refused" or not backend.lives(lease_id):
            raise CredentialError("this lease is not renewable")
        left_ms = backend.ttl_ms
        if backend.most_ms:
            left_ms = min(left_ms, backend.born[lease_id] + backend.most_ms - backend.clock.up)
        backend.alive[lease_id] = backend.clock.up + left_ms
        await self._late(fault)
        return Renewed(now_ms + left_ms)

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """End it, found by handle or by lease id."""
        self._backend.before_revoke.append(wanted.lease_id)
        fault = await self._begin("revoke")
        self._backend.revoked_with.append((wanted.lease_id, handle))
        if not self._backend.sticky and self._backend.revocable:
            self._backend.alive.pop(wanted.lease_id, None)
        await self._late(fault)

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Say what the script says."""
        await self._begin("probe")

    async def _begin(self, call: str) -> str:
        backend = self._backend
        backend.calls.append(call)
        fault = backend.fault(call)
        gate = backend.gates.get(call)
        if gate is not None:
            await gate.wait()
        match fault:
            case "transient":
                raise CredentialError("the backend is away", transient=True)
            case "limited":
                raise CredentialError("asked too often", transient=True, retry_after_s=30)
            case "gone":
                raise CredentialError("it is gone", gone=True)
            case "permanent":
                raise CredentialError("the role owns a table", permanent=True)
            case "lost":
                raise CredentialError(
                    "the token is lost", ends_ms=backend.clock.unix + backend.ttl_ms
                )
            case "silent":
                await asyncio.Event().wait()
            case "broken":
                raise KeyError(SECRET.decode())
        return fault

    async def _late(self, fault: str) -> None:
        if fault == "late":
            raise CredentialError("the answer was cut off", transient=True)
        if fault == "late-silent":
            await asyncio.Event().wait()


class Asking(Scripted):
    """One that can be asked what became of a credential."""

    async def confirm(self, wanted: Wanted, handle: str, client: Client) -> bool:
        """Say whether it is gone."""
        await self._begin("confirm")
        return not self._backend.lives(wanted.lease_id)


class World:
    """Leases over a journal in a directory; `crash` forgets all but the file."""

    def __init__(
        self, path: Path, patch: pytest.MonkeyPatch, *, asks: bool = True, revocable: bool = True
    ) -> None:
        self.path = path / "leases.journal"
        self.clock = HandClock()
        self.backend = Backend(self.clock, revocable=revocable)
        provider = Asking(self.backend) if asks else Scripted(self.backend)
        spec = ProviderSpec("scripted", frozenset(Shape), ("role",), lambda: provider, revocable)
        patch.setattr(lease_calls, "providers", lambda: {"scripted": spec})
        patch.setattr(lease_calls, "CONFIRM_POLLS_S", (0.0,))
        self.events: list[AuditEvent] = []
        self.alarms: list[tuple[Alarm, str]] = []
        self.cuts: list[CutLease] = []
        self.open()

    def open(self) -> None:
        """Start, over what the file says."""
        self.journal = Journal(self.path)
        self.leases = Leases(
            self.journal,
            BrokerClient({}, {}),
            self.events.append,
            lambda alarm, text, _: self.alarms.append((alarm, text)),
            self.told,
            self.clock,
        )

    def told(self, cut: CutLease) -> None:
        """The workers hear of a cut."""
        self.cuts.append(cut)

    async def crash(
        self, keep_bytes: int | None = None, live: frozenset[RunId] = frozenset()
    ) -> None:
        """Kill the process; of the file, so many bytes reached the disk. Then start again."""
        self.leases.close()
        await calm()
        self.journal.close()
        if keep_bytes is not None:
            self.path.write_bytes(self.path.read_bytes()[:keep_bytes])
        self.open()
        self.leases.reconcile(live)

    async def take(self, name: str = "api", run: RunId = RUN) -> Lease:
        """Return a lease."""
        return await self.leases.take(run, LOOP, target(name))

    def use(self, lease: Lease, session: str = "s") -> None:
        """A session has it."""
        self.leases.users.took(lease.lease_id, "proxy@0", SessionId(session))

    def leave(self, session: str = "s") -> None:
        """The session is closed."""
        self.leases.users.ended("proxy@0", SessionId(session))

    def states(self, lease_id: LeaseId | None = None) -> list[LeaseState]:
        """Return the recorded transitions, of all or of one."""
        return [
            event.state
            for event in self.events
            if isinstance(event, LeaseChanged) and lease_id in {None, event.lease_id}
        ]

    def state(self, lease: Lease) -> LeaseState:
        """Return where a lease stands."""
        row = self.leases.find(lease.lease_id)
        assert row is not None
        return row.state
