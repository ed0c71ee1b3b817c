"""What a worker may have: of sessions that kernel announced for it, and while they live."""

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.broker import control as c
from agent.broker import sessions, stops
from agent.ipc import messages as m
from agent.model.audit import Alarm, Alarmed, SessionOpened
from agent.model.flow import Evidence
from agent.model.ids import RunId, SessionId, TargetName
from agent.model.reason import Reason
from tests.unit.broker.harness import POLICY, Host, expect, host, run_async


async def _run(made: Host) -> RunId:
    caller = made.caller()
    return (await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)).run_id


async def _authorize(made: Host, session: SessionId) -> m.Authorized:
    answer = await made.worker.ask(m.Authorize(session))
    assert isinstance(answer, m.Authorized)
    return answer


def test_a_session_of_a_run_gets_its_grant_and_lease(tmp_path: Path) -> None:
    """The synthetic address names the target; the secret crosses once, in parts."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _run(made)
            session = made.session(run_id, made.synthetic["api.example.com"][1])
            answer = await _authorize(made, session)
            assert answer.grant is not None
            assert answer.grant.target.name == "api"
            taken = await made.worker.ask(m.TakeLease(session))
            assert isinstance(taken, m.LeaseTaken)
            assert (taken.shape, taken.parts) == ("bearer", (b"s3cr3t-canary",))
            again = await made.worker.ask(m.TakeLease(made.session(run_id, "198.18.0.1")))
            assert isinstance(again, m.Failed)

    run_async(main())


def test_sessions_of_a_run_share_one_lease(tmp_path: Path) -> None:
    """One lease for each (run, target); another run has its own."""

    async def main() -> None:
        async with host(tmp_path) as made:
            address = made.synthetic["api.example.com"][0]
            leases = []
            first, second = await _run(made), await _run(made)
            for run_id in (first, first, second):
                session = made.session(run_id, address)
                await _authorize(made, session)
                taken = await made.worker.ask(m.TakeLease(session))
                assert isinstance(taken, m.LeaseTaken)
                leases.append(taken.lease_id)
            assert leases[0] == leases[1] != leases[2]

    run_async(main())


@pytest.mark.parametrize(
    ("evidence", "reason", "alarm"),
    [
        (Evidence.TAG_ONLY, Reason.TAG_WITHOUT_CGROUP, Alarm.TAG_WITHOUT_CGROUP),
        (Evidence.CGROUP_ONLY, Reason.CGROUP_WITHOUT_TAG, Alarm.CGROUP_WITHOUT_TAG),
    ],
)
def test_one_kernel_fact_is_not_enough_for_a_credential(
    tmp_path: Path, evidence: Evidence, reason: Reason, alarm: Alarm
) -> None:
    """Denied with the true reason, alarmed once; a target without credential is only governed."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _run(made)
            for _ in range(3):
                address = made.synthetic["api.example.com"][0]
                session = made.session(run_id, address, evidence=evidence)
                answer = await _authorize(made, session)
                assert (answer.grant, answer.reason) == (None, reason)
                assert isinstance(await made.worker.ask(m.TakeLease(session)), m.Failed)
            await made.reporter.until(lambda: bool(made.reporter.of(Alarmed)))
            [alarmed] = made.reporter.of(Alarmed)
            assert (alarmed.alarm, alarmed.run_id) == (alarm, run_id)
            address = made.synthetic["open.example.com"][0]
            plain = made.session(run_id, address, 80, evidence=evidence)
            assert (await _authorize(made, plain)).grant is not None
            assert isinstance(await made.worker.ask(m.TakeLease(plain)), m.Failed)

    run_async(main())


def test_a_destination_outside_the_rules_gets_an_explanation(tmp_path: Path) -> None:
    """No grant; cause and next step are there to be shown."""

    async def main() -> None:
        async with host(tmp_path) as made:
            answer = await _authorize(made, made.session(await _run(made), "203.0.113.9"))
            assert answer.grant is None
            assert answer.reason is Reason.DESTINATION_UNLISTED
            assert "203.0.113.9" in answer.explanation
            assert answer.next_step

    run_async(main())


def test_a_session_that_kernel_never_announced_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker can't make up a session, nor use one of another worker."""
    monkeypatch.setattr(sessions, "ANNOUNCED_WITHIN_S", 0.01)

    async def main() -> None:
        async with host(tmp_path) as made:
            answer = await made.worker.ask(m.Authorize(SessionId("01JD0000000000000000000000")))
            assert answer == m.Failed(Reason.UNATTRIBUTED, "this connection is not known")
            run_id = await _run(made)
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            await _authorize(made, session)
            made.broker.parts.sessions._sessions[session].worker = "proxy@1"
            assert isinstance(await made.worker.ask(m.Authorize(session)), m.Failed)
            assert isinstance(await made.worker.ask(m.TakeLease(session)), m.Failed)
            assert len(made.reporter.of(SessionOpened)) == 1

    run_async(main())


