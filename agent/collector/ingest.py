"""Appending to a host's chain: contiguous, hash chained, idempotent, never rewritten. Blocking."""

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Engine, func, insert, select, update

from agent.collector import checkpoints, schema
from agent.collector.authority import Authority
from agent.collector.projection import Projection
from agent.collector.store import Head, head_of, insert_new
from agent.pb import audit_pb2
from agent.pb import collector_pb2 as pb
from agent.spool.checkpoint import Checkpoint
from agent.spool.format import RECORD_BYTES_MAX, chain

BATCH_RECORDS_MAX = 256
BATCH_BYTES_MAX = 1_048_576 + RECORD_BYTES_MAX  # the last record of a batch may pass 1 MiB
HASH_BYTES = 32
DETAIL_CHARACTERS_MAX = 500
REFUSALS_OF_A_HOST_MAX = 1_000  # the first ones are kept; later ones are only answered


class Refusal(Exception):
    """Nothing was stored but this refusal. kind: rollback, rewrite, gap, malformed, unknown.

    Or tampered: the store here is not as it was signed.
    """

    def __init__(self, kind: str, seq: int, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.seq = seq
        self.detail = detail


def greet(
    engine: Engine, authority: Authority, host_id: str, hello: pb.Upload.Hello, now_ms: int
) -> Checkpoint:
    """Take note of a host that connected; return the signed head of its chain.

    Raises:
        Refusal: it is not enrolled here, its spool ends before what is held, or what is held is
            not what was signed: signing it again would hide that.
    """
    with engine.begin() as connection:
        head = head_of(connection, host_id)
        if head is None:
            raise Refusal("unknown", 0, "this host is not enrolled here")
        if hello.last_seq < head.seq:
            raise Refusal(
                "rollback",
                hello.last_seq,
                f"records up to {head.seq} are held, the host's spool ends at {hello.last_seq}",
            )
        checkpoint = checkpoints.kept(connection, host_id)
        if wrong := checkpoints.objection(authority, checkpoint, head):
            raise Refusal("tampered", head.seq, f"{wrong}: run `loopwarden-collector verify`")
        connection.execute(
            update(schema.hosts)
            .where(schema.hosts.c.host_id == host_id)
            .values(
                seen_ms=now_ms,
                reported_name=hello.host_name[:255],
                version=hello.version[:64],
            )
        )
        return checkpoint or checkpoints.keep(connection, authority, host_id, head, now_ms)


def append(
    engine: Engine, authority: Authority, host_id: str, batch: pb.Upload.Batch, now_ms: int
) -> Checkpoint:
    """Append a batch; return the new head, signed, which is then on stable storage.

    Records that are held already must be the same bytes and are skipped.

    Raises:
        Refusal: it does not go on from what is held, differs from it, or is malformed.
    """
    records = list(batch.records)
    _check_shape(batch, records)
    with engine.begin() as connection:
        head = head_of(connection, host_id)
        if head is None:
            raise Refusal("unknown", batch.first_seq, "this host is not enrolled here")
        if batch.first_seq > head.seq + 1:
            raise Refusal(
                "gap", batch.first_seq, f"record {head.seq + 1} is next, not {batch.first_seq}"
            )
        held = head.seq + 1 - batch.first_seq
        _compare(connection, host_id, batch.first_seq, records[:held])
        new = records[held:]
        if not new:
            return authority.sign_checkpoint(host_id, head.seq, head.hash)
        if held == 0 and batch.previous_hash != head.hash:
            raise Refusal("rewrite", batch.first_seq, "the hash before it is not the one held")
        new_head = _store(connection, host_id, head, new, now_ms)
        if new_head.hash != batch.hash:
            raise Refusal("malformed", batch.first_seq, "its hash does not follow from its records")
        return checkpoints.keep(connection, authority, host_id, new_head, now_ms)


def _check_shape(batch: pb.Upload.Batch, records: list[bytes]) -> None:
    if batch.first_seq == 0 or not records:
        raise Refusal("malformed", batch.first_seq, "a batch without records or number")
    if len(records) > BATCH_RECORDS_MAX or sum(map(len, records)) > BATCH_BYTES_MAX:
        raise Refusal("malformed", batch.first_seq, "the batch is over its limit")


def _compare(connection: Connection, host_id: str, first_seq: int, records: list[bytes]) -> None:
    """Refuse when what was stored under these numbers is not the same."""
    if not records:
        return
    table = schema.records
    rows = connection.execute(
        select(table.c.seq, table.c.body).where(
            table.c.host_id == host_id,
            table.c.seq >= first_seq,
            table.c.seq < first_seq + len(records),
        )
    )
    stored = {row.seq: row.body for row in rows}
    for seq, record in enumerate(records, first_seq):
        if stored.get(seq) != record:
            raise Refusal("rewrite", seq, f"record {seq} is held with other content")


def _store(
    connection: Connection, host_id: str, head: Head, records: list[bytes], now_ms: int
) -> Head:
    projection = Projection(host_id)
    digest = head.hash
    rows = []
    for seq, body in enumerate(records, head.seq + 1):
        record = _parse(seq, body)
        digest = chain(digest, body)
        unix_ms = min(record.unix_ms, (1 << 63) - 1)
        rows.append(
            {"host_id": host_id, "seq": seq, "unix_ms": unix_ms, "body": body, "hash": digest}
        )
        projection.add(record)
    connection.execute(insert(schema.records), rows)
    projection.write(connection)
    new_head = Head(head.seq + len(records), digest)
    _move_head(connection, host_id, new_head, now_ms)
    return new_head


def _parse(seq: int, body: bytes) -> audit_pb2.Record:
    try:
        record = audit_pb2.Record.FromString(body)
    except DecodeError as error:
        raise Refusal("malformed", seq, f"record {seq} is not a record") from error
    if record.seq != seq:
        raise Refusal("malformed", seq, f"record {seq} says that it is {record.seq}")
    return record


def _move_head(connection: Connection, host_id: str, head: Head, now_ms: int) -> None:
    connection.execute(
        update(schema.hosts)
        .where(schema.hosts.c.host_id == host_id)
        .values(seq=head.seq, hash=head.hash, seen_ms=now_ms)
    )


def skip(
    engine: Engine, authority: Authority, host_id: str, gap: pb.Upload.Gap, now_ms: int
) -> Checkpoint:
    """Take note that a host can't show some records; its chain goes on behind them.

    Raises:
        Refusal: the gap does not begin where the chain ends, or is malformed.
    """
    if gap.next_seq < gap.first_seq or len(gap.previous_hash) != HASH_BYTES:
        raise Refusal("malformed", gap.first_seq, "a gap that ends before it begins")
    with engine.begin() as connection:
        head = head_of(connection, host_id)
        if head is None:
            raise Refusal("unknown", gap.first_seq, "this host is not enrolled here")
        if gap.first_seq != head.seq + 1 or gap.next_seq > (1 << 63) - 1:
            raise Refusal("gap", gap.first_seq, f"record {head.seq + 1} is next")
        row = {
            "host_id": host_id,
            "next_seq": gap.next_seq,
            "first_seq": gap.first_seq,
            "previous_hash": gap.previous_hash,
            "at_ms": now_ms,
            "detail": gap.detail[:DETAIL_CHARACTERS_MAX],
        }
        insert_new(connection, schema.gaps, [row])
        new_head = Head(gap.next_seq - 1, gap.previous_hash)
        _move_head(connection, host_id, new_head, now_ms)
        return checkpoints.keep(connection, authority, host_id, new_head, now_ms)


def note_refusal(engine: Engine, host_id: str, refusal: Refusal, now_ms: int) -> None:
    """Keep what was refused, once, for `verify` and `hosts`."""
    row = {
        "host_id": host_id,
        "kind": refusal.kind,
        "seq": min(refusal.seq, (1 << 63) - 1),
        "detail": refusal.detail[:DETAIL_CHARACTERS_MAX],
    }
    table = schema.refusals
    with engine.begin() as connection:
        same = select(table.c.refusal_id).where(*(table.c[name] == row[name] for name in row))
        count = select(func.count()).where(table.c.host_id == host_id)
        if connection.execute(same).first() is None and (
            (connection.scalar(count) or 0) < REFUSALS_OF_A_HOST_MAX
        ):
            connection.execute(insert(table).values(**row, at_ms=now_ms))
