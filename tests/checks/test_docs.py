"""What the documents say is there: files, goals, commands, options, and a policy that is one."""

import contextlib
import io
import re
import textwrap
from functools import cache
from pathlib import Path

import pytest

from agent.broker.policy_files import load_policy
from agent.cli.collector import main as collector
from agent.cli.loopwarden import main as loopwarden
from tests.checks.tree import ROOT, files
from tests.servers.certificates import Authority

DOCUMENTS = [path for path in files(".md") if not path.startswith("build/")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = {"loopwarden": loopwarden, "loopwarden-collector": collector}
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
HTTP = "protocol: http\n    address: https://api.example.com"
POSTGRES = "protocol: postgres\n    address: orders.internal\n    database: orders"
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
    """Every command in a document is known to its program, with the options it is shown with."""
    shown = {
        (program, tuple(words.split()), tuple(options.split()))
        for document in DOCUMENTS
        for code in re.findall(
            r"`([^`\n]+)`|^(?:sudo )?(loopwarden.*)$", _text(document), re.MULTILINE
        )
        for program, words, options in COMMAND.findall("".join(code))
    }
    assert len(shown) > len(PROGRAMS)
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
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        try:
            PROGRAMS[program]([*words, "--help"])
        except SystemExit as ended:
            return "" if ended.code else said.getvalue()
    raise AssertionError("--help ends a program")


def test_every_command_is_documented() -> None:
    """README's table has every command that --help lists."""
    missing = [
        f"{program} {name}"
        for program in PROGRAMS
        for name in re.findall(r"^    ([a-z]+)\s", _help(program, ()), re.MULTILINE)
        if f"`{program} {name}" not in README
    ]
    assert not missing


def test_policies_in_readme_are_one_policy(tmp_path: Path) -> None:
    """Tried one after the other, each in a file of its own, they load without a warning."""
    found = YAML.findall(README)
    assert len(found) == 3
    names = [re.match(r"# /etc/loopwarden/policy\.d/([a-z]+\.yaml)\n", text) for text in found]
    for name, text in zip(names, found, strict=True):
        assert name
        (tmp_path / name[1]).write_text(text, encoding="utf-8")
    policy = load_policy([], directory=tmp_path)
    assert (len(policy.loops), policy.warnings) == (3, ())


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if "```yaml" in (ROOT / path).read_text(encoding="utf-8")]
    + ["systemd/etc/policy.d/demo.yaml.example"],
)
def test_policies_in_documents_are_policies(document: str, tmp_path: Path) -> None:
    """Every example compiles without a warning; a credential alone does as part of a target."""
    ca = tmp_path / "ca.pem"
    ca.write_text(Authority("example").pem, encoding="ascii")
    examples = YAML.findall(_text(document)) if document.endswith(".md") else [_text(document)]
    examples = [text for text in examples if not text.startswith("kind:")]  # Kubernetes' own
    assert examples
    for number, text in enumerate(examples):
        whole = _in_a_target(text) if text.startswith("credential:") else text
        path = tmp_path / f"example-{number}.yaml"
        path.write_text(re.sub(r"\bca: /\S+", f"ca: {ca}", whole), encoding="utf-8")
        assert not load_policy([path]).warnings


def _in_a_target(credential: str) -> str:
    target = HTTP if "shape: " in credential else POSTGRES
    return f"targets:\n  one:\n    {target}\n{textwrap.indent(credential, '    ')}"


def _text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


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
