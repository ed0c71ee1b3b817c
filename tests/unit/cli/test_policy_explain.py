"""`policy explain --target`: what a text does and what the rules say of it, offline."""

import io
import json
from pathlib import Path

import pytest

from agent.cli.loopwarden import main as loopwarden
from agent.cli.policy_explain import TEXT_BYTES_MAX

POLICY = """
targets:
  db: {protocol: postgres, address: db.example, functions: {app.report: read}}
  other: {protocol: postgres, address: other.example}
  api: {protocol: http, address: https://api.example.com}
loops:
  nightly:
    rules:
      - {target: db, allow: {effects: [read], max_rows: 500}}
      - {target: db, deny: {tables: [refunds]}, mode: shadow}
      - {target: db, deny: {columns: [email]}}
      - {target: api, allow: {method: GET}}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A policy directory with one file."""
    (tmp_path / "db.yaml").write_text(POLICY)
    return tmp_path


def ask(directory: Path, *words: str) -> int:
    """Explain for loop nightly."""
    return loopwarden(["policy", "explain", "--dir", str(directory), "--loop", "nightly", *words])


def test_each_statement_is_explained(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its kind, effects, names, verdict and the rules that match; then the verdict of the whole."""
    text = "BEGIN; SELECT id, app.report(id) FROM public.refunds WHERE id = 1"
    assert ask(directory, "--target", "db", text) == 0
    said = capsys.readouterr().out
    assert "statement 1 of 2: BEGIN\n  effects         session\n" in said
    assert "statement 2 of 2: SELECT\n  effects         read\n" in said
    assert "  reads           public.refunds\n" in said
    assert "  calls           app.report (unknown)\n" in said
    assert "  matches nightly/0: allow, mode enforce\n" in said
    assert "  matches nightly/1: deny, mode shadow\n" in said
    assert "allowed by rule nightly/0, at target db, at most 500 rows a result\n" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DROP TABLE orders", "it touches column *"),
        ("DELETE FROM orders", "Add a WHERE condition."),
        ("SELECT email FROM users", "denied (nightly/2): rule nightly/2 denies the statement"),
        ("SELECT * FROM users", "denied (nightly/2)"),
        ("SELEC 1", "not parsed"),
        ("WITH x AS (DELETE FROM a WHERE b RETURNING c) SELECT c FROM x", "effects: [read, write]"),
    ],
)
def test_a_refusal_says_why_and_what_next(
    directory: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    """1, with the words that the loop would get."""
    assert ask(directory, "--target", "db", text) == 1
    assert said in capsys.readouterr().out


def test_json_has_all(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document: the verdict, and each statement with its facts and rules."""
    assert ask(directory, "--target", "db", "--json", "SELECT 1; DELETE FROM a") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["rule"]) == ("deny", "default-deny")
    first, second = document["statements"]
    assert first["verdict"] == "allow"
    assert first["matched"] == [{"rule": "nightly/0", "effect": "allow", "mode": "enforce"}]
    assert (second["kind"], second["effects"], second["unbounded"]) == ("DELETE", ["write"], True)
    assert second["writes"] == [{"schema": "", "name": "a"}]
    assert ask(directory, "--json", "GET", "https://api.example.com/x") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["target"]) == ("allow", "api")
    assert "statements" not in document


def test_a_text_may_come_from_stdin(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `-`, up to 1 MiB of UTF-8."""
    for data, code, said in (
        (b"SELECT 1", 0, "allowed by rule nightly/0"),
        (b"\xff", 1, "not UTF-8"),
        (b" " * (TEXT_BYTES_MAX - 8) + b"SELECT 1", 0, "allowed by rule nightly/0"),
        (b"-" * (TEXT_BYTES_MAX + 1), 1, "more than 1048576 bytes"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        assert ask(directory, "--target", "db", "-") == code
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "db", "SELECT", "1"], "as one word, in quotes"),
        (["--target", "other", "SELECT 1"], "no rule of loop nightly names target other"),
        (["--target", "none", "SELECT 1"], "the policy has no target 'none'"),
        (["--target", "api", "SELECT 1"], "target api speaks http: ask with METHOD URL"),
        (["SELECT 1"], "write METHOD URL, or --target"),
    ],
)
def test_a_question_that_makes_no_sense(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """1, with the right form; as JSON too."""
    assert ask(directory, *words) == 1
    assert said in capsys.readouterr().out
    assert ask(directory, "--json", *words) == 1
    assert said in json.loads(capsys.readouterr().out)["explanation"]


def test_a_text_that_breaks_the_parser_is_unknown(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It costs a process, not the command."""
    assert ask(directory, "--target", "db", "SELECT " + "(" * 200_000) == 1
    assert "effects         unknown" in capsys.readouterr().out
