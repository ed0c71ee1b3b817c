"""The heads that were signed: the last one of each host, kept with what it is a head of.

A checkpoint is made in the transaction that moves the head, and sent when that is committed: what a
host has a signature for is on stable storage here.
"""

from sqlalchemy import Connection, delete, insert, select

from agent.collector import schema
from agent.collector.authority import Authority
from agent.collector.store import Head
from agent.spool.checkpoint import Checkpoint


def keep(
    connection: Connection, authority: Authority, host_id: str, head: Head, now_ms: int
) -> Checkpoint:
    """Sign a host's new head, and keep that instead of the one before."""
    checkpoint = authority.sign_checkpoint(host_id, head.seq, head.hash)
    table = schema.checkpoints
    connection.execute(delete(table).where(table.c.host_id == host_id))
    connection.execute(
        insert(table).values(
            host_id=host_id,
            seq=head.seq,
            hash=head.hash,
            signature=checkpoint.signature,
            signed_ms=now_ms,
        )
    )
    return checkpoint


def kept(connection: Connection, host_id: str) -> Checkpoint | None:
    """Return what was signed last for a host."""
    table = schema.checkpoints
    row = connection.execute(select(table).where(table.c.host_id == host_id)).one_or_none()
    return None if row is None else Checkpoint(host_id, row.seq, row.hash, row.signature)


def objection(authority: Authority, checkpoint: Checkpoint | None, head: Head) -> str:
    """Return why the store is not as it was when its last head was signed, "" if it is."""
    if checkpoint is None:
        return f"no checkpoint is kept of {head.seq} records" if head.seq else ""
    if not checkpoint.is_signed_by(authority.ca_key.public_key()):
        return f"the kept checkpoint of record {checkpoint.seq} is not signed by this collector"
    if (checkpoint.seq, checkpoint.hash) != (head.seq, head.hash):
        return f"the chain ends at {head.seq}, and was signed up to {checkpoint.seq}"
    return ""
