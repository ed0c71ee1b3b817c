"""The source tree, parsed once for the layout checks."""

import ast
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
    """Return the paths of our files with one of these suffixes."""
    found = []
    for path in ROOT.rglob("*"):
        relative = path.relative_to(ROOT)
        hidden = any(part.startswith(".") and part != ".ci" for part in relative.parts)
        if hidden or NOT_OURS & set(relative.parts):
            continue
        if path.suffix in suffixes and path.is_file():
            found.append(relative.as_posix())
    return sorted(found)


def modules(*folders: str) -> list[Module]:
    """Return the modules we write below these folders."""
    return [
        Module(path)
        for path in files(".py")
        if path.startswith(tuple(f"{folder}/" for folder in folders))
        and not path.startswith(GENERATED)
    ]
