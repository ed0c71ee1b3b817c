"""Spools for tests: opened as the reporter opens them."""

from pathlib import Path

from agent.spool.recovery import recover
from agent.spool.writer import Spool, SpoolLimits

BOOT = bytes(range(16))
SMALL = SpoolLimits(
    bytes_max=1_000_000, segment_bytes=4_096, headroom_bytes=100_000, reserve_bytes=16_384
)


def opened(directory: Path, limits: SpoolLimits = SMALL, kind: type[Spool] = Spool) -> Spool:
    """Recover and open, as every start does."""
    return kind(directory, recover(directory), boot=BOOT, created_ms=1, limits=limits)


def record(seq: int, size_bytes: int = 100) -> bytes:
    """A record that says its number."""
    return f"{seq:010d}".encode().ljust(size_bytes, b".")


def filled(directory: Path, count: int, limits: SpoolLimits = SMALL) -> Spool:
    """A spool with records 1 … count, all durable."""
    spool = opened(directory, limits)
    for seq in range(1, count + 1):
        spool.append([record(seq)])
    spool.sync()
    return spool
