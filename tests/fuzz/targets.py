"""Finds the fuzz targets: every module of this folder with SEEDS and check."""

from pathlib import Path

NO_TARGETS = {"__init__", "__main__", "engine", "targets"}


def names() -> list[str]:
    """Return the targets' names."""
    modules = {path.stem for path in Path(__file__).parent.glob("*.py")}
    return sorted(name for name in modules - NO_TARGETS if not name.startswith("test_"))
