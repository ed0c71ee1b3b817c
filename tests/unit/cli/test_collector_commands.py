"""What people ask by the command line: every filter, every table, and hosts that lie."""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update

from agent.cli import collector_ask
from agent.cli.collector import main
from agent.cli.collector_time import parse_moment_ms
from agent.collector import ingest, query, schema
from agent.collector.projection import TEXT_CHARACTERS_MAX, bounded
from agent.collector.query import Filter
from agent.collector.store import FILE_NAME
from agent.model.audit import LeaseChanged, OperationFinished, SessionRefused
from agent.model.flow import Unattributed
from agent.model.ids import LeaseId, OperationId, RunId, SessionId
from agent.model.lease import LeaseState
from agent.model.reason import Reason
from agent.runtime import clock
from tests.unit.collector.chains import NOW_MS, Chain, authority, store
from tests.unit.reporter.events import (
    TARGET,
    denied,
    finished,
    intended,
    run_started,
    session_closed,
    session_opened,
    ulid,
)

ESCAPE = "\x1b]0;owned\x07\x9b31m\u202e"
Ask = Callable[..., list[dict[str, Any]]]


def at(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).isoformat()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Host a: run 1 with a call, a denial and a refused flow; host b: run 2, still open."""
    engine = store(tmp_path, ("a", "b"))
    first, second = Chain(), Chain()
    first.add(run_started(1), session_opened(11, 1), at_ms=NOW_MS)
    first.add(intended(21, 11, 1), finished(21, 11), at_ms=NOW_MS + 1_000)
    first.add(denied(22, 11, 1), session_closed(11, 2), at_ms=NOW_MS + 2_000)
    first.add(
        LeaseChanged(LeaseId(ulid(900)), RunId(ulid(1)), TARGET, "static", LeaseState.ISSUED),
        SessionRefused(Unattributed(SessionId(ulid(13)), "nobody's"), Reason.UNATTRIBUTED),
        at_ms=NOW_MS + 3_000,
    )
    second.add(run_started(2), session_opened(12, 2), at_ms=NOW_MS + 4_000)
    second.add(intended(23, 12, 2), finished(23, 12), at_ms=NOW_MS + 5_000)
    for host, chain in (("a", first), ("b", second)):
        ingest.append(
            engine, authority(), host, chain.batch(1, len(chain.records)), clock.unix_ms()
        )
    yield engine
    engine.dispose()


@pytest.fixture
def ask(engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*words: str) -> list[dict[str, Any]]:
        assert main([*words, "--json", "--state-dir", str(tmp_path)]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


FILTERS = [
    ((), [12, 13, 11], [21, 22, 13, 23]),
    (("--loop", "nightly"), [12, 11], [21, 22, 23]),
    (("--loop", "x' OR '1'='1"), [], []),
    (("--run", ulid(2)), [12], [23]),
    (("--run", ulid(1)[-4:]), [11], [21, 22]),
    (("--run", "%"), [], []),
    (("--run", "_" * 26), [], []),
    (("--host", "host-b"), [12], [23]),
    (("--host", "host-%"), [], []),
    (("--target", TARGET), [12, 11], [21, 22, 23]),
    (("--target", "other"), [], []),
    (("--verdict", "deny"), [13, 11], [22, 13]),
    (("--verdict", "allow"), [12, 11], [21, 23]),
    (("--since", at(NOW_MS + 4_000)), [12], [23]),
    (("--until", at(NOW_MS + 2_000)), [11], [21]),
]


@pytest.mark.parametrize(("words", "sessions", "lines"), FILTERS)
def test_list_and_tail_select(
    ask: Ask, words: tuple[str, ...], sessions: list[int], lines: list[int]
) -> None:
    """Every filter selects in `sessions list` and in `sessions tail`; none is a pattern or SQL."""
    listed = [row["session_id"] for row in ask("sessions", "list", *words)]
    assert listed == [ulid(number) for number in sessions]
    told = [row.get("operation_id", row["session_id"]) for row in ask("sessions", "tail", *words)]
    assert told == [ulid(number) for number in lines]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), [("session", 2), ("lease", 1)]),
        (("--loop", "nightly", "--host", "host-b"), [("session", 2)]),
        (("--run", ulid(1)), [("lease", 1)]),
        (("--loop", "other"), []),
    ],
)
def test_who_selects(ask: Ask, words: tuple[str, ...], expected: list[tuple[str, int]]) -> None:
    """`who` takes loop, run and host, and says by what the access was."""
    rows = ask("who", "--target", TARGET, "--at", at(NOW_MS + 4_500), *words)
    assert [(row["via"], row["run_id"]) for row in rows] == [
        (via, ulid(run)) for via, run in expected
    ]


def test_a_silent_host_is_marked(
    ask: Ask, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen within three heartbeats it is not silent; a little longer ago it is, also for people."""
    wanted = {"host-a": False, "host-b": True}
    now_ms = clock.unix_ms()
    _seen(engine, a=now_ms - query.SILENT_AFTER_MS, b=now_ms - query.SILENT_AFTER_MS - 1)
    with engine.connect() as connection:
        rows = query.hosts(connection, now_ms)
    assert {row["name"]: row["silent"] for row in rows} == wanted
    _seen(engine, a=now_ms, b=now_ms - 10 * query.SILENT_AFTER_MS)
    assert {row["name"]: row["silent"] for row in ask("hosts")} == wanted
    main(["hosts", "--state-dir", str(tmp_path)])
    shown = capsys.readouterr().out.splitlines()
    assert [" silent" in line for line in shown] == [False, False, True]


