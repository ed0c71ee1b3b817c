"""The source tree, parsed once for the layout checks."""

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ("agent/pb/",)
NOT_OURS = {"build", "dist", "__pycache__"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file of Python."""

    path: str  # below the root, with forward slashes

    @cached_property
    def text(self) -> str:
        """The source."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.path)

    @property
    def lines(self) -> int:
        """How many lines."""
        return self.text.count("\n")

    def functions(self) -> Iterator[Function]:
        """Every function and method, inner ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def imports(self) -> Iterator[str]:
        """Every imported module, dotted."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(*suffixes: str) -> list[str]:
    """Return the paths of our files with one of these suffixes.

    Folders that are not ours are not looked into: other tests make and remove things there.
    """
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if _is_ours(name)]
        for name in filter(_is_ours, names):
            path = Path(folder, name)
            if path.suffix in suffixes and path.is_file():
                found.append(path.relative_to(ROOT).as_posix())
    return sorted(found)


def _is_ours(name: str) -> bool:
    return name not in NOT_OURS and (not name.startswith(".") or name == ".ci")


def modules(*folders: str) -> list[Module]:
    """Return the modules we write below these folders."""
    return [
        Module(path)
        for path in files(".py")
        if path.startswith(tuple(f"{folder}/" for folder in folders))
        and not path.startswith(GENERATED)
    ]
