"""The collector's signed heads, as the host judges and keeps them.

A head is believed when the collector's CA signed it for this host, and taken when it agrees with
our own chain. Records are deleted only after the head that covers them is in the file; so whatever
a collector holds that is behind that file, or is other than it, can't be ours to go on with.
"""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.pb import collector_pb2 as pb
from agent.spool.checkpoint import (
    NAME,
    Checkpoint,
    CheckpointUnreadable,
    host_id_of,
    read_checkpoint,
    signing_key,
    write_checkpoint,
)
from agent.spool.cursor import Cursor
from agent.spool.files import sync_directory
from agent.spool.reader import Reader
from agent.spool.recovery import Segment

logger = logging.getLogger(__name__)


class Refused(Exception):
    """The collector, or we, won't go on with this chain: history does not agree."""


class OutOfStep(Exception):
    """The acknowledgement is of more than was sent: a new greeting says where to go on."""


@dataclass(frozen=True, slots=True)
class Local:
    """The spool as it is when a collector greets."""

    segments: Sequence[Segment]
    next_seq: int
    cursor: Cursor


class Checkpoints:
    """One connection's view: made anew for each, so that a file which was moved away is gone."""

    def __init__(self, directory: Path, ca_pem: bytes, certificate_pem: bytes) -> None:
        """Read the file; one of an earlier identity is put aside, as `checkpoint.<host id>`.

        Raises:
            Refused: the identity can't be used, or the file is damaged or not of our collector.
            OSError: the directory can't be used.
        """
        self._path = directory / NAME
        try:
            self._key = signing_key(ca_pem)
            host_id = host_id_of(certificate_pem)
        except ValueError as error:
            raise Refused(f"the identity can't be used, enroll this host anew: {error}") from error
        if host_id is None:
            raise Refused("the identity's certificate names no host: enroll this host anew")
        self._host_id = host_id
        self._kept = self._load()
        self._newest = self._kept

    def _load(self) -> Checkpoint | None:
        try:
            kept = read_checkpoint(self._path)
        except CheckpointUnreadable as error:
            raise Refused(f"{self._path} is damaged: {self._advice()}") from error
        if kept is None:
            return None
        if kept.host_id != self._host_id:
            aside = self._path.with_name(f"{NAME}.{kept.host_id}")
            logger.warning("this host was enrolled anew: %s is kept as %s", self._path, aside)
            self._path.rename(aside)
            sync_directory(aside.parent)
            return None
        if not kept.is_signed_by(self._key):
            raise Refused(
                f"{self._path} is damaged, or ca.pem is of another collector: {self._advice()}"
            )
        return kept

    def _advice(self) -> str:
        return (
            "no record was deleted. Find out why; the collector's `verify --checkpoint` reads "
            "that file. To go on from what the collector holds, move it away"
        )

    # --- what the collector says ---

    def greeted(self, reply: pb.Acknowledgement, local: Local) -> Reader:
        """Return the reader of what follows a greeting.

        Raises:
            Refused: not signed for us, behind or other than what was signed before, or not of the
                chain in this spool.
            ReadFailed: a record that is needed to tell can't be read.
        """
        head = self._signed(reply)
        if head.seq >= local.next_seq:
            raise Refused(
                f"rollback: the collector holds records up to {head.seq}, "
                f"this spool ends at {local.next_seq - 1}"
            )
        kept = self._kept
        if kept is not None:
            self._compare(head, kept, local)
        reader = Reader(Cursor(head.seq, head.hash))
        if not reader.agrees(local.segments):
            raise Refused(
                f"rewrite: what the collector holds up to {head.seq} is not what is in this spool"
            )
        self._newest = head
        return reader

    def _compare(self, head: Checkpoint, kept: Checkpoint, local: Local) -> None:
        """Refuse a head that can't have come after the kept one."""
        floor = max(kept.seq, local.cursor.seq)
        if head.seq < floor:
            raise Refused(
                f"the collector went back: it signed record {floor} and holds {head.seq} now, so "
                f"its store was set back, or it is another one. {self._path}: {self._advice()}"
            )
        restarts = any(
            one.first_seq == head.seq + 1 and one.header.previous_hash == head.hash
            for one in local.segments
        )  # the collector took a gap of no records from us, and the answer was lost
        if head.seq == kept.seq and head.hash != kept.hash and not restarts:
            raise Refused(
                f"the collector signed another record {head.seq} before than it holds now. "
                f"{self._path}: {self._advice()}"
            )

    def acknowledged(self, reply: pb.Acknowledgement, sent: Cursor | None) -> Cursor:
        """Return the head to take; sent is where the oldest unacknowledged message ends.

        Raises:
            Refused: not signed for us, or not what was sent.
            OutOfStep: it is of more than was sent.
        """
        head = self._signed(reply)
        if sent is None or head.seq < sent.seq:
            raise Refused(f"the collector acknowledged {head.seq} out of order")
        if head.seq > sent.seq:
            raise OutOfStep(f"the collector acknowledged {head.seq}, sent was {sent.seq}")
        if head.hash != sent.hash:
            raise Refused(f"rewrite: the collector's record {head.seq} is not the one sent")
        self._newest = head
        return sent

    def _signed(self, reply: pb.Acknowledgement) -> Checkpoint:
        if reply.refused:
            raise Refused(reply.refused)
        head = Checkpoint(self._host_id, reply.seq, reply.hash, reply.signature)
        if not reply.signature:
            raise Refused("the collector signs no checkpoints: update it; nothing was deleted")
        if not head.is_signed_by(self._key):
            raise Refused(
                f"the checkpoint of record {reply.seq} is not signed for this host by the "
                "collector of ca.pem: it is another collector, or something between"
            )
        return head

    # --- what is kept ---

    def store(self) -> bool:
        """Make the newest head durable; False when the disk is full. Only then move the cursor.

        Raises:
            OSError: the disk failed.
        """
        newest = self._newest
        if newest is None or newest == self._kept:
            return True
        try:
            write_checkpoint(self._path, newest)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        self._kept = newest
        return True
