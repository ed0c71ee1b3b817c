"""Recompute every chain from the stored bytes, and compare it with what was signed.

Nothing but the records, the gaps and checkpoints with a valid signature is believed. The store's
own checkpoint shows changes by whom the CA's key is not known to; a checkpoint that a host kept, or
that somebody saved, shows a store that was set back as a whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError
from sqlalchemy import Connection, select

from agent.collector import checkpoints, schema
from agent.collector.store import snapshot
from agent.pb import audit_pb2 as pb
from agent.spool.checkpoint import Checkpoint, serialize_checkpoint
from agent.spool.format import GENESIS, chain

ROWS_AT_ONCE = 2_000
Row: TypeAlias = Any  # sqlalchemy.Row; its type parameters differ between 2.0 and 2.1
Bad: TypeAlias = tuple[int, str]


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
    signed_seq: int | None = None  # of the store's own checkpoint
    checkpoint: str = ""  # that one as a file, to be kept elsewhere

    @property
    def intact(self) -> bool:
        """Whether every record from the first to the head is there, unchanged and in order."""
        return self.bad_seq is None


@dataclass(slots=True)
class _Walk:
    """A position in a chain, and the checkpoints that it has not come by."""

    unmet: list[Checkpoint]
    seq: int = 0
    hash: bytes = GENESIS
    records: int = 0
    bad: Bad | None = field(default=None)

    def at(self, seq: int, digest: bytes) -> None:
        """Go there. One number can have two hashes, before and after a gap of no records."""
        self.seq, self.hash = seq, digest
        if self.unmet:
            self.unmet = [one for one in self.unmet if (one.seq, one.hash) != (seq, digest)]


def verify(
    connection: Connection, key: ec.EllipticCurvePublicKey, presented: Sequence[Checkpoint] = ()
) -> list[ChainReport]:
    """Check every host's chain, first to last, against the store's checkpoints and these.

    key is the collector's (authority.load_signing_key).
    """
    snapshot(connection)  # a collector may be writing: head, checkpoint and records of one moment
    rows = connection.execute(select(schema.hosts).order_by(schema.hosts.c.name)).all()
    reports = [
        _verify_host(connection, row, key, [one for one in presented if one.host_id == row.host_id])
        for row in rows
    ]
    known = {row.host_id for row in rows}
    strangers = [one for one in presented if one.host_id not in known]
    return reports + [
        ChainReport(one.host_id, one.host_id, 0, 0, 0, 1, "no chain of this host is held")
        for one in strangers
    ]


def _verify_host(
    connection: Connection,
    host: Row,
    key: ec.EllipticCurvePublicKey,
    presented: list[Checkpoint],
) -> ChainReport:
    own = checkpoints.kept(connection, host.host_id)
    signed = [*presented, own] if own is not None else presented
    gaps = _gaps(connection, host.host_id)
    walk = _Walk([one for one in signed if one.is_signed_by(key)])
    forged = [one for one in signed if not one.is_signed_by(key)]
    _go(connection, host.host_id, gaps, walk)
    if walk.bad is None:
        walk.bad = _judge(host, walk, forged, own)
    bad_seq, detail = walk.bad if walk.bad is not None else (None, "")
    return ChainReport(
        host.host_id,
        host.name,
        walk.records,
        walk.seq,
        len(gaps),
        bad_seq,
        detail,
        None if own is None else own.seq,
        "" if own is None else serialize_checkpoint(own),
    )


def _go(connection: Connection, host_id: str, gaps: dict[int, Row], walk: _Walk) -> None:
    """Go through the records, up to the first bad one."""
    walk.at(0, GENESIS)
    for row in _records(connection, host_id):
        if (gap := gaps.get(walk.seq + 1)) is not None and _follows(gap, walk.seq, row.seq):
            walk.at(gap.next_seq - 1, gap.previous_hash)
        digest = chain(walk.hash, row.body)
        walk.bad = _wrong(row, walk.seq + 1, digest)
        if walk.bad is not None:
            return
        walk.at(row.seq, digest)
        walk.records += 1
    if (gap := gaps.get(walk.seq + 1)) is not None:
        walk.at(gap.next_seq - 1, gap.previous_hash)


def _judge(host: Row, walk: _Walk, forged: list[Checkpoint], own: Checkpoint | None) -> Bad | None:
    """Return the first thing wrong with a chain whose records follow from each other."""
    end = walk.seq
    found: list[Bad] = []
    if host.seq != end or host.hash != walk.hash:
        found.append((min(host.seq, end) + 1, f"the chain ends at {end}, its head says {host.seq}"))
    found += [
        (end + 1, f"the chain ends at {end}, a checkpoint was signed at {one.seq}")
        if one.seq > end
        else (one.seq, f"record {one.seq} or one before it is not what was signed")
        for one in walk.unmet
    ]
    found += [
        (one.seq, f"the checkpoint at {one.seq} is not signed by this collector for this host")
        for one in forged
    ]
    if own is None and end:
        found.append((end + 1, "no checkpoint is kept: what followed may be gone"))
    return min(found, default=None)


def _follows(gap: Row, seq: int, row_seq: int) -> bool:
    return bool(gap.first_seq == seq + 1 and gap.next_seq <= row_seq)


def _wrong(row: Row, expected: int, digest: bytes) -> Bad | None:
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
