"""The lease journal under crashes: what was acknowledged is there, what was torn is not."""

import os
from pathlib import Path

import pytest

from agent.broker import journal as module
from agent.broker.journal import Journal, JournalDead, Row
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.lease import LeaseState

STATES = [LeaseState.ISSUED, LeaseState.ACTIVE, LeaseState.REVOKING, LeaseState.REVOKED]


def _row(number: int = 0) -> Row:
    return Row(
        LeaseId(f"lease-{number}"),
        RunId("run"),
        LoopName("nightly"),
        TargetName("api"),
        "static",
        (("file", "/etc/x"),),
        "bearer",
        "",
        "",
        "",
        LeaseState.INTENT,
        revocable=False,
        at_ms=1,
    )


def test_rows_survive_a_restart_until_they_are_revoked(tmp_path: Path) -> None:
    """Each state is read back as it was written; REVOKED is no row."""
    path = tmp_path / "j"
    for count in range(len(STATES) + 1):
        path.unlink(missing_ok=True)
        journal = Journal(path)
        journal.begin(_row())
        for state in STATES[:count]:
            journal.move(LeaseId("lease-0"), (state,), 2, handle="h")
        journal.close()
        again = Journal(path)
        again.close()
        states = [row.state for row in again.open_rows()]
        assert states == ([] if count == 4 else [([LeaseState.INTENT, *STATES])[count]])


def test_a_cut_anywhere_loses_only_the_line_that_was_cut(tmp_path: Path) -> None:
    """For every byte: all lines that were whole are in force, and the file can go on."""
    path = tmp_path / "j"
    journal = Journal(path)
    ends: list[tuple[int, LeaseState | None]] = [(0, None)]
    journal.begin(_row())
    ends.append((path.stat().st_size, LeaseState.INTENT))
    for state in STATES:
        journal.move(LeaseId("lease-0"), (state,), 2)
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
    """After EIO nothing is written, although the next sync would succeed (fsyncgate)."""
    journal = Journal(tmp_path / "j")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(JournalDead, match="Input/output error"):
            journal.begin(_row())
    assert not journal.rows
    with pytest.raises(JournalDead):
        journal.begin(_row(1))
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
    """Past COMPACT_BYTES it is rewritten with live rows alone (limit lowered)."""
    monkeypatch.setattr(module, "COMPACT_BYTES", 4_000)
    path = tmp_path / "j"
    journal = Journal(path)
    journal.begin(_row(999))
    for number in range(50):
        journal.begin(_row(number))
        journal.move(LeaseId(f"lease-{number}"), STATES, 2)
        assert path.stat().st_size <= 4_000 + 2_000
    journal.close()
    again = Journal(path)
    again.close()
    assert list(again.rows) == ["lease-999"]


def test_states_are_not_skipped(tmp_path: Path) -> None:
    """A transition outside the table is an error of ours."""
    journal = Journal(tmp_path / "j")
    journal.begin(_row())
    with pytest.raises(AssertionError):
        journal.move(LeaseId("lease-0"), (LeaseState.ACTIVE,), 2)
    journal.close()


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    """Mode 0600."""
    path = tmp_path / "j"
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
