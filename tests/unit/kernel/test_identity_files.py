"""A host's identity that is replaced is noticed once, and whole."""

import os
from pathlib import Path

from agent.kernel.identity_files import NAMES, IdentityFiles


def written(folder: Path, text: str) -> None:
    """Replace all three files."""
    for name in NAMES:
        (folder / f"{name}.new").write_text(text)
        os.rename(folder / f"{name}.new", folder / name)


def test_a_replacement_is_noticed_once_when_it_is_over(tmp_path: Path) -> None:
    """Not while files go on changing or one is away, and not again."""
    written(tmp_path, "first")
    files = IdentityFiles(str(tmp_path))
    assert not files.changed()
    assert not files.changed()
    (tmp_path / "cert.pem").unlink()
    assert [files.changed() for _ in range(3)] == [False] * 3
    written(tmp_path, "second")
    assert not files.changed()  # it may go on
    written(tmp_path, "third")
    assert [files.changed() for _ in range(4)] == [False, True, False, False]


def test_without_a_collector_there_is_nothing_to_look_at() -> None:
    """No directory is configured."""
    files = IdentityFiles("")
    assert not files.changed()
    assert not files.changed()