def test_a_worker_may_ask_before_kernels_notice_arrives(tmp_path: Path) -> None:
    """Pairs may reorder: the question waits for the announcement."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _run(made)
            parts = made.broker.parts
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            answer = await _authorize(made, session)
            assert answer.grant is not None
            early = SessionId("01JD0000000000000000000001")
            waiting = parts.sessions.wait("proxy@0", early)
            task = asyncio.ensure_future(waiting)
            await asyncio.sleep(0)
            attribution = parts.sessions._sessions[session].attribution
            parts.sessions.began("proxy@0", dataclasses.replace(attribution, session_id=early))
            found = await task
            assert found is not None

    run_async(main())


def test_a_session_that_ended_before_kernels_notice_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is refused at once may be told of before it is announced. Past the bound one stays."""
    monkeypatch.setattr(sessions, "ENDED_EARLY_MAX", 2)

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _run(made)
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            await _authorize(made, session)
            known = made.broker.parts.sessions
            attribution = known._sessions[session].attribution
            early = [SessionId(f"01JD000000000000000000000{number}") for number in range(3)]
            for one in early:
                known.ended("proxy@0", one)
            for one in early[1:]:
                known.began("proxy@1", dataclasses.replace(attribution, session_id=one))
                assert known.find("proxy@1", one) is not None  # it is another worker's
                known.ended("proxy@1", one)
                for _ in range(2):  # announced once, in fact: what is remembered is used up
                    assert known.find("proxy@0", one) is None
                    known.began("proxy@0", dataclasses.replace(attribution, session_id=one))
                assert known.find("proxy@0", one) is not None
            known.began("proxy@0", dataclasses.replace(attribution, session_id=early[0]))
            assert known.find("proxy@0", early[0]) is not None

    run_async(main())


def test_sessions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit a session is known, one past it is not (limit lowered)."""
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    monkeypatch.setattr(sessions, "ANNOUNCED_WITHIN_S", 0.01)

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _run(made)
            address = made.synthetic["open.example.com"][0]
            known = [made.session(run_id, address, 80) for _ in range(3)]
            answers = [await made.worker.ask(m.Authorize(session)) for session in known]
            assert [type(answer) for answer in answers] == [m.Authorized, m.Authorized, m.Failed]
            assert made.worker.endpoint is not None
            made.worker.endpoint.notify(m.SessionEnded(known[0]))
            await made.worker.ask(m.SignLeaf("nobody", b""))  # the notice was read
            fresh = made.session(run_id, made.synthetic["open.example.com"][0], 80)
            assert (await _authorize(made, fresh)).grant is not None

    run_async(main())


def test_a_run_has_so_many_sessions_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit (lowered) one is opened, one past it is refused; another run has its own."""
    monkeypatch.setattr(sessions, "OPEN_A_RUN_MAX", 2)

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id, other = await _run(made), await _run(made)
            address = made.synthetic["open.example.com"][0]
            known = [made.session(run_id, address, 80) for _ in range(2)]
            for session in known:
                await _authorize(made, session)
            refused = await made.worker.ask(m.Authorize(made.session(run_id, address, 80)))
            assert isinstance(refused, m.Failed)
            assert refused.reason is Reason.OVERLOADED
            await _authorize(made, made.session(other, address, 80))
            assert made.worker.endpoint is not None
            made.worker.endpoint.notify(m.SessionEnded(known[0]))
            await _authorize(made, made.session(run_id, address, 80))
            assert len(made.reporter.of(SessionOpened)) == 4
            assert len(made.broker.parts.sessions) == 3  # the refused one is not known any more
            made.broker.parts.sessions.worker_gone("proxy@0")
            for _ in range(2):
                await _authorize(made, made.session(run_id, address, 80))

    run_async(main())


