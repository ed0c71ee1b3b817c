"""What can be asked, and that a host's rows are its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, update

from agent.collector import ingest, query, schema
from agent.collector.query import Filter, NotFound
from agent.collector.store import StoreError, open_for_reading, open_store, store_url
from agent.model.audit import (
    Alarm,
    Alarmed,
    AuditEvent,
    LeaseChanged,
    Outcome,
    RunEnded,
    SessionRefused,
)
from agent.model.flow import Unattributed
from agent.model.ids import LeaseId, RunId, SessionId
from agent.model.lease import LeaseState
from agent.model.reason import Reason
from tests.unit.collector.chains import NOW_MS, Chain, authority, store
from tests.unit.reporter.events import (
    BEARER,
    TARGET,
    denied,
    finished,
    intended,
    run_started,
    session_closed,
    session_opened,
    ulid,
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = store(tmp_path, ("a", "b"))
    chain = Chain()
    chain.add(run_started(), session_opened(11), at_ms=NOW_MS)
    chain.add(intended(21, 11), finished(21, 11), at_ms=NOW_MS + 1_000)
    chain.add(denied(22, 11), session_closed(11, 2), at_ms=NOW_MS + 2_000)
    chain.add(session_opened(12), intended(23, 12), at_ms=NOW_MS + 3_000)
    chain.add(lease(LeaseState.ISSUED), at_ms=NOW_MS + 4_000)
    chain.add(lease(LeaseState.REVOKED), at_ms=NOW_MS + 5_000)
    unattributed = Unattributed(SessionId(ulid(13)), "no record of this flow")
    chain.add(SessionRefused(unattributed, Reason.UNATTRIBUTED), at_ms=NOW_MS + 6_000)
    chain.add(Alarmed(Alarm.ROLE_DIED, "proxy@0", None), at_ms=NOW_MS + 6_000)
    send(engine, "a", chain)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def lease(state: LeaseState) -> LeaseChanged:
    return LeaseChanged(LeaseId(ulid(900)), RunId(ulid(1)), TARGET, "static", state)


def send(engine: Engine, host: str, chain: Chain) -> None:
    ingest.append(engine, authority(), host, chain.batch(1, len(chain.records)), NOW_MS)


def ids(rows: list[query.Row]) -> list[str]:
    return [row["session_id"] for row in rows]


def test_sessions_are_listed_newest_first_with_their_counts(connection: Connection) -> None:
    """Sessions say loop, target, process, operations and denials; open ones have no end."""
    rows = query.sessions(connection, Filter())
    assert ids(rows) == [ulid(13), ulid(12), ulid(11)]
    last = rows[-1]
    assert (last["host"], last["loop"], last["target"]) == ("host-a", "nightly", "github")
    assert (last["operations_seen"], last["denied"], last["exe"]) == (2, 1, "/usr/bin/curl")
    assert rows[1]["closed_ms"] is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(loop="nightly"), [12, 11]),
        (Filter(loop="other"), []),
        (Filter(run=ulid(1)), [12, 11]),
        (Filter(run=ulid(1)[-10:]), [12, 11]),
        (Filter(run="%"), []),
        (Filter(host="host-a"), [13, 12, 11]),
        (Filter(host="host-b"), []),
        (Filter(target="github"), [12, 11]),
        (Filter(verdict="deny"), [13, 11]),
        (Filter(verdict="allow"), [12, 11]),
        (Filter(since_ms=NOW_MS + 3_000), [13, 12]),
        (Filter(until_ms=NOW_MS + 3_000), [11]),
        (Filter(limit=1), [13]),
    ],
)
def test_filters_select(connection: Connection, wanted: Filter, expected: list[int]) -> None:
    """Each filter selects what it names; since is included, until is not."""
    assert ids(query.sessions(connection, wanted)) == [ulid(number) for number in expected]


def test_one_session_is_shown_with_everything(connection: Connection) -> None:
    """Initiator, process, ancestors, and each operation with rule, verdict, lease and outcome."""
    one = query.session(connection, ulid(11))
    assert one["run"]["initiator"]["user"] == "alice"
    assert one["process"]["argv"] == ["/usr/bin/curl", "-x"]
    assert [process["pid"] for process in one["ancestors"]] == [4002, 4001]
    first, second = one["operations_list"]
    assert (first["verb"], first["outcome"], first["status"]) == ("GET", "answered", "200")
    assert (first["lease_id"], first["rule"]) == (ulid(900), "nightly/0")
    assert (second["verdict"], second["status"]) == ("deny", "403")
    for name in ("nothing", "0"):
        with pytest.raises(NotFound):
            query.session(connection, name)


@pytest.mark.parametrize(
    ("by", "found"),
    [
        (BEARER.subject, [2]),
        ("repo:acme/*", [2]),
        ("*", [2, 1]),
        ("alice", [1]),
        ("ci-runner", [2]),
        ("al_ce", []),
        ("repo:acme/%", []),
        ("", [2, 1]),
        ("acme", []),
    ],
)
def test_runs_are_found_by_who_started_them(tmp_path: Path, by: str, found: list[int]) -> None:
    """A user or a token's subject, whole or with stars; runs, sessions, calls and `who` alike."""
    engine = store(tmp_path, ("a",))
    chain = Chain()
    chain.add(run_started(), session_opened(11, 1), intended(21, 11, run=1), finished(21, 11))
    chain.add(run_started(2, "ci-runner", BEARER), session_opened(12, 2))
    chain.add(intended(22, 12, run=2), finished(22, 12))
    send(engine, "a", chain)
    wanted = Filter(by=by)
    with engine.connect() as connection:
        assert sorted(row["run_id"] for row in query.runs(connection, wanted)) == sorted(
            ulid(number) for number in found
        )
        assert ids(query.sessions(connection, wanted)) == [ulid(10 + number) for number in found]
        heads = dict.fromkeys(query.heads(connection), 0)
        news = query.news(connection, heads, wanted)
        assert sorted(row["run_id"] for row in news) == sorted(ulid(number) for number in found)
        started = {run["run_id"]: run["initiator"] for run in query.runs(connection, wanted)}
        assert all(row["initiator"] == started[row["run_id"]] for row in news)  # of each operation
        who = query.who(connection, TARGET, NOW_MS + 10, wanted)
        assert {row["run_id"] for row in who} == {ulid(number) for number in found}
    engine.dispose()


