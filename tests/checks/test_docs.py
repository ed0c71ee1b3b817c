"""What the documents say is there: files, goals, commands, options, and a policy that is one."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from agent.broker.policy_files import load_policy
from tests.checks.tree import ROOT, files

DOCUMENTS = [path for path in files(".md") if not path.startswith("build/")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = {"loopwarden": "agent.cli.loopwarden", "loopwarden-collector": "agent.cli.collector"}
COMMAND = re.compile(r"\b(loopwarden(?:-collector)?)((?: [a-z]+)+)((?: --[a-z-]+)*)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Every relative link is a file or folder of the tree."""
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    broken = [
        link for link in links if not (ROOT / document).parent.joinpath(link.split("#")[0]).exists()
    ]
    assert not broken


def test_goals_exist() -> None:
    """Every `make GOAL` that the documents name is one."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    goals = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named: set[str] = set()
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for code in re.findall(r"`[^`]+`|```.*?```", text, re.DOTALL):
            named |= set(re.findall(r"\bmake ([a-z-]+)", code))
    assert named
    assert named <= goals


def test_commands_exist() -> None:
    """Every command in README is known to its program, with the options that it is shown with."""
    shown = {
        (program, tuple(words.split()), tuple(options.split()))
        for code in re.findall(r"`([^`\n]+)`|^(?:sudo )?(loopwarden.*)$", README, re.MULTILINE)
        for program, words, options in COMMAND.findall("".join(code))
    }
    assert len(shown) > len(MODULES)
    unknown = [
        (program, *words, option)
        for program, words, options in shown
        for option in ("", *options)
        if option not in _help(program, words)
    ]
    assert not unknown


@cache
def _help(program: str, words: tuple[str, ...]) -> str:
    """Return what --help says of a command, "" if there is none of this name."""
    done = subprocess.run(
        [sys.executable, "-m", MODULES[program], *words, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""


def test_every_command_is_documented() -> None:
    """README's table has every command that --help lists."""
    missing = [
        f"{program} {name}"
        for program in MODULES
        for name in re.findall(r"^    ([a-z]+)\s", _help(program, ()), re.MULTILINE)
        if f"`{program} {name}" not in README
    ]
    assert not missing


def test_policies_in_documents_are_policies(tmp_path: Path) -> None:
    """README's first policy and the installed example compile without a warning."""
    examples = [*re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    examples.append((ROOT / "systemd/etc/policy.d/demo.yaml.example").read_text(encoding="utf-8"))
    for number, text in enumerate(examples):
        path = tmp_path / f"example-{number}.yaml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        assert not load_policy([path]).warnings


def test_modules_named_in_the_architecture_exist() -> None:
    """Every module that agent/README.md names is in the tree."""
    text = (ROOT / "agent/README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:agent/|bpf/)?[a-z0-9_]+(?:/[a-z0-9_]+)*(?:\.bpf\.c|\.py|/))`", text)
    missing = [
        name
        for name in named
        if not (ROOT / name).exists()
        and not (ROOT / "agent" / name).exists()
        and not (ROOT / "tests" / name.removeprefix("tests/")).exists()
    ]
    assert named
    assert not missing