def _seen(engine: Engine, **when_ms: int) -> None:
    table = schema.hosts
    with engine.begin() as connection:
        for host, seen_ms in when_ms.items():
            change = update(table).where(table.c.host_id == host).values(seen_ms=seen_ms)
            connection.execute(change)


def test_the_store_is_its_owners_only(engine: Engine, tmp_path: Path) -> None:
    """The database and what SQLite makes beside it have mode 0600, whatever the umask."""
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.glob(FILE_NAME + "*")}
    assert modes == {0o600}


def test_what_a_host_says_can_not_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escapes in every text of a record, and a time that is none: all tables print, and clean."""
    engine = store(tmp_path, ("a", "b"))
    opened = session_opened(11, 1)
    process = dataclasses.replace(
        opened.attribution.process, exe="/x/" + ESCAPE, argv=(ESCAPE,) * 40, comm=ESCAPE
    )
    attribution = dataclasses.replace(
        opened.attribution, process=process, ancestors=(process,) * 20
    )
    call = intended(21, 11, 1)
    operation = dataclasses.replace(call.operation, verb=ESCAPE, resource=ESCAPE)
    end = finished(21, 11)
    assert isinstance(end, OperationFinished)
    end = dataclasses.replace(end, status=ESCAPE, upstream=ESCAPE)
    refusal = dataclasses.replace(denied(22, 11, 1), status=ESCAPE, explanation=ESCAPE)
    chain = Chain()
    chain.add(
        run_started(1, user=ESCAPE),
        dataclasses.replace(opened, attribution=attribution),
        dataclasses.replace(call, operation=operation),
        end,
        refusal,
        dataclasses.replace(session_closed(11, 2), reason=ESCAPE),  # type: ignore[arg-type]
        at_ms=(1 << 63) - 1,
    )
    ingest.append(engine, authority(), "a", chain.batch(1, len(chain.records)), NOW_MS)
    for words in (
        ("sessions", "list"),
        ("sessions", "show", ulid(11)),
        ("sessions", "tail"),
        ("runs",),
        ("who", "--target", TARGET),
        ("hosts",),
    ):
        for more in ((), ("--json",)):
            assert main([*words, *more, "--state-dir", str(tmp_path)]) == 0
            out = capsys.readouterr().out
            assert all(line.isprintable() for line in out.splitlines()), words
    engine.dispose()


def test_long_texts_keep_head_hash_and_tail(tmp_path: Path) -> None:
    """At the limit whole, one past it cut to the limit; JSON stays JSON; two long ones differ."""
    at_limit = "a" * TEXT_CHARACTERS_MAX
    assert bounded(at_limit) == at_limit
    cut, other = bounded(at_limit + "b"), bounded("a" * TEXT_CHARACTERS_MAX + "ab")
    assert len(cut) == TEXT_CHARACTERS_MAX
    assert (cut[:5], cut[-2:]) == ("aaaaa", "ab")
    assert cut != other
    engine = store(tmp_path)
    opened = session_opened(11, 1)
    process = dataclasses.replace(opened.attribution.process, argv=("x" * 9_000,) * 3)
    attribution = dataclasses.replace(opened.attribution, process=process, ancestors=(process,) * 3)
    chain = Chain()
    chain.add(dataclasses.replace(opened, attribution=attribution))
    ingest.append(engine, authority(), "a", chain.batch(1, 1), NOW_MS)
    with engine.connect() as connection:
        (row,) = query.sessions(connection, Filter())
    assert [len(one) for one in row["process"]["argv"]] == [TEXT_CHARACTERS_MAX] * 3
    engine.dispose()


def test_an_intent_that_was_refused_late_is_denied(tmp_path: Path) -> None:
    """Intended, then denied under the same id (it waited for space): one operation, ended."""
    engine = store(tmp_path)
    chain = Chain()
    call = intended(21, 11, 1)
    late = denied(99, 11, 1)
    operation = dataclasses.replace(late.operation, operation_id=OperationId(ulid(21)))
    chain.add(session_opened(11, 1), call, dataclasses.replace(late, operation=operation))
    ingest.append(engine, authority(), "a", chain.batch(1, 3), NOW_MS)
    with engine.connect() as connection:
        (one,) = query.session(connection, ulid(11))["operations_list"]
    assert (one["outcome"], one["status"]) == ("denied", "403")
    engine.dispose()


def test_news_over_the_limit_come_with_the_next_call(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more rows than ROWS_MAX nothing is skipped: each comes once, in order."""
    monkeypatch.setattr(query, "ROWS_MAX", 1)
    after, told = {"a": 0}, []
    with engine.connect() as connection:
        while rows := query.news(connection, after, Filter()):
            after["a"] = max(row["last_seq"] for row in rows)
            told += [row.get("operation_id", row["session_id"]) for row in rows]
    assert told == [ulid(21), ulid(22), ulid(13)]


def test_a_store_that_was_set_back_is_followed_from_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`tail -f` says so, and goes on; a new host is told from its first record."""
    assert collector_ask._behind({"a": 3, "n": 9}, {"a": 7}) == {"a": 3, "n": 0}
    assert "set back" in capsys.readouterr().err
    assert collector_ask._behind({"a": 8}, {"a": 7}) == {"a": 7}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text", ["", "0001-01-01", "9999-12-31T23:59:59-23:59", "1e9", "5m;", "\u0661m"]
)
def test_a_time_that_is_none_is_an_error_of_use(text: str) -> None:
    """ValueError, and nothing else, for what can't be a time here."""
    try:
        assert isinstance(parse_moment_ms(text, NOW_MS), int)
    except ValueError:
        return


def test_a_ca_that_can_not_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, and what is wrong with it; 3."""
    (tmp_path / "ca.pem").mkdir()
    words = ["token", "create", "--host", "h", "--state-dir", str(tmp_path)]
    assert main(words) == 3
    said = capsys.readouterr().err
    assert said == f"loopwarden-collector: {tmp_path / 'ca.pem'}: Is a directory\n"
