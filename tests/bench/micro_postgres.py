"""`python -m tests.bench.micro_postgres`: one PostgreSQL session's Python work, without sockets.

Relay, driver, recorder and both TLS engines are the real ones; the transports only take bytes.
`--mode prepared` is what pgbench sends (Bind, Describe, Execute, Sync), `simple` a Query whose
literal is new each time, `rows` an answer of 64 KiB of small rows.
"""

import argparse
import asyncio
import cProfile
import pstats
import time
from dataclasses import replace
from typing import Any, cast

from agent.ipc.messages import Durable
from agent.model.grant import Grant, PostgresOptions, Rule, SqlMatch
from agent.model.ids import LoopName, RuleId
from agent.model.sql import Classified, Effect
from agent.model.verdict import Mode
from agent.protocols.postgres.messages import message
from agent.protocols.postgres.relay import PostgresRelay
from agent.protocols.postgres.sql import classify
from agent.protocols.postgres.steady import Steady
from agent.proxy.channel import Channel
from agent.proxy.greeting import new_operation_id
from agent.proxy.pool import Upstream
from agent.wire.relay import RelayContext
from tests.bench.micro_session import Bench
from tests.protocols.postgres.steady_rig import opened

SQL = "SELECT abalance FROM pgbench_accounts WHERE aid = "
BIND = message(b"B", b"\0P_0\0\0\0\0\1\0\0\0\x0512345\0\1\0\0")
ASK = BIND + message(b"D", b"P\0") + message(b"E", b"\0\0\0\0\0") + message(b"S", b"")
COLUMN = b"abalance\0" + bytes(4) + b"\0\3\0\0\0\x17\0\4\xff\xff\xff\xff\0\0"
ROW = message(b"D", b"\0\1\0\0\0\1" + b"0")
HEAD = message(b"T", b"\0\1" + COLUMN)
TAIL = message(b"C", b"SELECT 1\0") + message(b"Z", b"I")
ROWS = 4_000


class Classes:
    """A classifier that answers at once, of what it has seen."""

    def __init__(self) -> None:
        self.kept: dict[str, Classified] = {}

    def known(self, _: str, text: str) -> Classified:
        """Return a text's class."""
        template = text[: len(SQL)]
        found = self.kept.get(template)
        if found is None:
            found = self.kept[template] = classify(text)
        return found


class PostgresBench(Bench):
    """One session, ready, between two in-memory TLS peers."""

    def begin(self, mode: str) -> None:
        """Put the relay of this protocol in, and prepare what the mode needs."""
        driver = self.driver
        target = replace(
            driver._target, protocol="postgres", shape=None, postgres=PostgresOptions()
        )
        sql = SqlMatch(frozenset({Effect.READ}))
        rule = Rule(RuleId("job/0"), "allow", Mode.ENFORCE, frozenset(), (), sql)
        grant = Grant(driver.session.run_id, LoopName("job"), target, "revision", (rule,), 0)
        driver._grant, driver._target = grant, target
        driver._intents._target = target
        driver._texts._classifier = cast("Any", Classes())
        context = RelayContext(driver.session.session_id, target, new_operation_id)
        relay = PostgresRelay(context)
        relay._opening, relay._steady = None, Steady(context, opened())
        driver._relay = relay
        driver._upstream = Upstream(cast("Channel", self.up), "192.0.2.1:5432")
        self.up.owner = self.down.owner = driver
        self.mode = mode
        self.number = 0
        if mode == "prepared":
            parse = message(b"P", b"P_0\0" + SQL.encode() + b"$1\0\0\0") + message(b"S", b"")
            self.down.data_received(self.loop_end.write(parse))
            answer = message(b"1", b"") + message(b"Z", b"I")
            self.up.data_received(self.server_end.write(answer))

    def next(self) -> None:
        """Make the next question and its answer."""
        self.number += 1
        answer = HEAD + ROW + TAIL
        if self.mode == "prepared":
            question, answer = ASK, message(b"2", b"") + answer
        else:
            question = message(b"Q", f"{SQL}{10_000 + self.number};\0".encode())
            if self.mode == "rows":
                answer = HEAD + ROW * ROWS + TAIL
        self.request_bytes = self.loop_end.write(question)
        self.response_bytes = self.server_end.write(answer)

    async def run(self, count: int) -> float:
        """Return seconds for so many questions (TLS of the far ends not counted)."""
        spent = 0.0
        for _ in range(count):
            self.next()
            start = time.perf_counter()
            await self.request()
            spent += time.perf_counter() - start
        return spent


async def bench(mode: str, count: int, *, profile: bool) -> None:
    """Run and print."""
    one = PostgresBench()
    one.begin(mode)
    await one.run(10)
    one.recorder.durable(Durable(one.reporter.last))
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    batches = [await one.run(count // 100) for _ in range(100)]
    if profiler:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(60)
    assert one.driver.session.operations == count // 100 * 100 + 10, one.driver.session
    best, middle = min(batches), sorted(batches)[50]
    scale = 1e6 / (count // 100)
    print(f"{mode}: {best * scale:.1f} us an operation at best, {middle * scale:.1f} median")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--mode", choices=("prepared", "simple", "rows"), default="prepared")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(bench(arguments.mode, arguments.count, profile=arguments.profile))
