"""Recompute every chain from the stored bytes. Nothing but the records and the gaps is believed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, select

from agent.collector import schema
from agent.pb import audit_pb2 as pb
from agent.spool.format import GENESIS, chain

ROWS_AT_ONCE = 2_000
Row: TypeAlias = Any  # sqlalchemy.Row; its type parameters differ between 2.0 and 2.1


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What was found. bad_seq is the first number that is missing, changed or out of order."""

    host_id: str
    host: str
    records: int
    last_seq: int
    gaps: int  # declared by the host: marked, but records are missing there
    bad_seq: int | None
    detail: str

    @property
    def intact(self) -> bool:
        """Whether every record from the first to the head is there, unchanged and in order."""
        return self.bad_seq is None


def verify(connection: Connection) -> list[ChainReport]:
    """Check every host's chain, first to last."""
    rows = connection.execute(select(schema.hosts).order_by(schema.hosts.c.name)).all()
    return [_verify_host(connection, row) for row in rows]


def _verify_host(connection: Connection, host: Row) -> ChainReport:
    declared = _gaps(connection, host.host_id)
    count, seq, digest = 0, 0, GENESIS
    bad: tuple[int, str] | None = None
    for row in _records(connection, host.host_id):
        if (gap := declared.get(seq + 1)) is not None and _follows(gap, seq, row.seq):
            seq, digest = gap.next_seq - 1, gap.previous_hash
        digest = chain(digest, row.body)
        bad = _wrong(row, seq + 1, digest)
        if bad is not None:
            break
        seq, count = row.seq, count + 1
    if bad is None and (gap := declared.get(seq + 1)) is not None:
        seq, digest = gap.next_seq - 1, gap.previous_hash
    if bad is None and (host.seq != seq or host.hash != digest):
        where = min(host.seq, seq) + 1
        bad = (where, f"the chain ends at {seq}, its head says {host.seq}")
    bad_seq, detail = bad if bad is not None else (None, "")
    return ChainReport(host.host_id, host.name, count, seq, len(declared), bad_seq, detail)


def _follows(gap: Row, seq: int, row_seq: int) -> bool:
    return bool(gap.first_seq == seq + 1 and gap.next_seq <= row_seq)


def _wrong(row: Row, expected: int, digest: bytes) -> tuple[int, str] | None:
    if row.seq != expected:
        return expected, f"record {expected} is missing"
    if row.hash != digest:
        return expected, f"record {expected} does not hash to what was stored with it"
    try:
        said = pb.Record.FromString(row.body).seq
    except DecodeError:
        return expected, f"record {expected} is not a record"
    return None if said == expected else (expected, f"record {expected} says that it is {said}")


def _gaps(connection: Connection, host_id: str) -> dict[int, Row]:
    query = select(schema.gaps).where(schema.gaps.c.host_id == host_id)
    return {row.first_seq: row for row in connection.execute(query)}


def _records(connection: Connection, host_id: str) -> Iterator[Row]:
    table, after = schema.records, 0
    while True:
        query = (
            select(table.c.seq, table.c.body, table.c.hash)
            .where(table.c.host_id == host_id, table.c.seq > after)
            .order_by(table.c.seq)
            .limit(ROWS_AT_ONCE)
        )
        rows = connection.execute(query).all()
        if not rows:
            return
        yield from rows
        after = rows[-1].seq
