"""The policy directory: who may write it, what of it is read."""

import os
import pwd
from pathlib import Path

import pytest

from agent.broker import policy_files
from agent.broker.policy_files import load_policy
from agent.policy.errors import PolicyError

LOOP = "loops: {%s: {rules: []}}\n"


def test_every_yaml_file_counts_and_nothing_else(tmp_path: Path) -> None:
    """*.yaml and *.yml; not hidden files, not editors' leavings."""
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text(LOOP % name.partition(".")[0])
    for name in ("c.yaml~", ".d.yaml", "README"):
        (tmp_path / name).write_text("{{{ not YAML")
    assert set(load_policy([], directory=tmp_path).loops) == {"a", "b"}


@pytest.mark.parametrize(
    ("mode", "owner", "said"),
    [(0o666, 0, "chmod go-w"), (0o644, pwd.getpwnam("nobody").pw_uid, "chown root")],
)
def test_a_file_of_others_is_refused(tmp_path: Path, mode: int, owner: int, said: str) -> None:
    """One bad file refuses the whole policy."""
    (tmp_path / "a.yaml").write_text(LOOP % "a")
    (tmp_path / "b.yaml").write_text(LOOP % "b")
    (tmp_path / "b.yaml").chmod(mode)
    os.chown(tmp_path / "b.yaml", owner, -1)
    with pytest.raises(PolicyError, match=said):
        load_policy([], directory=tmp_path)


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    """Who may write the directory may replace its files."""
    tmp_path.chmod(0o777)
    with pytest.raises(PolicyError, match="chmod go-w"):
        load_policy([], directory=tmp_path)


def test_a_missing_directory_and_odd_bytes_are_named(tmp_path: Path) -> None:
    """With the path."""
    with pytest.raises(PolicyError, match=r"none:1:1: No such file"):
        load_policy([], directory=tmp_path / "none")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match=r"a.yaml:1:1: not UTF-8"):
        load_policy([], directory=tmp_path)


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit they load, one more is refused (limit lowered)."""
    monkeypatch.setattr(policy_files, "FILES_MAX", 2)
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(LOOP % name)
    load_policy([], directory=tmp_path)
    (tmp_path / "c.yaml").write_text("")
    with pytest.raises(PolicyError, match="more than 2 files"):
        load_policy([], directory=tmp_path)
