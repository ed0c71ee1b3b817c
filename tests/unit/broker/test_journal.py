"""The lease journal under crashes: what was acknowledged is there, what was torn is not."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.broker import journal as module
from agent.broker.journal import (
    ERROR_CHARACTERS_MAX,
    LINE_BYTES_MAX,
    Journal,
    JournalDead,
    Row,
    RowTooLong,
)
from agent.credentials.spec import HANDLE_CHARACTERS_MAX, PROVIDER_ID_CHARACTERS_MAX
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.lease import LeaseState

S = LeaseState
STATES = [S.ISSUED, S.ACTIVE, S.RENEWING, S.ACTIVE, S.DRAINING, S.REVOKING, S.REVOKED]


def _row(number: int = 0) -> Row:
    return Row(
        LeaseId(f"lease-{number}"),
        RunId("run"),
        LoopName("nightly"),
        TargetName("api"),
        1000,
        "static",
        (("file", "/etc/x"),),
        "bearer",
        "",
        "",
        0,
        0,
        LeaseState.INTENT,
        1,
        1,
    )


def _moved(journal: Journal, states: list[LeaseState], number: int = 0, **changes: Any) -> None:
    """Write a row's next states in one go."""
    row = journal.rows[LeaseId(f"lease-{number}")]
    steps = []
    for state in states:
        row = replace(row, state=state, **changes)
        steps.append(row)
    journal.move(*steps)


def test_rows_survive_a_restart_until_they_are_revoked(tmp_path: Path) -> None:
    """Each state is read back as it was written; REVOKED is no row."""
    path = tmp_path / "j"
    for count in range(len(STATES) + 1):
        path.unlink(missing_ok=True)
        journal = Journal(path)
        journal.begin(_row())
        for state in STATES[:count]:
            _moved(journal, [state], handle="h", error="é\n", next_ms=7)
        journal.close()
        again = Journal(path)
        again.close()
        states = [row.state for row in again.open_rows()]
        over = count == len(STATES)
        assert states == ([] if over else [([LeaseState.INTENT, *STATES])[count]])
        assert [*again.rows.values(), *again.past.values()] == [
            *journal.rows.values(),
            *journal.past.values(),
        ]


def test_a_cut_anywhere_loses_only_the_line_that_was_cut(tmp_path: Path) -> None:
    """For every byte: all lines that were whole are in force, and the file can go on."""
    path = tmp_path / "j"
    journal = Journal(path)
    ends: list[tuple[int, LeaseState | None]] = [(0, None)]
    assert path.read_bytes() == module.FORMAT
    journal.begin(_row())
    ends.append((path.stat().st_size, LeaseState.INTENT))
    for state in STATES:
        _moved(journal, [state])
        ends.append((path.stat().st_size, None if state is LeaseState.REVOKED else state))
    journal.close()
    whole = path.read_bytes()
    for cut in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        expected = [state for end, state in ends if end <= cut][-1]
        again = Journal(path)
        assert [row.state for row in again.open_rows()] == ([expected] if expected else [])
        again.begin(_row(1))
        again.close()
        last = Journal(path)
        assert LeaseId("lease-1") in last.rows
        last.close()


def test_a_bad_line_in_the_middle_is_kept_aside_and_counted(tmp_path: Path) -> None:
    """The other lines count; the original stays in a copy, for a person."""
    path = tmp_path / "j"
    journal = Journal(path)
    for number in range(3):
        journal.begin(_row(number))
    journal.close()
    damaged = path.read_bytes().replace(b"lease-1", b"lease-9")
    path.write_bytes(damaged)
    again = Journal(path)
    again.close()
    assert sorted(again.rows) == ["lease-0", "lease-2"]
    assert again.bad_lines == 1
    assert path.with_suffix(".quarantine").read_bytes() == damaged


