"""What is done as root before the broker gives up its power: nothing that another could steer."""

import os
from pathlib import Path

import pytest

from agent.broker import main
from agent.broker.main import Prepared, prepare
from agent.config.daemon import Daemon, Users
from agent.kernel.main import prepare_directories


def config(base: Path) -> Daemon:
    """Return a configuration below a folder, with numeric users."""
    return Daemon(
        state_dir=str(base / "state"),
        run_dir=str(base / "run"),
        users=Users("64201", "64202", "64203"),
    )


def test_the_run_directory_is_roots(tmp_path: Path) -> None:
    """The broker cannot put a link where root binds, chowns and chmods the control socket."""
    made = config(tmp_path)
    os.makedirs(made.run_dir)
    os.chown(made.run_dir, 64201, 64201)  # as an older version left it
    os.close(prepare_directories(made))
    status = os.stat(made.run_dir)
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o755)


def test_a_link_in_place_of_the_trust_directory_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a taken-over broker left there does not give it somebody else's directory."""
    monkeypatch.setattr(main, "lock_memory", lambda: None)  # it would be the other tests' too
    made = config(tmp_path)
    precious = tmp_path / "precious"
    precious.mkdir()
    os.makedirs(made.run_dir)
    made.trust_dir.symlink_to(precious)
    os.close(prepare_directories(made))
    prepare(made)
    assert Prepared.sock is not None
    Prepared.sock.close()
    if Prepared.keeper is not None:
        Prepared.keeper.close()
        Prepared.keeper = None
    assert precious.stat().st_uid == 0
