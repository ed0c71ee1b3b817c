"""The broker's records: kept until confirmed, sent again to a successor, bounded."""

import asyncio

import pytest

from agent.broker import recorder as module
from agent.broker.recorder import Recorder, Unrecorded
from agent.ipc.endpoint import Endpoint, pair
from agent.ipc.messages import Durable, Record, SpoolState
from agent.ipc.records import unpack_event
from agent.model.audit import Alarm, Alarmed, Heartbeat
from tests.unit.broker.harness import FakeReporter, run_async


def _wire(recorder: Recorder, reporter: FakeReporter) -> tuple[Endpoint, Endpoint]:
    theirs, ours = pair()
    reporter.endpoint = Endpoint(
        theirs, own="reporter", peer="broker", receive=reporter.receive, on_closed=lambda why: None
    )

    def receive(received: object) -> None:
        message = getattr(received, "message", None)
        if isinstance(message, Durable):
            recorder.durable(message)

    end = Endpoint(
        ours,
        own="broker",
        peer="reporter",
        receive=receive,
        on_closed=lambda why: recorder.unwired(),
    )
    recorder.wired(end)
    return reporter.endpoint, end


def test_what_a_dead_reporter_did_not_confirm_is_sent_to_its_successor() -> None:
    """Nothing is lost, and who waited is told."""

    async def main() -> None:
        recorder, first, second = Recorder(), FakeReporter(), FakeReporter()
        first.confirms = False
        ends = [*_wire(recorder, first)]
        waiting = asyncio.ensure_future(recorder.record(Heartbeat(1)))
        await first.until(lambda: bool(first.events))
        recorder.note(Heartbeat(2))
        await first.until(lambda: len(first.events) == 2)
        ends[0].close()
        with pytest.raises(Unrecorded, match="gone"):
            await waiting
        recorder.note(Heartbeat(3))
        ends += _wire(recorder, second)
        await second.until(lambda: len(second.events) == 3)
        assert second.events == [Heartbeat(1), Heartbeat(2), Heartbeat(3)]
        await recorder.record(Heartbeat(4))
        assert not recorder._unconfirmed
        for end in ends:
            end.close()

    run_async(main())


def test_the_same_alarm_is_recorded_once_and_counted() -> None:
    """A loop can't fill the spool with alarms."""
    recorder = Recorder()
    for _ in range(5):
        recorder.alarm(Alarm.TAG_WITHOUT_CGROUP, "pid 1")
    recorder.alarm(Alarm.TAG_WITHOUT_CGROUP, "pid 2")
    assert len(recorder._unconfirmed) == 2
    assert recorder.counters["alarm.tag-without-cgroup"] == 6
    kind, body = next(iter(recorder._unconfirmed.values()))
    assert unpack_event(kind, body) == Alarmed(Alarm.TAG_WITHOUT_CGROUP, "pid 1", None)


def test_remembered_alarms_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit all are remembered, one more forgets the oldest (limit lowered)."""
    monkeypatch.setattr(module, "REPEATED_ALARMS_MAX", 2)
    recorder = Recorder()
    for detail in ("a", "b", "a", "c", "a"):
        recorder.alarm(Alarm.ROLE_DIED, detail)
    assert len(recorder._unconfirmed) == 4


def test_unconfirmed_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit new runs are refused; at twice it the oldest is lost, counted and said."""
    monkeypatch.setattr(module, "UNCONFIRMED_MAX", 2)

    async def main() -> None:
        recorder, reporter = Recorder(), FakeReporter()
        reporter.confirms = False
        ends = _wire(recorder, reporter)
        recorder.note(Heartbeat(1))
        assert not recorder.refusal
        recorder.note(Heartbeat(2))
        assert "2 records wait" in recorder.refusal
        for number in (3, 4):
            recorder.note(Heartbeat(number))
        assert recorder.counters["unrecorded"] == 0
        recorder.note(Heartbeat(5))
        assert recorder.counters["unrecorded"] == 1
        for end in ends:
            end.close()

    run_async(main())


def test_a_closed_spool_refuses_and_an_open_one_does_not() -> None:
    """SpoolState decides; a new reporter starts open."""

    async def main() -> None:
        recorder, reporter = Recorder(), FakeReporter()
        assert "reporter is not running" in recorder.refusal
        ends = _wire(recorder, reporter)
        assert not recorder.refusal
        recorder.spool_state(SpoolState(accepting=False, detail="full"))
        assert "full" in recorder.refusal
        with pytest.raises(Unrecorded, match="full"):
            await recorder.record(Heartbeat(1))
        for end in ends:
            end.close()

    run_async(main())


def test_a_record_is_one_frame() -> None:
    """The frame asks for the disk, with its number."""
    recorder = Recorder()
    sent: list[Record] = []

    class End:
        def notify(self, message: Record) -> None:
            sent.append(message)

    recorder._reporter = End()  # type: ignore[assignment]
    recorder.note(Heartbeat(1))
    assert (sent[0].durable, sent[0].level) == (1, "disk")
