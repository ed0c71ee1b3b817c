"""Secrets on stable storage: whole or not at all, private, bounded."""

import os
import stat
from pathlib import Path

import pytest

from agent.broker.remembered import Remembered
from agent.credentials.spec import REMEMBERED_MAX, SECRET_BYTES_MAX, CredentialError
from agent.model.secret import Secret

CANARY = b"c4n4ry-remembered"


def test_it_outlives_us(tmp_path: Path) -> None:
    """Another instance reads it; the folder and file are ours alone; no name tells the key."""
    folder = tmp_path / "remembered"
    Remembered(folder).remember("https://id/robot", Secret(b"first"))
    Remembered(folder).remember("https://id/robot", Secret(CANARY))
    found = Remembered(folder).recall("https://id/robot")
    assert found is not None
    assert found.reveal() == CANARY
    assert Remembered(folder).recall("https://id/another") is None
    [file] = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "robot" not in file.name


def test_what_a_crash_left_is_replaced(tmp_path: Path) -> None:
    """A half-written new value is none: the old one counts until the next is whole."""
    Remembered(tmp_path).remember("a", Secret(b"old"))
    [file] = tmp_path.iterdir()
    file.with_suffix(".new").write_bytes(b"ha")
    found = Remembered(tmp_path).recall("a")
    assert found is not None
    assert found.reveal() == b"old"
    Remembered(tmp_path).remember("a", Secret(b"new"))
    found = Remembered(tmp_path).recall("a")
    assert found is not None
    assert found.reveal() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_limits(tmp_path: Path) -> None:
    """At REMEMBERED_MAX the known ones still change, one more is refused; so is a larger one."""
    remembered = Remembered(tmp_path)
    remembered.remember("a", Secret(b"x" * SECRET_BYTES_MAX))
    with pytest.raises(CredentialError, match=str(SECRET_BYTES_MAX)):
        remembered.remember("a", Secret(b"x" * (SECRET_BYTES_MAX + 1)))
    for number in range(REMEMBERED_MAX - 1):
        (tmp_path / str(number)).touch()
    remembered.remember("a", Secret(b"y"))
    with pytest.raises(CredentialError, match=str(REMEMBERED_MAX)):
        remembered.remember("b", Secret(b"y"))


def test_what_others_can_read_is_not_believed(tmp_path: Path) -> None:
    """A file that was opened up, or a folder that can't be, is an error without the secret."""
    Remembered(tmp_path).remember("a", Secret(CANARY))
    [file] = tmp_path.iterdir()
    file.chmod(0o644)
    with pytest.raises(CredentialError, match="0600") as caught:
        Remembered(tmp_path).recall("a")
    assert CANARY.decode() not in str(caught.value)
    (tmp_path / "no").touch()
    for folder in (None, tmp_path / "no"):
        with pytest.raises(CredentialError):
            Remembered(folder).remember("a", Secret(CANARY))
    assert Remembered(None).recall("a") is None
    assert os.geteuid() == file.stat().st_uid