def test_leaves_are_signed_for_tls_names_of_the_policy_only(tmp_path: Path) -> None:
    """The chain verifies for the name; a clear-text target or a foreign name gets nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    async def main() -> None:
        async with host(tmp_path) as made:
            signed = await made.worker.ask(m.SignLeaf("api.example.com", public))
            assert isinstance(signed, m.LeafSigned)
            leaf, ca = x509.load_pem_x509_certificates(signed.chain_pem)
            leaf.verify_directly_issued_by(ca)
            for name in ("open.example.com", "evil.example", "api.example.com.evil.example"):
                assert isinstance(await made.worker.ask(m.SignLeaf(name, public)), m.Failed)

    run_async(main())


def test_an_unreadable_secret_is_refused_and_tried_again(tmp_path: Path) -> None:
    """The failure names cause and next step and holds no secret; after repair it works."""

    async def main() -> None:
        async with host(tmp_path) as made:
            made.secret.chmod(0o644)
            run_id = await _run(made)
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            await _authorize(made, session)
            failed = await made.worker.ask(m.TakeLease(session))
            assert isinstance(failed, m.Failed)
            assert "chmod 0600" in failed.detail
            assert "canary" not in failed.detail
            made.secret.chmod(0o600)
            assert isinstance(await made.worker.ask(m.TakeLease(session)), m.LeaseTaken)

    run_async(main())


def test_a_new_policy_cuts_what_it_changes(tmp_path: Path) -> None:
    """The workers learn the names and cut the run; the lease is replaced; other loops stay."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            run_id = await _run(made)
            other = (await expect(caller.ask(c.StartRun("other", (), "")), c.RunOpened)).run_id
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            await _authorize(made, session)
            first = await made.worker.ask(m.TakeLease(session))
            assert isinstance(first, m.LeaseTaken)
            await made.worker.until_notice(m.PolicyNames)
            made.write(POLICY.replace("https://api.example.com", "https://api2.example.com"))
            accepted = await expect(caller.ask(c.ReloadPolicy()), c.Accepted)
            assert "nightly" in accepted.detail
            names = await made.worker.until_notice(m.PolicyNames)
            assert [name for name, _, _ in names.names] == ["api2.example.com", "open.example.com"]
            cut = await made.worker.until_notice(m.CutRun)
            assert cut == m.CutRun(run_id, Reason.POLICY_CHANGED)
            assert not [each for each in made.worker.notices if isinstance(each, m.CutRun)]
            assert isinstance(await made.worker.ask(m.TakeLease(session)), m.Failed)
            fresh = made.session(run_id, made.synthetic["api2.example.com"][0])
            await _authorize(made, fresh)
            second = await made.worker.ask(m.TakeLease(fresh))
            assert isinstance(second, m.LeaseTaken)
            assert second.lease_id != first.lease_id
            assert other in made.kernel.runs

    run_async(main())


def test_a_bad_policy_keeps_the_last_good_one(tmp_path: Path) -> None:
    """The reload is refused with its places, alarmed, shown by status; what runs goes on."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            run_id = await _run(made)
            made.write("loops: {another: {rulez: []}}", "zz.yaml")
            refused = await expect(caller.ask(c.ReloadPolicy()), c.Refused)
            assert "zz.yaml:1:19: unknown key" in refused.detail
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            assert (await _authorize(made, session)).grant is not None
            await made.reporter.until(lambda: bool(made.reporter.of(Alarmed)))
            assert made.reporter.of(Alarmed)[0].alarm is Alarm.POLICY_REJECTED
            status = await expect(caller.ask(c.GetStatus()), c.StatusView)
            assert "zz.yaml" in status.policy_problem
            (tmp_path / "policy.d" / "zz.yaml").unlink()
            await expect(caller.ask(c.ReloadPolicy()), c.Accepted)
            status = await expect(caller.ask(c.GetStatus()), c.StatusView)
            assert not status.policy_problem

    run_async(main())


def test_a_journal_that_can_not_be_written_is_an_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is refused, and a person is told once that no lease is given any more, and why."""

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _run(made)
            monkeypatch.setattr(os, "fdatasync", fail)
            for _ in range(2):
                session = made.session(run_id, made.synthetic["api.example.com"][0])
                await _authorize(made, session)
                assert isinstance(await made.worker.ask(m.TakeLease(session)), m.Failed)
            await made.reporter.until(lambda: bool(made.reporter.of(Alarmed)))
            [alarmed] = made.reporter.of(Alarmed)
            assert alarmed.alarm is Alarm.JOURNAL_FAILED
            assert "leases.journal: Input/output error" in alarmed.detail
            assert "restart" in alarmed.detail

    run_async(main())


def test_the_others_are_asked_to_stop_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a session of the asking worker's own, of its run and target, and for no other."""
    monkeypatch.setattr(stops, "STOP_TIMEOUT_S", 60.0)

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id = await _run(made)
            session = made.session(run_id, made.synthetic["api.example.com"][0])
            alone = await made.worker.ask(m.AskStopped(session, b"pid and key"))
            assert alone == m.HeldStopped(taken=False)
            other = made.another_worker("proxy@1", m.HeldStopped(taken=True))
            deaf = made.another_worker("proxy@2", m.HeldStopped(taken=False))
            for unknown in (SessionId("0" * 26), session):
                answer = await made.worker.ask(m.AskStopped(unknown, b"pid and key"))
                assert answer == m.HeldStopped(taken=False)  # it is of no target yet
            await _authorize(made, session)
            for name in (b"", b"x" * (stops.NAME_BYTES_MAX + 1)):
                answer = await made.worker.ask(m.AskStopped(session, name))
                assert answer == m.HeldStopped(taken=False)
            assert not other.notices
            for name in (b"pid and key", b"x" * stops.NAME_BYTES_MAX):
                answer = await made.worker.ask(m.AskStopped(session, name))
                assert answer == m.HeldStopped(taken=True)
                wanted = m.StopHeld(run_id, TargetName("api"), name)
                assert other.notices.pop() == deaf.notices.pop() == wanted
            assert not any(isinstance(one, m.StopHeld) for one in made.worker.notices)

    run_async(main())
