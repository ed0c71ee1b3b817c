"""The shape of the tree: small modules, mirrored tests, honest names, a reason by each part."""

import ast
import re
import statistics
import tomllib

import pytest

from tests.checks.tree import ROOT, Function, files, modules

MEDIAN_LINES_MAX = 180
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
BANNED_WORDS = {"utils", "util", "helpers", "helper", "manager", "handler", "misc", "common"}
AGENT = modules("agent")
EVERY = modules("agent", "tests")


def test_modules_are_small() -> None:
    """The median module is below 180 lines and none is above 500."""
    big = [f"{module.path}: {module.lines}" for module in EVERY if module.lines > MODULE_LINES_MAX]
    assert not big
    assert (
        statistics.median(module.lines for module in AGENT if module.lines > 1) < MEDIAN_LINES_MAX
    )


def test_functions_are_small() -> None:
    """No function has more than 60 lines."""
    long = [
        f"{module.path}:{node.lineno} {node.name}: {_length(node)}"
        for module in EVERY
        for node in module.functions()
        if _length(node) > FUNCTION_LINES_MAX
    ]
    assert not long


def _length(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_names_say_what_a_thing_is() -> None:
    """No module, class or function is a util, helper, manager or handler."""
    bad = []
    for module in EVERY:
        names = [module.path.rpartition("/")[2].removesuffix(".py")]
        names += [
            node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef | Function)
        ]
        bad += [
            f"{module.path}: {name}"
            for name in names
            if BANNED_WORDS & set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
        ]
    assert not bad


def test_unit_tests_mirror_the_code() -> None:
    """Each tests/unit/a/test_b.py (or test_b_more.py) belongs to a module agent/a/b.py."""
    orphans = []
    for path in files(".py"):
        if not path.startswith("tests/unit/") or not path.rpartition("/")[2].startswith("test_"):
            continue
        folder, _, name = path.removeprefix("tests/unit/").rpartition("/")
        stem = name.removeprefix("test_").removesuffix(".py")
        words = stem.split("_")
        candidates = ["_".join(words[: end + 1]) for end in range(len(words))]
        package = ROOT / "agent" / folder
        if not any(
            (package / f"{stem}.py").exists() or (package / stem).is_dir() for stem in candidates
        ):
            orphans.append(path)
    assert not orphans


def test_nothing_is_mocked() -> None:
    """unittest.mock is imported nowhere: fakes pass the suites the real ones pass."""
    mocked = [
        module.path
        for module in EVERY
        if any(name.startswith(("unittest.mock", "mock")) for name in module.imports())
    ]
    assert not mocked


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    """No skip, skipif, importorskip or xfail anywhere."""
    word = re.compile(r"pytest\.(skip|importorskip|xfail)\b|mark\.(skip|skipif|xfail)\b")
    assert not [module.path for module in modules("tests") if word.search(module.text)]


@pytest.mark.parametrize("folder", ["agent", "tests"])
def test_modules_say_what_they_are(folder: str) -> None:
    """Every module has a docstring."""
    silent = [
        module.path
        for module in modules(folder)
        if module.text.strip() and not ast.get_docstring(module.tree)
    ]
    assert not silent


def test_tests_state_their_claim() -> None:
    """Every test function has a docstring, which is its claim."""
    silent = [
        f"{module.path}:{node.lineno} {node.name}"
        for module in modules("tests")
        for node in module.tree.body
        if isinstance(node, Function)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_dependencies_have_a_reason() -> None:
    """Every dependency in pyproject.toml has a comment that says why it is there."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    silent = [
        name
        for name in wanted
        if not re.search(rf'^\s*.*"{re.escape(name)}".*#\s*\S+', text, re.MULTILINE)
    ]
    assert not silent


def test_exceptions_to_the_linters_have_a_reason() -> None:
    """Each `noqa` and `type: ignore` of the product says why, behind it or just above."""
    mark = re.compile(r"#\s*(?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z,-]+\])\s*(\S.*)?$")
    silent = []
    for module in AGENT:
        lines = module.text.splitlines()
        for number, line in enumerate(lines):
            found = mark.search(line)
            above = lines[max(0, number - 6) : number]
            if found and not found[1] and not any(one.lstrip().startswith("#") for one in above):
                silent.append(f"{module.path}:{number + 1}")
    assert not silent


def test_references_lead_somewhere() -> None:
    """No comment refers to a page or an issue that is not in the tree."""
    away = re.compile(r"\bdesign\.md\b|\bissue [0-9]+\b|\blater issue\b")
    bad = [
        f"{path}: {match[0]}"
        for path in files(".py", ".md", ".toml", ".c", ".h", ".proto", ".service")
        if not path.endswith("checks/test_layout.py")
        for match in away.finditer((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not bad


def test_nothing_names_a_developers_machine() -> None:
    """No path of a development machine and no registry host is committed."""
    banned = re.compile(r"(?<![\w.])/(?:work|farm)/|\bpypi\.org|deb\.debian\.org|registry\.npmjs")
    bad = []
    for path in files(
        ".py", ".md", ".toml", ".yaml", ".c", ".h", ".proto", ".service", ".slice", ".conf", ""
    ):
        if path.endswith("checks/test_layout.py"):
            continue
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        bad += [f"{path}: {match[0]}" for match in banned.finditer(text)]
    assert not bad
