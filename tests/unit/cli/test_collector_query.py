"""Queries as people see them: one line each, what they did, and nothing that steers a terminal."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from agent.cli.collector import main
from agent.cli.collector_query import (
    SHOW_CHARACTERS_MAX,
    TABLES_SHOWN_MAX,
    TAIL_CHARACTERS_MAX,
    VALUES_SHOWN_MAX,
    did,
    facts,
    one_line,
)
from agent.cli.collector_text import Paint
from agent.collector import ingest
from agent.model.audit import OperationDenied
from agent.model.sql import Effect, Relation, Statement
from agent.runtime import clock
from tests.unit.collector.chains import Chain, authority, store
from tests.unit.reporter.events import (
    DATABASE,
    answered,
    denied,
    finished,
    intended,
    queried,
    run_started,
    session_opened,
    ulid,
)

DELETE = Statement(
    "DELETE", frozenset({Effect.WRITE}), writes=(Relation("", "orders"),), unbounded=True
)
Say = Callable[..., str]


def refused() -> OperationDenied:
    """A DELETE over three lines that the policy does not allow."""
    operation = dataclasses.replace(
        queried(22, 11, DELETE).operation,
        verb="DELETE",
        resource="DELETE\n\tFROM\n  orders\x1b[31m",
    )
    return dataclasses.replace(denied(22, 11), target=DATABASE, operation=operation, status="42501")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A session with a query that failed, a refused one, a good one, and an HTTP request."""
    engine = store(tmp_path)
    chain = Chain()
    chain.add(run_started(), session_opened(11, target=DATABASE))
    chain.add(queried(21, 11), answered(21, 11, rows=0, status="22012"), refused())
    chain.add(queried(23, 11), answered(23, 11, rows=1), intended(24, 11), finished(24, 11))
    ingest.append(engine, authority(), "a", chain.batch(1, len(chain.records)), clock.unix_ms())
    yield engine
    engine.dispose()


@pytest.fixture
def say(engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """The text of a command that went well."""

    def run(*words: str) -> str:
        assert main([*words, "--state-dir", str(tmp_path)]) == 0
        return capsys.readouterr().out

    return run


def test_a_session_shows_each_query(say: Say) -> None:
    """Process, rule, rows, bytes, duration, SQLSTATE, what it touches, values and tag."""
    shown = say("sessions", "show", ulid(11))
    assert "SELECT email FROM public.orders WHERE id = $1  SQLSTATE 22012 answered\n" in shown
    assert (
        "      SELECT: read + write, reads public.orders, writes audit_log, calls app.report, "
        "every row, a function that nobody knows\n"
    ) in shown
    assert "      values: $1 = 42\n" in shown
    assert (
        "curl[4003], rule nightly/0, verdict allow, 1 row, tag SELECT 1, 0 B up, 1.0 KiB down, "
        "1.2 ms"
    ) in shown
    assert "DELETE FROM orders\\x1b[31m  denied 42501" not in shown
    assert "DELETE FROM orders\\x1b[31m  denied SQLSTATE 42501 policy-denied by" in shown
    assert "      DELETE: write, writes orders, every row\n" in shown
    assert "GET /v1/24  200 answered\n" in shown
    assert "\x1b" not in shown


def test_tail_has_one_line_for_each(say: Say) -> None:
    """Text, effects, rows, duration and outcome."""
    lines = say("sessions", "tail").splitlines()
    assert len(lines) == 4
    assert lines[0].endswith(
        "curl[4003]  orders-db SELECT email FROM public.orders WHERE id = $1  "
        "read+write+unknown  0 rows  1.2 ms  SQLSTATE 22012 answered"
    )
    assert "orders-db DELETE FROM orders\\x1b[31m  write  denied SQLSTATE 42501" in lines[1]
    assert lines[3].endswith("github GET /v1/24  200 answered")


def test_filters_by_what_queries_do(say: Say) -> None:
    """--effect, --table and --text, in list and tail; JSON has all that is known."""
    assert ulid(11)[-10:] in say("sessions", "list", "--effect", "write", "--table", "orders")
    assert say("sessions", "list", "--effect", "ddl") == ""
    assert len(say("sessions", "tail", "--text", "delete").splitlines()) == 1
    assert len(say("sessions", "tail", "--table", "audit_log").splitlines()) == 2
    [row] = map(json.loads, say("sessions", "tail", "--json", "--text", "delete").splitlines())
    assert row["statements"][0]["writes"] == [{"schema": "", "name": "orders"}]
    assert (row["effects"], row["resource"][:6]) == (",write,", "DELETE")
    [session] = map(json.loads, say("sessions", "show", "--json", ulid(11)).splitlines())
    assert session["operations_list"][0]["result"][0] == ["command_tag", "SELECT 0"]
    with pytest.raises(SystemExit):
        say("sessions", "list", "--effect", "reed")


@pytest.mark.parametrize("most", [TAIL_CHARACTERS_MAX, SHOW_CHARACTERS_MAX])
def test_a_text_is_one_line_up_to_its_bound(most: int) -> None:
    """At the bound whole; past it cut with an ellipsis, also where blanks were many."""
    assert one_line("x" * most, most) == "x" * most
    assert one_line("x" * (most + 1), most) == "x" * (most - 1) + "…"
    assert one_line(" a\n\n  b ", most) == "a b"
    assert one_line("a" + " " * 3 * most + "b", most).endswith("…")


def test_colours_are_for_terminals_and_danger() -> None:
    """A read has none, a write is yellow, all that is worse is red."""
    row = {"effects": ",read,write,ddl,", "outcome": "denied"}
    assert did(row, Paint(enabled=False)) == "read+write+ddl"
    assert did(row, Paint(enabled=True)) == "read+\x1b[33mwrite\x1b[0m+\x1b[31mddl\x1b[0m"


def test_long_lists_are_counted() -> None:
    """Tables and values past what is shown are a number."""
    empty = {"writes": [], "calls": [], "unbounded": False, "why": ""}
    tables = [{"schema": "", "name": f"t{number}"} for number in range(TABLES_SHOWN_MAX + 2)]
    values = [[f"${number}", "x" * 200] for number in range(VALUES_SHOWN_MAX + 3)]
    statement = {"kind": "SELECT", "effects": ["read"], "reads": tables, **empty}
    lines = facts({"statements": [statement, statement], "attributes": [*values, ["a", "b"]]})
    assert lines[0].startswith("1. SELECT: read, reads t0, t1")
    assert lines[0].endswith("t7 and 2 more")
    assert lines[2].endswith("… 3 more")
    assert "a = b" not in lines[2]
    null = facts({"statements": [statement], "attributes": [["$1 is null", ""], ["$2", ""]]})
    assert null[1] == "values: $1 is null, $2 = "