def test_who_started_a_run_is_kept_whole(tmp_path: Path) -> None:
    """Issuer, subject, claims, unit, container and the processes above."""
    engine = store(tmp_path, ("a",))
    chain = Chain()
    chain.add(run_started(2, "ci-runner", BEARER))
    send(engine, "a", chain)
    with engine.connect() as connection:
        [run] = query.runs(connection, Filter())
    engine.dispose()
    by = run["initiator"]
    assert by["token"] == {
        "issuer": BEARER.issuer,
        "subject": BEARER.subject,
        "claims": {"repository": "acme/orders"},
    }
    assert (by["service"], by["invocation"], by["container"]) == (
        "ci.service",
        "0" * 32,
        "docker/3f2a",
    )
    assert [one["comm"] for one in by["parents"]] == ["sh", "systemd"]


def test_who_had_access_at_a_moment(connection: Connection) -> None:
    """Live sessions and live leases at that time, with who started the run; others are not."""
    assert query.who(connection, "github", NOW_MS - 1, Filter()) == []
    (first,) = query.who(connection, "github", NOW_MS + 500, Filter())
    assert (first["via"], first["session_id"]) == ("session", ulid(11))
    assert first["initiator"]["user"] == "alice"
    both = query.who(connection, "github", NOW_MS + 4_500, Filter())
    assert [row["via"] for row in both] == ["session", "lease"]
    assert [row["via"] for row in query.who(connection, "github", NOW_MS + 7_000, Filter())] == [
        "session"
    ]
    assert query.who(connection, "elsewhere", NOW_MS + 500, Filter()) == []


def test_news_are_what_ended_since(connection: Connection) -> None:
    """Each finished operation and each session without operations comes once, by its number."""
    rows = query.news(connection, {"a": 0, "b": 0}, Filter())
    assert [row["kind"] for row in rows] == ["operation", "operation", "session"]
    last = max(row["last_seq"] for row in rows)
    assert query.news(connection, {"a": last}, Filter()) == []
    assert query.heads(connection)["a"] == 12


def test_hosts_show_what_is_wrong(connection: Connection) -> None:
    """Alarms, gaps and refusals are counted by host."""
    first, second = query.hosts(connection, NOW_MS)
    assert (first["name"], first["seq"], first["alarms"]) == ("host-a", 12, 1)
    assert (second["alarms"], second["gaps"], second["refusals"]) == (0, 0, 0)


def test_a_host_changes_its_own_rows_only(tmp_path: Path) -> None:
    """Records of host b that name host a's session, operation and run leave a's rows alone."""
    engine = store(tmp_path, ("a", "b"))
    events: list[AuditEvent] = [run_started(), session_opened(11), intended(21, 11)]
    mine, theirs = Chain(), Chain()
    mine.add(*events)
    theirs.add(
        run_started(user="mallory"),
        session_opened(11, target="forged"),
        intended(21, 11),
        finished(21, 11),
        session_closed(11),
        RunEnded(RunId(ulid(1)), Reason.DONE),
    )
    send(engine, "a", mine)
    send(engine, "b", theirs)
    with engine.connect() as connection:
        (one,) = query.sessions(connection, Filter(host="host-a"))
        assert (one["target"], one["closed_ms"]) == ("github", None)
        assert one["initiator"]["user"] == "alice"
        (run,) = query.runs(connection, Filter(host="host-a"))
        assert run["ended_ms"] is None
    engine.dispose()


def test_an_unknown_outcome_gives_way_to_the_real_one(tmp_path: Path) -> None:
    """`unknown` is replaced when the real outcome comes late; a real one is final."""
    for order, expected in (
        ((Outcome.UNKNOWN, Outcome.ANSWERED), "answered"),
        ((Outcome.ANSWERED, Outcome.UNKNOWN), "answered"),
        ((Outcome.UNKNOWN, Outcome.UNKNOWN), "unknown"),
    ):
        folder = tmp_path / "-".join(order)
        folder.mkdir()
        engine = store(folder)
        chain = Chain()
        chain.add(session_opened(11), intended(21, 11))
        chain.add(*(finished(21, 11, outcome) for outcome in order))
        send(engine, "a", chain)
        with engine.connect() as connection:
            (operation,) = query.session(connection, ulid(11))["operations_list"]
        assert operation["outcome"] == expected
        engine.dispose()


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    """The schema's number is checked, and there must be a store to read."""
    with pytest.raises(StoreError, match="no collector"):
        open_for_reading(tmp_path)
    engine = open_store(store_url(tmp_path))
    with engine.begin() as connection:
        connection.execute(update(schema.meta).values(schema_version=99))
    engine.dispose()
    with pytest.raises(StoreError, match="99"):
        open_store(store_url(tmp_path))
