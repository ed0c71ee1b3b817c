"""Trusted files: owner, mode, kind and size are judged on the open descriptor."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.broker.files import Untrusted, read_public, read_secret

NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A good secret file."""
    path = tmp_path / "secret"
    path.write_bytes(b"value\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_good_secret_is_read(secret: Path, mode: int) -> None:
    """Byte for byte."""
    secret.chmod(mode)
    assert read_secret(str(secret), 100) == b"value\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700, 0o644])
def test_a_secret_that_others_may_touch_is_refused(secret: Path, mode: int) -> None:
    """With the command that repairs it."""
    secret.chmod(mode)
    with pytest.raises(Untrusted, match="chmod 0600"):
        read_secret(str(secret), 100)


def test_a_foreign_owner_is_refused(secret: Path) -> None:
    """Neither root's nor ours."""
    os.chown(secret, NOBODY, -1)
    with pytest.raises(Untrusted, match=f"uid {NOBODY}"):
        read_secret(str(secret), 100)
    with pytest.raises(Untrusted, match="chown root"):
        read_public(str(secret), 100)


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _directory(path: Path) -> None:
    path.mkdir(0o600)


@pytest.mark.parametrize("make", [_link, _fifo, _directory])
def test_only_a_regular_file_is_a_secret(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A link, a pipe (which must not block us) or a directory is refused."""
    make(tmp_path / "odd")
    with pytest.raises(Untrusted):
        read_secret(str(tmp_path / "odd"), 100)


def test_size_is_bounded(secret: Path) -> None:
    """At the limit it is read, one byte more is refused."""
    assert len(read_secret(str(secret), 6)) == 6
    with pytest.raises(Untrusted, match="more than 5 bytes"):
        read_secret(str(secret), 5)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_policy_that_others_may_write_is_refused(secret: Path, mode: int) -> None:
    """Reading by all is fine, writing is root's or ours alone."""
    secret.chmod(0o644)
    assert read_public(str(secret), 100) == b"value\n"
    secret.chmod(mode)
    with pytest.raises(Untrusted, match="chmod go-w"):
        read_public(str(secret), 100)
