"""`policy check` and `policy explain`, offline."""

import json
from pathlib import Path

import pytest

from agent.cli.loopwarden import main as loopwarden
from tests.unit.policy.samples import GOOD


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A policy directory with one good file."""
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def test_check_says_ok_or_every_problem(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By directory and by file; 1 with file, line and column."""
    assert loopwarden(["policy", "check", "--dir", str(directory)]) == 0
    assert "ok: 1 loop, 2 targets" in capsys.readouterr().out
    bad = directory / "bad.yaml"
    bad.write_text("loops: {x: {rulez: []}}\n")
    assert loopwarden(["policy", "check", str(bad)]) == 1
    assert f"{bad}:1:13: unknown key of loop 'x' 'rulez'" in capsys.readouterr().err
    assert loopwarden(["policy", "check", "--dir", str(directory)]) == 1


@pytest.mark.parametrize(
    ("method", "url", "code", "said"),
    [
        ("GET", "https://api.example.com/v1/x?q=1", 0, "allowed by rule nightly/0, at target api"),
        ("GET", "http://API.example.com/v1/x", 0, "allowed by rule nightly/0"),
        ("POST", "https://api.example.com/v1/x", 1, "no rule of loop nightly allows POST /v1/x"),
        ("GET", "https://api.example.com/v1/secret/x", 1, "rule nightly/1 denies"),
        ("GET", "https://api.example.com/v1/%7ex", 0, "allowed by rule nightly/0"),
        ("GET", "https://api.example.com/v1/a[0]", 1, "such a request is answered 400"),
        ("GET", "https://api.example.com/v1/x/../y", 1, "the path has a dot segment"),
        ("GET", "https://api.example.com/v1/a%2fb", 1, "have to write %2F"),
        ("GET", "https://api.example.com", 1, "no rule of loop nightly allows GET /"),
        ("GET", "http://10.0.0.9:8080/x", 1, "matches nightly/2: allow, mode shadow"),
        ("GET", "https://other.example/", 1, "other.example:443 is the address of no target"),
        ("GET", "https://api.example.com:8443/", 1, "is the address of no target"),
        ("GET", "ftp://api.example.com/", 1, "begins with https://"),
        ("GET", "https://api.example.com:x/", 1, "denied"),
    ],
)
def test_explain_tells_verdict_and_rules(
    directory: Path, capsys: pytest.CaptureFixture[str], method: str, url: str, code: int, said: str
) -> None:
    """The proxy's own evaluator on the proxy's own reading of the URL."""
    words = ["policy", "explain", "--dir", str(directory), "--loop", "nightly", method, url]
    assert loopwarden(words) == code
    assert said in capsys.readouterr().out


def test_explain_of_an_unknown_loop(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, and its name."""
    words = ["policy", "explain", "--dir", str(directory), "--loop", "x", "GET", "https://a/"]
    assert loopwarden(words) == 1
    assert "no loop 'x' (it has: nightly)" in capsys.readouterr().err
    assert loopwarden([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "deny"


def test_explain_without_a_policy(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not allowed, with what is wrong; a program gets a document in this case, too."""
    (directory / "bad.yaml").write_text("loops: {x: {rulez: []}}\n")
    words = ["policy", "explain", "--dir", str(directory), "--loop", "nightly"]
    assert loopwarden([*words, "GET", "https://api.example.com/v1/x"]) == 1
    assert "unknown key of loop 'x' 'rulez'" in capsys.readouterr().err
    assert loopwarden([*words, "--json", "GET", "https://api.example.com/v1/x"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "deny"
    [first, *_] = document["problems"]
    assert (first["line"], first["column"]) == (1, 13)


def test_check_for_programs(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document, on stdout: what is there, or each problem with its place; the same status."""
    assert loopwarden(["policy", "check", "--json", "--dir", str(directory)]) == 0
    good = json.loads(capsys.readouterr().out)
    assert (good["ok"], good["loops"], good["targets"], good["problems"]) == (True, 1, 2, [])
    (directory / "bad.yaml").write_text("loops: {x: {rulez: []}}\n")
    assert loopwarden(["policy", "check", "--json", "--dir", str(directory)]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["ok"], said.err) == (False, "")
    first = found["problems"][0]
    assert (first["source"], first["line"]) == (str(directory / "bad.yaml"), 1)
    assert first["column"] == 13
    assert "did you mean 'rules'" in first["text"]
