"""What a lost journal leaves is ended at the next start, and nothing else is."""

import asyncio
import dataclasses

import pytest

from agent.broker import sweep as sweeping
from agent.broker.sweep import sweep
from agent.credentials.postgres.naming import role_name
from agent.credentials.spec import Wanted
from agent.model.audit import Alarm
from agent.model.credential import Shape
from agent.model.grant import Durability, UpstreamTls
from agent.model.ids import LeaseId, TargetName, ulid_time
from agent.policy.schema import CredentialSource, TargetPolicy
from agent.runtime import clock
from tests.unit.broker.passing import be_patient
from tests.unit.credentials.postgres.stage import Stage, stage

pytestmark = pytest.mark.servers


def target(name: str, source: CredentialSource | None) -> TargetPolicy:
    """Return a target with a credential of this source."""
    return TargetPolicy(
        TargetName(name), "postgres", "a.example", 5432, UpstreamTls.VERIFY_FULL, "", "a.example",
        5432, allow_cleartext=False, durability=Durability.DISK, credential=source,
    )  # fmt: skip


def of_role(made: Stage) -> CredentialSource:
    """Return the source of roles on this server."""
    settings = tuple(sorted(made.settings().items()))
    return CredentialSource("postgres", settings, Shape.PASSWORD, "", "")


def aged(wanted: Wanted) -> Wanted:
    """Return the request as if it was a minute old."""
    lease_id = LeaseId(ulid_time(clock.unix_ms() - 60_000) + wanted.lease_id[10:])
    return dataclasses.replace(wanted, lease_id=lease_id)


def test_lost_roles_are_ended_and_alarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each backend; known leases stay; a server that is down is asked again."""
    be_patient(monkeypatch)
    monkeypatch.setattr(sweeping, "RETRY_FIRST_S", 0.05)
    alarms: list[tuple[Alarm, str]] = []

    async def run(made: Stage) -> None:
        lost, known = aged(made.wanted()), aged(made.wanted())
        for wanted in (lost, known):
            await made.issue(wanted)
        await asyncio.to_thread(made.server.stop)
        static = CredentialSource("static", (("file", "/x"),), Shape.PASSWORD, "", "x")
        targets = [
            target("orders", of_role(made)),
            target("same", of_role(made)),
            target("fixed", static),
            target("open", None),
        ]
        task = asyncio.ensure_future(
            sweep(
                targets,
                lambda: frozenset({known.lease_id}),
                made.client,
                lambda alarm, detail: alarms.append((alarm, detail)),
            )
        )
        await asyncio.wait((task,), timeout=0.3)
        assert not task.done()
        await asyncio.to_thread(made.server.start)
        await task
        assert made.roles() == [role_name(known)]
        await made.revoke(known)
        [(alarm, detail)] = alarms
        assert alarm is Alarm.LEASE_LOST
        assert role_name(lost) in detail

    with stage() as made:
        asyncio.run(run(made))


def test_a_refusal_ends_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    """An admin that may not log in is logged, and asked no more before the next start."""

    async def run(made: Stage) -> None:
        settings = tuple(sorted(made.settings(admin="nobody_of_that_name").items()))
        source = CredentialSource("postgres", settings, Shape.PASSWORD, "", "")
        async with asyncio.timeout(100):
            await sweep([target("a", source)], frozenset, made.client, lambda *_: None)

    with stage() as made:
        asyncio.run(run(made))
    [line] = [one.getMessage() for one in caplog.records if one.name == sweeping.__name__]
    assert "nobody_of_that_name" in line
