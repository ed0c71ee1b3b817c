"""Queries in the store: what they did can be shown, and be asked for."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from agent.collector import ingest, query
from agent.collector.projection import RESOURCE_CHARACTERS_MAX
from agent.collector.query import Filter
from agent.collector.statements import EFFECTS, RELATIONS_MAX, effects_text, relations
from agent.model.sql import Effect, Relation, Statement
from agent.pb import audit_pb2 as pb
from tests.unit.collector.chains import NOW_MS, Chain, authority, store
from tests.unit.reporter.events import (
    DATABASE,
    QUERY,
    answered,
    finished,
    intended,
    queried,
    run_started,
    session_opened,
    ulid,
)

READ = Statement("SELECT", frozenset({Effect.READ}), reads=(Relation("", "refunds"),))
DROP = Statement("DROP TABLE", frozenset({Effect.DDL}), writes=(Relation("public", "orders"),))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Session 11 has QUERY and READ, session 12 has DROP, session 13 speaks HTTP."""
    engine = store(tmp_path)
    chain = Chain()
    chain.add(run_started(), session_opened(11, target=DATABASE))
    chain.add(queried(21, 11), answered(21, 11, rows=7, status="22012"), queried(22, 11, READ))
    chain.add(answered(22, 11))
    chain.add(session_opened(12, target=DATABASE), queried(23, 12, READ, DROP), answered(23, 12))
    chain.add(session_opened(13), intended(24, 13), finished(24, 13))
    ingest.append(engine, authority(), "a", chain.batch(1, len(chain.records)), NOW_MS)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_a_query_is_kept_with_all_that_is_known(connection: Connection) -> None:
    """Statements, values, rows, the server's code, tag and transaction state."""
    one = query.session(connection, ulid(11))["operations_list"][0]
    assert (one["rows"], one["status"], one["response_bytes"]) == (7, "22012", 1_024)
    assert one["attributes"] == [["$1", "42"]]
    assert one["result"] == [["command_tag", "SELECT 7"], ["transaction_state", "I"]]
    assert one["effects"] == ",read,write,unknown,"
    [statement] = one["statements"]
    assert (statement["kind"], statement["why"]) == (QUERY.kind, QUERY.why)
    assert statement["reads"] == [{"schema": "public", "name": "orders"}]
    assert statement["columns_read"] == [{"table": "orders", "name": "email"}]
    assert statement["calls"] == [{"schema": "app", "name": "report", "effect": "unknown"}]
    assert statement["settings"][1] == {"name": "search_path", "value": None}
    json.dumps(one)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(effect="read"), [12, 11]),
        (Filter(effect="write"), [11]),
        (Filter(effect="ddl"), [12]),
        (Filter(effect="unknown"), [11]),
        (Filter(effect="admin"), []),
        (Filter(effect="%"), []),
        (Filter(table="orders"), [12, 11]),
        (Filter(table="public.orders"), [12, 11]),
        (Filter(table="audit.orders"), []),
        (Filter(table="audit.refunds"), [12, 11]),  # the text names no schema
        (Filter(table="order%"), []),
        (Filter(text="from PUBLIC.orders"), [12, 11]),
        (Filter(text="/v1/"), [13]),
        (Filter(text="100%"), []),
        (Filter(effect="write", table="refunds"), []),  # of one and the same query
        (Filter(effect="read", table="refunds", target=DATABASE), [12, 11]),
        (Filter(effect="ddl", verdict="deny"), []),
    ],
)
def test_filters_select_by_what_queries_do(
    connection: Connection, wanted: Filter, expected: list[int]
) -> None:
    """By effect, table and text; all that is asked of an operation is asked of the same one."""
    rows = query.sessions(connection, wanted)
    assert [row["session_id"] for row in rows] == [ulid(number) for number in expected]
    assert len(query.runs(connection, wanted)) == (1 if expected else 0)
    news = query.news(connection, {"a": 0}, wanted)
    assert {row["session_id"] for row in news if row["kind"] == "operation"} == {
        ulid(number) for number in expected
    }


def test_who_had_access_to_a_database(connection: Connection) -> None:
    """As for any target."""
    rows = query.who(connection, DATABASE, NOW_MS, Filter())
    assert {row["session_id"] for row in rows} == {ulid(11), ulid(12)}


def test_a_long_text_is_kept_up_to_its_bound(tmp_path: Path) -> None:
    """At the bound whole; past it head, hash and tail."""
    engine = store(tmp_path)
    chain = Chain()
    chain.add(run_started(), session_opened(11))
    for number, size in ((21, RESOURCE_CHARACTERS_MAX), (22, RESOURCE_CHARACTERS_MAX + 1)):
        event = queried(number, 11)
        operation = dataclasses.replace(event.operation, resource="x" * size)
        chain.add(dataclasses.replace(event, operation=operation))
    ingest.append(engine, authority(), "a", chain.batch(1, len(chain.records)), NOW_MS)
    with engine.connect() as connection:
        whole, cut = query.session(connection, ulid(11))["operations_list"]
    assert whole["resource"] == "x" * RESOURCE_CHARACTERS_MAX
    assert len(cut["resource"]) == RESOURCE_CHARACTERS_MAX
    assert "sha256" in cut["resource"]
    engine.dispose()


def test_relations_are_bounded_and_written_wins() -> None:
    """The limit's number is projected, one more is not; a table read and written is written."""
    names = [pb.Statement.Relation(name=f"t{number}") for number in range(RELATIONS_MAX + 1)]
    assert len(relations([pb.Statement(reads=names[:-1])])) == RELATIONS_MAX
    assert len(relations([pb.Statement(reads=names)])) == RELATIONS_MAX
    [row] = relations([pb.Statement(reads=names[:1]), pb.Statement(writes=names[:1])])
    assert row == {"schema_name": "", "name": "t0", "written": True}


def test_the_effects_are_those_of_the_model() -> None:
    """In one place each; what a host invents is not among them."""
    assert set(EFFECTS) == {effect.value for effect in Effect}
    assert effects_text([pb.Statement(effects=["write", ",x,"])]) == ",write,"
    assert effects_text([]) == ""
