"""Chains in the store: appended once, never rewritten, never another host's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, insert, select

from agent.collector import ingest, schema
from agent.collector.ingest import BATCH_RECORDS_MAX, REFUSALS_OF_A_HOST_MAX, Refusal
from agent.collector.store import Head, open_store, store_url
from agent.collector.verify import verify
from agent.model.audit import Heartbeat
from agent.pb import collector_pb2 as pb
from tests.unit.collector.chains import NOW_MS, authority, beats, store


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = store(tmp_path, ("a", "b"))
    yield made
    made.dispose()


def append(engine: Engine, batch: pb.Upload.Batch, host: str = "a") -> Head:
    signed = ingest.append(engine, authority(), host, batch, NOW_MS)
    assert signed.is_signed_by(authority().ca_key.public_key())
    return Head(signed.seq, signed.hash)


def counted(engine: Engine, host: str = "a") -> int:
    with engine.connect() as connection:
        query = select(func.count()).where(schema.records.c.host_id == host)
        return connection.scalar(query) or 0


def test_a_batch_is_appended_and_its_end_acknowledged(engine: Engine) -> None:
    """The answer is the new head, and the chain verifies."""
    chain = beats(5)
    assert append(engine, chain.batch(1, 3)) == Head(3, chain.hashes[3])
    assert append(engine, chain.batch(4, 5)) == Head(5, chain.hashes[5])
    with engine.connect() as connection:
        assert all(report.intact for report in verify(connection, authority().ca_key.public_key()))


@settings(max_examples=20)  # each makes a store
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 10)), max_size=12))
def test_resending_is_idempotent(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[int, int]]
) -> None:
    """Any batches in any order: what connects is stored once, the rest is a gap; chain intact."""
    engine = store(tmp_path_factory.mktemp("store"))
    chain = beats(40)
    head = 0
    for first, more in batches:
        batch = chain.batch(first, first + more)
        if first > head + 1:
            with pytest.raises(Refusal) as refused:
                append(engine, batch)
            assert refused.value.kind == "gap"
        else:
            head = max(head, first + more)
            assert append(engine, batch) == Head(head, chain.hashes[head])
    assert counted(engine) == head
    engine.dispose()


def test_a_rewrite_is_refused(engine: Engine) -> None:
    """Other bytes under a number that is held: refused with the number, nothing changed."""
    append(engine, beats(5).batch(1, 5))
    other = beats(2)
    other.add(Heartbeat(999), Heartbeat(4), Heartbeat(5), Heartbeat(6))
    with pytest.raises(Refusal) as refused:
        append(engine, other.batch(1, 6))
    assert (refused.value.kind, refused.value.seq) == ("rewrite", 3)
    assert counted(engine) == 5


def test_a_rewritten_past_is_refused_without_being_sent(engine: Engine) -> None:
    """A batch that goes on from another past does not connect by its hash."""
    append(engine, beats(3).batch(1, 3))
    other = beats(2)
    other.add(Heartbeat(999), Heartbeat(4))
    with pytest.raises(Refusal) as refused:
        append(engine, other.batch(4, 4))
    assert refused.value.kind == "rewrite"


def test_a_chain_of_another_host_is_not_taken(engine: Engine) -> None:
    """What host a holds does not help host b: it appends to its own chain only."""
    chain = beats(5)
    append(engine, chain.batch(1, 5), "a")
    with pytest.raises(Refusal) as refused:
        append(engine, chain.batch(5, 5), "b")
    assert refused.value.kind == "gap"
    assert counted(engine, "b") == 0
    append(engine, chain.batch(1, 2), "b")
    assert (counted(engine, "a"), counted(engine, "b")) == (5, 2)


@pytest.mark.parametrize("what", ["hash", "seq", "bytes", "empty", "number"])
def test_a_malformed_batch_is_refused(engine: Engine, what: str) -> None:
    """A wrong hash, a record with another number, bytes that are no record, nothing at all."""
    chain = beats(3)
    batch = chain.batch(1, 3)
    match what:
        case "hash":
            batch.hash = bytes(32)
        case "seq":
            batch = pb.Upload.Batch(
                first_seq=1, records=[chain.records[1]], previous_hash=bytes(32), hash=bytes(32)
            )
        case "bytes":
            batch.records[1] = b"\xff\xff\xff"
        case "empty":
            del batch.records[:]
        case "number":
            batch.first_seq = 0
    with pytest.raises(Refusal) as refused:
        append(engine, batch)
    assert refused.value.kind == "malformed"
    assert counted(engine) == 0


def test_a_batch_is_bounded(engine: Engine) -> None:
    """BATCH_RECORDS_MAX records are taken, one more is refused."""
    chain = beats(BATCH_RECORDS_MAX + 1)
    with pytest.raises(Refusal):
        append(engine, chain.batch(1, BATCH_RECORDS_MAX + 1))
    assert append(engine, chain.batch(1, BATCH_RECORDS_MAX)).seq == BATCH_RECORDS_MAX


def test_a_declared_gap_is_kept_and_the_chain_goes_on(engine: Engine) -> None:
    """Records that a host can't show are marked for ever; what follows is held and verified."""
    chain = beats(10)
    append(engine, chain.batch(1, 3))
    gap = pb.Upload.Gap(first_seq=4, next_seq=7, previous_hash=chain.hashes[6], detail="quarantine")
    head = ingest.skip(engine, authority(), "a", gap, NOW_MS)
    assert (head.seq, head.hash) == (6, chain.hashes[6])
    append(engine, chain.batch(7, 10))
    with engine.connect() as connection:
        report = next(
            one for one in verify(connection, authority().ca_key.public_key()) if one.host_id == "a"
        )
    assert (report.intact, report.gaps, report.records, report.last_seq) == (True, 1, 7, 10)


