"""Chains of records for tests, as a host's spool makes them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine

from agent.collector.authority import Authority, open_authority
from agent.collector.store import add_host, open_store, store_url
from agent.collector.tokens import utc_now
from agent.model.audit import AuditEvent, Heartbeat
from agent.pb import collector_pb2 as pb
from agent.reporter.encoding import Stamp, serialize_records
from agent.spool.format import GENESIS, chain

BOOT = "6f3c1a52-0000-4000-8000-000000000001"
NOW_MS = 1_700_000_000_000


@dataclass(slots=True)
class Chain:
    """What one host has recorded."""

    records: list[bytes] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=lambda: [GENESIS])

    def add(self, *events: AuditEvent, at_ms: int = NOW_MS) -> None:
        """Record events."""
        for event in events:
            stamp = Stamp(BOOT, at_ms, 1)
            (record,) = serialize_records([event], len(self.records) + 1, stamp, "proxy@0")
            self.records.append(record)
            self.hashes.append(chain(self.hashes[-1], record))

    def batch(self, first: int, last: int) -> pb.Upload.Batch:
        """Return records first … last as the uplink sends them."""
        return pb.Upload.Batch(
            first_seq=first,
            records=self.records[first - 1 : last],
            previous_hash=self.hashes[first - 1],
            hash=self.hashes[last],
        )


def beats(count: int) -> Chain:
    """A chain of so many heartbeats."""
    made = Chain()
    made.add(*(Heartbeat(number) for number in range(1, count + 1)))
    return made


@cache
def authority() -> Authority:
    """The one that every store of these tests is signed by."""
    with TemporaryDirectory() as folder:
        return open_authority(Path(folder), utc_now())


def store(directory: Path, hosts: Sequence[str] = ("a",)) -> Engine:
    """A new store with these hosts (ids are names)."""
    (directory / "ca.pem").write_bytes(authority().ca_pem)
    engine = open_store(store_url(directory))
    with engine.begin() as connection:
        for host in hosts:
            add_host(connection, host, f"host-{host}", "01", NOW_MS)
    return engine


def recorded(events: Iterable[AuditEvent]) -> Chain:
    """A chain of these events."""
    made = Chain()
    made.add(*events)
    return made