def test_a_failed_sync_ends_all_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After EIO nothing is written, although the next sync would succeed (fsyncgate); told once."""
    told: list[str] = []
    journal = Journal(tmp_path / "j", told.append)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(JournalDead, match="Input/output error"):
            journal.begin(_row())
    assert not journal.rows
    with pytest.raises(JournalDead):
        journal.begin(_row(1))
    assert len(told) == 1
    assert "Input/output error" in told[0]
    journal.close()


def test_a_full_disk_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is not taken for a written row; the torn line is cut off at the next start."""
    path = tmp_path / "j"
    journal = Journal(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
    with pytest.raises(JournalDead, match="full"):
        journal.begin(_row())
    monkeypatch.undo()
    journal.close()
    again = Journal(path)
    again.close()
    assert not again.rows
    assert again.bad_lines == 0


def test_the_journal_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past COMPACT_BYTES it is rewritten with what counts alone (limits lowered)."""
    monkeypatch.setattr(module, "COMPACT_BYTES", 4_000)
    monkeypatch.setattr(module, "PAST_MAX", 3)
    path = tmp_path / "j"
    journal = Journal(path)
    journal.begin(_row(999))
    for number in range(50):
        journal.begin(_row(number))
        _moved(journal, STATES, number)
        assert path.stat().st_size <= 20_000
    journal.close()
    again = Journal(path)
    again.close()
    assert list(again.rows) == ["lease-999"]
    assert list(again.past) == ["lease-47", "lease-48", "lease-49"]


def test_history_is_bounded_and_what_a_person_took_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAST_MAX leases that are over (limit lowered); a withdrawn one stays until its run goes."""
    monkeypatch.setattr(module, "PAST_MAX", 2)
    path = tmp_path / "j"
    journal = Journal(path)
    for number in range(5):
        journal.begin(_row(number))
        _moved(journal, STATES[:-2], number)
        _moved(journal, STATES[-2:], number, withdrawn=number == 0)
    assert list(journal.past) == ["lease-3", "lease-4"]
    journal.close()
    again = Journal(path)
    again.close()
    assert list(again.past) == ["lease-3", "lease-4"]
    assert [row.lease_id for row in again.withdrawn.values()] == ["lease-0"]
    again = Journal(path)  # after a compaction too
    again.release(RunId("another"))
    assert again.withdrawn
    again.release(RunId("run"))
    assert not again.withdrawn
    again.close()
    last = Journal(path)
    last.close()
    assert last.withdrawn  # as was written: reconcile asks which runs live


@pytest.mark.parametrize(
    "text",
    [
        b'9ae0daaf {"lease_id":"x"}\n',  # the format before, without a first line
        b"loopwarden-leases 3\n",
        b"\0" * 64,
    ],
)
def test_another_format_is_refused_and_left_alone(tmp_path: Path, text: bytes) -> None:
    """Not misread, not overwritten; the refusal says what to do."""
    path = tmp_path / "j"
    path.write_bytes(text)
    with pytest.raises(JournalDead, match=r"not of this version's format.*move it away"):
        Journal(path)
    assert path.read_bytes() == text


def test_a_row_fits_its_line(tmp_path: Path) -> None:
    """Settings up to half a line are written, and read back with the longest handle and error."""
    path = tmp_path / "j"
    journal = Journal(path)
    row = _row()
    room = module.LINE_BYTES_MAX // 2 - len(module._line(row))
    long = replace(row, settings=(("file", "/etc/x" + "x" * room),))
    journal.begin(long)
    with pytest.raises(RowTooLong):
        journal.begin(replace(_row(1), settings=(("file", "/etc/x" + "x" * (room + 1)),)))
    _moved(journal, [S.ISSUED], handle="\x01" * 1_024, provider_id="\x01" * 512,
           error="\x01" * 240)  # fmt: skip
    journal.close()
    again = Journal(path)
    again.close()
    assert list(again.rows) == ["lease-0"]
    assert not again.bad_lines


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\x01", "\ud800", '"'])
def test_a_row_that_began_is_read_back_whatever_its_backend_said(
    tmp_path: Path, letter: str
) -> None:
    """All that comes after the intent, as long as it may be and of any letters, fits the line."""
    journal = Journal(tmp_path / "j")
    room = LINE_BYTES_MAX // 2 - len(module._line(_row())) - len(',["key",""]')
    journal.begin(replace(_row(), settings=(("file", "/etc/x"), ("key", "s" * room))))
    said: dict[str, Any] = {
        "handle": letter * HANDLE_CHARACTERS_MAX,
        "provider_id": letter * PROVIDER_ID_CHARACTERS_MAX,
        "error": letter * ERROR_CHARACTERS_MAX,
    }
    _moved(journal, [S.ISSUED, S.ACTIVE], **said)
    journal.close()
    again = Journal(tmp_path / "j")
    again.close()
    assert again.bad_lines == 0
    assert again.rows[LeaseId("lease-0")].handle == said["handle"]


def test_a_large_journal_is_not_rewritten_for_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When live rows alone are above COMPACT_BYTES, it doubles before it is rewritten."""
    monkeypatch.setattr(module, "COMPACT_BYTES", 1_000)
    journal = Journal(tmp_path / "j")
    rewritten = 0
    inode = (tmp_path / "j").stat().st_ino
    for number in range(200):
        journal.begin(_row(number))
        now = (tmp_path / "j").stat().st_ino
        rewritten += now != inode
        inode = now
    journal.close()
    assert 4 <= rewritten <= 10


def test_only_what_announces_something_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a call outside or a handing out: a sync. After an end: none."""
    synced: list[int] = []
    real = os.fdatasync
    journal = Journal(tmp_path / "j")

    def sync(fd: int) -> None:
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    journal.begin(_row())
    counts = [len(synced)]
    _moved(journal, [S.ISSUED, S.ACTIVE])
    counts.append(len(synced))
    for state in (S.RENEWING, S.ACTIVE, S.DRAINING, S.REVOKING, S.REVOKE_RETRY, S.REVOKING,
                  S.QUARANTINED, S.REVOKING, S.REVOKED):  # fmt: skip
        _moved(journal, [state])
        counts.append(len(synced))
    journal.close()
    assert counts == [1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7]


def test_states_are_not_skipped(tmp_path: Path) -> None:
    """A transition outside the table is an error of ours."""
    journal = Journal(tmp_path / "j")
    journal.begin(_row())
    with pytest.raises(AssertionError):
        _moved(journal, [LeaseState.ACTIVE])
    with pytest.raises(AssertionError):
        _moved(journal, [LeaseState.ISSUED, LeaseState.REVOKED])
    journal.close()


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    """Mode 0600."""
    path = tmp_path / "j"
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
