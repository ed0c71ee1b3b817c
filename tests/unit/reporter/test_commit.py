"""Limits of group commit that a process test would take long to reach."""

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.model.audit import AuditEvent, OperationFinished, SessionClosed
from agent.reporter import commit
from agent.reporter.commit import GroupCommit, Sender
from agent.reporter.work import OPEN_MAX, OpenWork, resume
from agent.runtime import clock
from agent.runtime.offload import Offload
from agent.spool.format import NOTE_BYTES_MAX
from agent.spool.recovery import recover
from agent.spool.writer import Spool, SpoolLimits
from tests.unit.reporter.events import (
    denied,
    finished,
    intended,
    session_closed,
    session_opened,
    ulid,
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No flush comes by itself: on a busy machine it would be in the middle of a test."""
    monkeypatch.setattr(commit, "IDLE_SYNC_S", 600.0)


class Desk:
    """A group commit on a real spool, with one sender."""

    def __init__(self, directory: Path, work: OpenWork) -> None:
        for number in range(1, 6):  # as the broker opened them
            role = "proxy@0" if number == 1 else f"proxy@{number}"
            work.opened(ulid(number), work.sessions.get(ulid(number), role), ulid(1))
        self.offload = Offload("test")
        self.spool = Spool(
            directory,
            recover(directory),
            boot=bytes(16),
            created_ms=1,
            limits=SpoolLimits(reserve_bytes=4_096),
            carry=work.note,
        )
        self.states: list[bool] = []
        self.answers: list[int] = []
        self.violations: list[str] = []
        self.commit = GroupCommit(
            self.spool,
            work,
            self.offload,
            boot_id="boot",
            on_state=lambda accepting, _detail: self.states.append(accepting),
            on_durable=lambda: None,
        )
        self.sender = Sender("proxy@0", "proxy@0/1", self.answers.append, self.violations.append)

    def close(self) -> None:
        """End the worker thread."""
        self.offload.close()
        self.spool.close()


def test_the_limit_of_open_work_refuses_beginnings(tmp_path: Path) -> None:
    """At OPEN_MAX open operations and sessions the next is refused; an end makes room again."""

    async def scenario() -> None:
        work = OpenWork("life")
        work.sessions.update((ulid(number), "proxy@0/1") for number in range(OPEN_MAX - 1))
        desk = Desk(tmp_path, work)
        desk.commit.submit(desk.sender, [intended(1)], 1, "process")
        await asyncio.sleep(0)
        assert (desk.states, desk.answers) == ([], [1])
        desk.commit.submit(desk.sender, [intended(2)], 2, "process")
        await asyncio.sleep(0)
        assert (desk.states, desk.answers) == ([False], [1])
        desk.commit.regain()
        assert desk.states == [False]
        other = Sender("proxy@0", "proxy@0/2", desk.answers.append, desk.violations.append)
        desk.commit.submit(other, [finished(1)], 7, "process")
        await asyncio.sleep(0)
        desk.commit.regain()
        assert desk.commit.accepting
        assert (desk.states, desk.answers) == ([False, True], [1, 7, 2])
        await desk.commit.settle()
        desk.close()

    asyncio.run(scenario())


def test_the_note_at_the_limit_fits_a_header() -> None:
    """OPEN_MAX operations make a note below NOTE_BYTES_MAX, and it is read back."""
    work = OpenWork("life")
    for number in range(OPEN_MAX):
        work.operations[ulid(number)] = (ulid(number), "proxy@63/1000000")
    note = work.note()
    assert len(note) < NOTE_BYTES_MAX
    again, ends = resume(note, [], "life")
    assert again.operations == work.operations
    assert len(ends) == OPEN_MAX


def test_sessions_are_closed_only_when_the_supervisor_died_too() -> None:
    """The same life: proxies may live, their sessions stay open. Another life: they are closed."""
    work = OpenWork("one")
    work.sessions[ulid(1)] = "proxy@0/1"
    for life, closed in (("one", 0), ("two", 1)):
        again, ends = resume(work.note(), [], life)
        assert [type(end) for end in ends] == [SessionClosed] * closed
        assert again.life == life
    with pytest.raises(ValueError, match="note"):
        resume(b"\xc1", [], "one")


@pytest.mark.parametrize(("name", "limit", "size"), [("FRAMES", 3, 0), ("BYTES", 30, 10)])
def test_a_sender_that_floods_a_full_spool_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, size: int
) -> None:
    """So many frames or bytes of one sender wait for space; one more ends it, and only it."""
    monkeypatch.setattr(commit, f"PENDING_{name}_MAX", limit)

    async def scenario() -> None:
        desk = Desk(tmp_path, OpenWork("life"))
        desk.commit.accepting = False
        for number in range(1, 4):
            desk.commit.submit(desk.sender, [intended(number)], number, "process", size)
        assert desk.violations == []
        desk.commit.submit(desk.sender, [intended(4)], 4, "process", size)
        assert len(desk.violations) == 1
        other = Sender("proxy@2", "proxy@2/2", desk.answers.append, desk.violations.append)
        desk.commit.submit(other, [intended(5, session=2)], 5, "process", size)
        await asyncio.sleep(0)
        desk.commit.regain()
        assert (desk.states, desk.answers, len(desk.violations)) == ([True], [5], 1)
        assert not desk.commit.stopped
        desk.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "lie",
    [
        intended(9, session=1),
        finished(1, session=1),
        finished(1, session=2),  # the operation is of another session
        session_opened(1),
        session_closed(1),
        denied(9, session=1),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_worker_says_nothing_of_another_workers_work(tmp_path: Path, lie: AuditEvent) -> None:
    """An event of an open session or operation of another role ends the sender, unrecorded."""

    async def scenario() -> None:
        desk = Desk(tmp_path, OpenWork("life"))
        broker = Sender("broker", "broker/1", lambda _number: None, desk.violations.append)
        desk.commit.submit(broker, [session_opened(1)], 1, "process")
        await asyncio.sleep(0)
        desk.commit.submit(desk.sender, [intended(1, session=1)], 1, "process")
        await asyncio.sleep(0)
        before = desk.spool.next_seq
        hostile = Sender("proxy@1", "proxy@1/2", desk.answers.append, desk.violations.append)
        desk.commit.submit(hostile, [lie], 1, "process")
        desk.commit.submit(desk.sender, [finished(1, session=1)], 2, "process")
        await asyncio.sleep(0)
        assert len(desk.violations) == 1
        assert desk.answers == [1, 2]
        assert desk.spool.next_seq == before + 1
        desk.close()

    asyncio.run(scenario())


def test_numbers_and_levels_of_a_liar_only_cost_the_liar(tmp_path: Path) -> None:
    """Numbers that go back or are negative, and a level that is none (then: the disk)."""

    async def scenario() -> None:
        desk = Desk(tmp_path, OpenWork("life"))
        for number, level in ((7, "disk"), (3, "nonsense"), (-1, "process"), (2, "process")):
            desk.commit.submit(desk.sender, [intended(number + 10)], number, level)
        await asyncio.sleep(0)
        assert desk.answers[0] == 2
        await desk.commit.settle()
        assert desk.answers == [2, 7]
        desk.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("took_ns", "in_thread"), [(-1, False), (0, True)])
def test_after_a_slow_flush_the_next_one_is_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_ns: int, *, in_thread: bool
) -> None:
    """Just below SLOW_FLUSH_NS the next is in the event loop; at it, it is not; then it may be."""

    async def scenario() -> None:
        desk = Desk(tmp_path, OpenWork("life"))
        event_loop, flush = threading.get_ident(), os.fdatasync
        now_ns, seen = 0, []
        durations_ns = iter((commit.SLOW_FLUSH_NS + took_ns, 0, 0))

        def slow(fd: int) -> None:
            nonlocal now_ns
            flush(fd)
            seen.append(threading.get_ident() == event_loop)
            now_ns += next(durations_ns)

        monkeypatch.setattr(os, "fdatasync", slow)
        monkeypatch.setattr(clock, "monotonic_ns", lambda: now_ns)
        for number in (1, 2, 3):
            desk.commit.submit(desk.sender, [intended(number)], number, "disk")
            await desk.commit.settle()
        assert seen == [True, not in_thread, True]
        assert desk.answers == [1, 2, 3]
        desk.close()

    asyncio.run(scenario())


def test_while_a_slow_flush_runs_what_needs_no_disk_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread; what asks for the disk meanwhile is answered by the flush after it."""

    async def scenario() -> None:
        desk = Desk(tmp_path, OpenWork("life"))
        monkeypatch.setattr(commit, "SLOW_FLUSH_NS", 0)
        desk.commit.submit(desk.sender, [intended(1)], 1, "disk")
        await desk.commit.settle()
        may_end, flush = threading.Event(), os.fdatasync

        def held(fd: int) -> None:
            may_end.wait()
            flush(fd)

        monkeypatch.setattr(os, "fdatasync", held)
        for number, level in ((2, "disk"), (3, "disk"), (4, "process")):
            desk.commit.submit(desk.sender, [intended(number)], number, level)
            await asyncio.sleep(0)
        assert desk.answers == [1, 4]
        may_end.set()
        await desk.commit.settle()
        assert desk.answers[:2] == [1, 4]
        assert desk.answers[-1] == 3
        desk.close()

    asyncio.run(scenario())


def test_a_turn_is_one_write_and_a_large_one_is_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of all senders are one group up to GROUP_BYTES_MAX; past it the next one begins."""

    async def scenario(size: int) -> int:
        (tmp_path / str(size)).mkdir()
        desk = Desk(tmp_path / str(size), OpenWork("life"))
        monkeypatch.setattr(commit, "GROUP_BYTES_MAX", size)
        appended: list[int] = []
        append = desk.spool.append

        def counted(made: Sequence[bytes], *, closing: bool) -> range:
            appended.append(len(made))
            return append(made, closing=closing)

        monkeypatch.setattr(desk.spool, "append", counted)
        for number in range(2, 6):
            role = f"proxy@{number}"
            sender = Sender(role, role, desk.answers.append, desk.violations.append)
            desk.commit.submit(sender, [intended(number, session=number)], number, "process")
        await asyncio.sleep(0)
        assert desk.answers == [2, 3, 4, 5]
        desk.close()
        return len(appended)

    assert asyncio.run(scenario(1 << 20)) == 1
    assert asyncio.run(scenario(1)) == 4


def test_a_dead_workers_work_of_an_earlier_life_gets_its_end_too(tmp_path: Path) -> None:
    """What we know from the spool only is known by the role: when that one is gone, it is ended."""
    work = OpenWork("life", {ulid(1): (ulid(2), "proxy@0")}, {ulid(2): "proxy@0"})
    ends = work.abandoned_by("proxy@0/1", "proxy@0")
    assert [type(end) for end in ends] == [OperationFinished, SessionClosed]
    assert work.abandoned_by("proxy@1/2", "proxy@1") == []
