"""`python -m tests.bench.micro_postgres_relay`: the Python work of a statement in the relay.

No sockets, no policy, no spool, texts classified before: only the steady half, its commands and
scrubbing. CPU time, the best of several rounds: on a shared machine the others measure the
neighbours.
"""

import itertools
import time
from collections.abc import Callable

from agent.model.grant import PostgresOptions
from agent.model.ids import OperationId, RuleId, SessionId
from agent.model.verdict import Allow
from agent.protocols.postgres.messages import message
from agent.protocols.postgres.steady import Steady
from agent.wire.commands import Classify, Judge, RecordIntent
from agent.wire.events import Data, Event, Judged, Recorded, TextClassified
from agent.wire.relay import RelayContext
from agent.wire.side import Side
from tests.conformance.conductor import target
from tests.protocols.postgres.steady_rig import (
    SYNC,
    bind,
    class_of,
    describe,
    execute,
    opened,
    parse,
    query,
    whole,
)

ROUNDS = 9
CYCLES = 2000
BULK_BYTES = 16 << 20
READ_BYTES = 64 << 10
ALLOW = Allow(RuleId("loop/0"))
TEXT = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"
SIMPLE = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;"
ROWS = message(b"T", b"\0\x01abalance\0" + bytes(18))
ANSWER = ROWS + message(b"D", b"\0\x01\0\0\0\x05-1234") + message(b"C", b"SELECT 1\0")
READY = message(b"Z", b"I")
PARSED, BOUND = b"1\0\0\0\4", b"2\0\0\0\4"


def _session() -> Steady:
    ids = map("{:026d}".format, itertools.count())
    asked = target("postgres", postgres=PostgresOptions())
    context = RelayContext(SessionId("S" * 26), asked, lambda: OperationId(next(ids)))
    return Steady(context, opened())


def _give(steady: Steady, event: Event) -> None:
    events = [event]
    for each in events:
        for command in steady.handle(each, 0):
            if isinstance(command, Judge):
                events.append(Judged(command.operation.operation_id, ALLOW))
            elif isinstance(command, RecordIntent):
                events.append(Recorded(command.operation.operation_id))
            elif isinstance(command, Classify):
                events.append(TextClassified(command.text, class_of(command.text)))


def _cycle(asked: bytes, answer: bytes, before: tuple[bytes, bytes] | None) -> Callable[[], None]:
    steady = _session()
    if before is not None:
        _give(steady, Data(Side.DOWNSTREAM, before[0]))
        _give(steady, Data(Side.UPSTREAM, before[1]))
    down, up = Data(Side.DOWNSTREAM, asked), Data(Side.UPSTREAM, answer)

    def work() -> None:
        _give(steady, down)
        _give(steady, up)

    return work


def _best(work: Callable[[], None], cycles: int) -> float:
    """Return the seconds of CPU that one call costs."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(cycles):
            work()
        best = min(best, (time.process_time() - begun) / cycles)
    return best


def _bulk(side: Side, asked: str, before: bytes, one: bytes) -> float:
    """Return bytes a second of a long result or COPY."""
    data = one * (BULK_BYTES // len(one))
    chunks = [Data(side, data[at : at + READ_BYTES]) for at in range(0, len(data), READ_BYTES)]
    steady = _session()
    _give(steady, Data(Side.DOWNSTREAM, query(asked)))
    steady.handle(Data(Side.UPSTREAM, before), 0)

    def work() -> None:
        for chunk in chunks:
            steady.handle(chunk, 0)

    return len(data) / _best(work, 1)


def main() -> None:
    """Measure and print."""
    prepared = bind("12345", name="P0_1") + describe() + execute() + SYNC
    made = (parse(TEXT, "P0_1") + SYNC, PARSED + READY)
    transactions = {
        "pgbench -S, simple": _cycle(query(SIMPLE), ANSWER + READY, None),
        "pgbench -S, extended": _cycle(
            whole(TEXT, "12345") + SYNC, PARSED + BOUND + ANSWER + READY, None
        ),
        "pgbench -S, prepared": _cycle(prepared, BOUND + ANSWER + READY, made),
    }
    for name, work in transactions.items():
        work()
        print(f"{name:40} {_best(work, CYCLES) * 1e6:8.1f} µs a transaction")
    for size in (20, 100, 1000, 100_000):
        row = message(b"D", b"\0\x01" + size.to_bytes(4, "big") + b"x" * size)
        rate = _bulk(Side.UPSTREAM, SIMPLE, ROWS, row)
        print(f"{f'rows of {size} bytes':40} {rate / 1e6:8.0f} MB/s")
    line = b"12345\tabcdefgh\t\\N\t2024-01-01 00:00:00\t50%\n"
    bulk = {
        "COPY out, lines of 45 bytes with \\ and %": ("COPY t TO STDOUT", b"H", line, 1),
        "COPY in, 100 lines a message": ("COPY t FROM STDIN", b"G", line, 100),
    }
    for name, (text, kind, data, lines) in bulk.items():
        side = Side.UPSTREAM if kind == b"H" else Side.DOWNSTREAM
        rate = _bulk(side, text, message(kind, b"\0\0\0"), message(b"d", data * lines))
        print(f"{name:40} {rate / 1e6:8.0f} MB/s")


if __name__ == "__main__":
    main()
