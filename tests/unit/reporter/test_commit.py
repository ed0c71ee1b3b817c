"""Limits of group commit that a process test would take long to reach."""

import asyncio
from pathlib import Path

import pytest

from agent.model.audit import SessionClosed
from agent.reporter import commit
from agent.reporter.commit import GroupCommit, Sender
from agent.reporter.work import OPEN_MAX, OpenWork, resume
from agent.runtime.offload import Offload
from agent.spool.format import NOTE_BYTES_MAX
from agent.spool.recovery import recover
from agent.spool.writer import Spool, SpoolLimits
from tests.unit.reporter.events import finished, intended, ulid


class Desk:
    """A group commit on a real spool, with one sender."""

    def __init__(self, directory: Path, work: OpenWork) -> None:
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
        other = Sender("proxy@1", "proxy@1/2", desk.answers.append, desk.violations.append)
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


def test_too_many_waiting_frames_stop_the_reporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PENDING_FRAMES_MAX frames wait for space; one more and everything is refused."""
    monkeypatch.setattr(commit, "PENDING_FRAMES_MAX", 3)

    async def scenario() -> None:
        desk = Desk(tmp_path, OpenWork("life"))
        for number in range(1, 4):
            desk.commit.submit(desk.sender, [intended(number)], number, "process")
        assert desk.states == []
        desk.commit.submit(desk.sender, [intended(4)], 4, "process")
        assert (desk.states, desk.commit.stopped) == ([False], True)
        desk.commit.regain()
        desk.commit.submit(desk.sender, [intended(5)], 5, "process")
        await asyncio.sleep(0)
        assert (desk.states, desk.answers) == ([False], [])
        desk.close()

    asyncio.run(scenario())
