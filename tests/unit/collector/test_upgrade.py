"""A store of an earlier version is brought up; nothing of it is lost."""

from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from agent.collector import ingest, query, schema
from agent.collector.query import Filter
from agent.collector.store import StoreError, open_store, store_url
from agent.collector.upgrade import ADDED, OLDEST
from tests.unit.collector.chains import NOW_MS, Chain, authority, store
from tests.unit.reporter.events import (
    finished,
    intended,
    queried,
    run_started,
    session_opened,
    ulid,
)


def make_old(directory: Path, version: int) -> None:
    """A store with one session, as this version made it."""
    engine = store(directory)
    chain = Chain()
    chain.add(run_started(), session_opened(11), intended(21, 11), finished(21, 11))
    ingest.append(engine, authority(), "a", chain.batch(1, 4), NOW_MS)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE relations"))
        for table, column in (*ADDED[3], *ADDED[5]):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(schema.meta.update().values(schema_version=version))
    engine.dispose()


def test_an_older_store_is_brought_up(tmp_path: Path) -> None:
    """Its rows can be asked for as before, new records go in, and it is done once."""
    make_old(tmp_path, OLDEST)
    engine = open_store(store_url(tmp_path))
    chain = Chain()
    chain.add(run_started(), session_opened(11), intended(21, 11), finished(21, 11))
    chain.add(queried(22, 11))
    ingest.append(engine, authority(), "a", chain.batch(5, 5), NOW_MS)
    with engine.connect() as connection:
        old, new = query.session(connection, ulid(11))["operations_list"]
        assert (old["rows"], old["statements"], old["result"]) == (0, [], [])
        assert new["effects"] == ",read,write,unknown,"
        assert len(query.sessions(connection, Filter(table="orders"))) == 1
        assert len(query.runs(connection, Filter(by="alice"))) == 1
        assert connection.scalar(schema.meta.select()) == schema.SCHEMA_VERSION
    engine.dispose()
    open_store(store_url(tmp_path)).dispose()


def test_an_upgraded_store_has_the_form_of_a_new_one(tmp_path: Path) -> None:
    """The same tables, columns and whether they may be empty."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    make_old(tmp_path / "old", OLDEST)
    forms = []
    for name in ("old", "new"):
        engine = open_store(store_url(tmp_path / name))
        looked = inspect(engine)
        forms.append(
            {
                table: {
                    column["name"]: (str(column["type"]), column["nullable"])
                    for column in looked.get_columns(table)
                }
                for table in looked.get_table_names()
            }
        )
        engine.dispose()
    assert forms[0] == forms[1]


@pytest.mark.parametrize("version", [OLDEST - 1, schema.SCHEMA_VERSION + 1])
def test_a_store_too_old_or_of_the_future_is_refused(tmp_path: Path, version: int) -> None:
    """It is left as it was."""
    make_old(tmp_path, version)
    with pytest.raises(StoreError, match=f"schema {version}"):
        open_store(store_url(tmp_path))