def test_a_gap_begins_where_the_chain_ends(engine: Engine) -> None:
    """A gap over records that are held, or further on, is refused: nothing can be hidden by it."""
    append(engine, beats(5).batch(1, 5))
    for first, following in ((3, 9), (8, 9), (6, 5)):
        gap = pb.Upload.Gap(first_seq=first, next_seq=following, previous_hash=bytes(32))
        with pytest.raises(Refusal):
            ingest.skip(engine, authority(), "a", gap, NOW_MS)


def test_a_rollback_is_refused_at_hello(engine: Engine) -> None:
    """A host whose spool ends before what is held is refused; at the same end it is welcome."""
    append(engine, beats(5).batch(1, 5))
    with pytest.raises(Refusal) as refused:
        ingest.greet(engine, authority(), "a", pb.Upload.Hello(host_name="a", last_seq=4), NOW_MS)
    assert refused.value.kind == "rollback"
    hello = pb.Upload.Hello(host_name="a", last_seq=5)
    assert ingest.greet(engine, authority(), "a", hello, NOW_MS).seq == 5


def test_a_stranger_is_refused(engine: Engine) -> None:
    """A certificate of a host that is not in the store is worth nothing."""
    with pytest.raises(Refusal) as refused:
        append(engine, beats(1).batch(1, 1), "stranger")
    assert refused.value.kind == "unknown"


def test_refusals_are_kept_once_and_bounded(engine: Engine) -> None:
    """The same refusal again adds nothing; a host can't fill the store with them."""
    row = {"host_id": "a", "kind": "rewrite", "detail": "other content", "at_ms": NOW_MS}
    with engine.begin() as connection:
        rows = [{**row, "seq": seq} for seq in range(REFUSALS_OF_A_HOST_MAX - 1)]
        connection.execute(insert(schema.refusals), rows)
    expected = (REFUSALS_OF_A_HOST_MAX - 1, REFUSALS_OF_A_HOST_MAX, REFUSALS_OF_A_HOST_MAX)
    for seq, kept in zip((0, 5_000, 5_001), expected, strict=True):
        ingest.note_refusal(engine, "a", Refusal("rewrite", seq, "other content"), NOW_MS)
        with engine.connect() as connection:
            count = select(func.count()).select_from(schema.refusals)
            assert connection.scalar(count) == kept


def test_a_commit_is_durable(tmp_path: Path) -> None:
    """SQLite runs in WAL mode with synchronous=FULL (2)."""
    engine = open_store(store_url(tmp_path))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()
