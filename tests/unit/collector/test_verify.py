"""`verify` names the first bad record, whatever was done to the store."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import ColumnElement, Connection, delete, update

from agent.collector import ingest, schema
from agent.collector.verify import ChainReport, verify
from tests.unit.collector.chains import NOW_MS, beats, store

RECORDS = schema.records
HOSTS = schema.hosts
Tampering = Callable[[Connection], object]


def after(directory: Path, tampering: Tampering) -> ChainReport:
    engine = store(directory, ("a", "b"))
    ingest.append(engine, "a", beats(50).batch(1, 50), NOW_MS)
    ingest.append(engine, "b", beats(9).batch(1, 9), NOW_MS)
    with engine.begin() as connection:
        tampering(connection)
    with engine.connect() as connection:
        first, second = verify(connection)
    engine.dispose()
    assert second.intact
    return first


def of_a(seq: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (RECORDS.c.host_id == "a", RECORDS.c.seq == seq)


def edit(connection: Connection) -> None:
    connection.execute(update(RECORDS).where(*of_a(20)).values(body=beats(60).records[50]))


def edit_with_hash(connection: Connection) -> None:
    other = beats(60)
    connection.execute(
        update(RECORDS).where(*of_a(20)).values(body=other.records[50], hash=other.hashes[51])
    )


def remove(connection: Connection) -> None:
    connection.execute(delete(RECORDS).where(*of_a(20)))


def truncate(connection: Connection) -> None:
    connection.execute(delete(RECORDS).where(RECORDS.c.host_id == "a", RECORDS.c.seq > 19))


def swap(connection: Connection) -> None:
    bodies = beats(50).records
    connection.execute(update(RECORDS).where(*of_a(20)).values(body=bodies[20]))
    connection.execute(update(RECORDS).where(*of_a(21)).values(body=bodies[19]))


def truncate_with_head(connection: Connection) -> None:
    truncate(connection)
    connection.execute(update(HOSTS).where(HOSTS.c.host_id == "a").values(seq=19))


@pytest.mark.parametrize(
    "tampering", [edit, edit_with_hash, remove, truncate, swap, truncate_with_head]
)
def test_the_first_bad_record_is_named(tmp_path: Path, tampering: Tampering) -> None:
    """Edit, deletion, reorder and truncation at record 20 are found there."""
    report = after(tmp_path, tampering)
    assert (report.bad_seq, report.intact) == (20, False)


def test_an_intact_chain_is_said_to_be(tmp_path: Path) -> None:
    """Nothing done, nothing found."""
    report = after(tmp_path, lambda connection: None)
    assert (report.bad_seq, report.records, report.last_seq) == (None, 50, 50)
