"""Texts and their classes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.model.ids import RunId
from agent.model.sql import Classified, Effect, Relation, Statement, unknown
from agent.proxy import classifier
from agent.proxy.classifier import (
    BUSY,
    CLASS_BYTES_PER_BYTE,
    CRASHED,
    KEPT_BYTES_MAX,
    KEPT_MAX,
    SHORT_TEXT_CHARACTERS_MAX,
    TOO_MUCH,
    WAITING_A_RUN_MAX,
    WAITING_A_RUN_MIN,
    WAITING_MAX,
    Classifier,
)
from agent.proxy.texts import Texts
from agent.wire.relay import Kinship

ANSWER_S = 120
RUN = RunId("run")
OTHER = RunId("other")


def classify(text: str) -> Classified:
    """Read, or die, or say too much."""
    if text.startswith("wait"):
        Path(text.split()[1]).read_bytes()  # of a pipe: until the test has written to it
    if text.startswith("die"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if text.startswith("late"):
        signal.raise_signal(signal.SIGALRM)  # as after WAIT_SECONDS_MAX
    relation = Relation("", "t" * 100)
    many = {"many": 4_000, "some": 900}.get(text[:4], 1)
    return Classified((Statement("SELECT", frozenset({Effect.READ}), (relation,) * many),), text)


@asynccontextmanager
async def running(
    on_gone: Callable[[], None] = lambda: None, kinship: Kinship | None = None
) -> AsyncIterator[Classifier]:
    """Yield a classifier of the dialect "x"."""
    processes = classifier.start({"x": classify}), classifier.start({"x": classify})
    kinships = {} if kinship is None else {"x": kinship}
    one = Classifier(*processes, on_gone, kinships)
    yield one
    one.close()


def asked(one: Classifier, text: str, run_id: RunId = RUN) -> "asyncio.Future[Classified]":
    """Ask."""
    future: asyncio.Future[Classified] = asyncio.get_running_loop().create_future()
    one.classify("x", text, run_id, future.set_result)
    return future


async def ask(one: Classifier, text: str) -> Classified:
    """Ask and wait."""
    async with asyncio.timeout(ANSWER_S):
        return await asked(one, text)


def test_a_text_is_classified_once() -> None:
    """An answer is kept: the second time it is known at once."""

    async def scenario() -> None:
        async with running() as one:
            assert one.known("x", "select 1") is None
            first = await ask(one, "select 1")
            assert first.statements[0].effects == {Effect.READ}
            assert one.known("x", "select 1") is first
            assert one.known("y", "select 1") is None

    asyncio.run(scenario())


def test_kin_is_classified_once() -> None:
    """A text with the key of another one has its class at once, if that class is shared."""

    def kin(text: str) -> str | None:
        return text.rstrip("0123456789") + "\0" if text[-1].isdigit() else None

    kinship = Kinship(kin, lambda classified: classified.normalized.startswith("select"))

    async def scenario() -> None:
        async with running(kinship=kinship) as one:
            first = await ask(one, "select 1")
            assert one.known("x", "select 2") is first
            assert one.known("x", "select 1") is first
            assert one.known("x", "select a") is None
            await ask(one, "own 1")
            assert one.known("x", "own 1") is not None
            assert one.known("x", "own 2") is None
            await ask(one, "die 1")
            assert one.known("x", "die 2") is None

    asyncio.run(scenario())


def test_a_crash_is_the_worst_class() -> None:
    """The text over which the process died is UNKNOWN, its neighbours are not."""

    async def scenario() -> None:
        async with running() as one:
            flights = [asked(one, text) for text in ("before", "die", "after")]
            before, died, after = [await flight for flight in flights]
            assert died == unknown(CRASHED)
            assert before.normalized == "before"
            assert after.normalized == "after"

    asyncio.run(scenario())


def test_a_text_without_time_is_nobodys_fault() -> None:
    """What the machine had no time for is refused and not kept: it has no class at all."""

    async def scenario() -> None:
        async with running() as one:
            flights = [asked(one, "late"), asked(one, "late", OTHER), asked(one, "after")]
            assert [await flight for flight in flights[:2]] == [BUSY] * 2
            assert (await flights[2]).normalized == "after"
            assert one.known("x", "late") is None

    asyncio.run(scenario())


def test_bounds() -> None:
    """Too many names, too many waiting, too many kept: each has its answer."""

    async def scenario() -> None:
        async with running() as one:
            assert await ask(one, "many names") == unknown(TOO_MUCH)
            flights = [asked(one, f"text {number}") for number in range(WAITING_A_RUN_MAX + 1)]
            assert [flight.done() for flight in flights[:2]] == [False, False]
            assert flights[-1].done()
            assert await flights[-1] == BUSY
            assert (await flights[-2]).normalized == f"text {WAITING_A_RUN_MAX - 1}"
            assert one.known("x", "text 0") is not None
            for number in range(KEPT_MAX):
                await asked(one, f"more {number}")
            assert one.known("x", "text 0") is None

    asyncio.run(scenario())


def test_what_is_kept_is_bounded_by_what_it_takes() -> None:
    """Short texts whose classes are large go before there are KEPT_MAX of them."""

    async def scenario() -> None:
        async with running() as one:
            await ask(one, "some 0")
            most = KEPT_BYTES_MAX // one._kept_bytes
            assert most < KEPT_MAX // 10
            for number in range(1, most + 1):
                await ask(one, f"some {number}")
                assert one._kept_bytes <= KEPT_BYTES_MAX
            assert one.known("x", "some 0") is None
            assert one.known("x", f"some {most}") is not None
            assert one._kept_bytes > KEPT_BYTES_MAX - CLASS_BYTES_PER_BYTE * 128 * 1024

    asyncio.run(scenario())


def test_a_lost_keeper_denies(tmp_path: Path) -> None:
    """Who waits when the keeper dies hears UNKNOWN, and the worker is told."""

    async def scenario() -> None:
        gone: list[bool] = []
        async with running(lambda: gone.append(True)) as one:
            os.mkfifo(tmp_path / "pipe")
            flights = [asked(one, text) for text in (f"wait {tmp_path}/pipe", "select 1")]
            os.kill(one._short._process.keeper_pid, signal.SIGKILL)
            assert [await flight for flight in flights] == [unknown(CRASHED)] * 2
            assert gone == [True]
            assert await ask(one, "select 2") == unknown(CRASHED)

    asyncio.run(scenario())


def test_a_sessions_answers_keep_their_order() -> None:
    """A text that is known waits behind one that is not."""

    async def scenario() -> None:
        async with running() as one:
            await ask(one, "known")
            told: list[str] = []
            texts = Texts(one, RUN, lambda text, _: told.append(text))
            texts.classify("x", "known")
            assert told == ["known"]
            texts.classify("x", "new")
            texts.classify("x", "known")
            assert told == ["known"]
            await ask(one, "one more, behind them")
            assert told == ["known", "new", "known"]

    asyncio.run(scenario())


def test_a_long_text_holds_up_no_short_one(tmp_path: Path) -> None:
    """A short text, at the limit, is answered while a longer one is still being read."""

    async def scenario() -> None:
        async with running() as one:
            os.mkfifo(tmp_path / "pipe")
            long = asked(one, f"wait {tmp_path}/pipe ".ljust(SHORT_TEXT_CHARACTERS_MAX + 1, "x"))
            short = await ask(one, "y" * SHORT_TEXT_CHARACTERS_MAX)
            assert short.normalized.startswith("y")
            assert not long.done()
            (tmp_path / "pipe").write_bytes(b"go on")
            assert (await long).normalized.startswith("wait")

    asyncio.run(scenario())


def test_runs_take_turns() -> None:
    """A polite run's text comes second, however many a flooding run sent before, and stays so."""

    async def scenario() -> None:
        async with running() as one:
            told: list[str] = []
            flights = []
            for number in range(WAITING_A_RUN_MAX):
                flights.append(asked(one, f"flood {number}"))
                flights[-1].add_done_callback(lambda done: told.append(done.result().normalized))
            for number in range(3):
                mine = asked(one, f"polite {number}", OTHER)
                mine.add_done_callback(lambda done: told.append(done.result().normalized))
                before = len(told)
                async with asyncio.timeout(ANSWER_S):
                    await mine
                assert len(told) - before <= 4, told
            assert (await flights[-1]).normalized == f"flood {WAITING_A_RUN_MAX - 1}"

    asyncio.run(scenario())


def test_who_waits_for_the_same_waits_for_the_shorter_queue() -> None:
    """A text that another run asked for at the end of its flood is answered in this run's turn."""

    async def scenario() -> None:
        async with running() as one:
            flood = [asked(one, f"text {number}") for number in range(200)]
            mine = asked(one, "text 199", OTHER)
            again = asked(one, "text 199", OTHER)
            assert (await mine).normalized == (await again).normalized == "text 199"
            assert flood[199].done()
            assert not flood[100].done()
            assert [(await flight).normalized for flight in flood][-2:] == ["text 198", "text 199"]
            assert not one._count
            assert not one._waiting

    asyncio.run(scenario())


def test_a_run_has_some_room_however_many_others_wait() -> None:
    """At the bound of all only runs with few waiting may have more, up to their own bound."""

    async def scenario() -> None:
        async with running() as one:
            crowd = [
                asked(one, f"text {number}", RunId(f"run {number % 8}"))
                for number in range(WAITING_MAX)
            ]
            assert not any(flight.done() for flight in crowd)
            assert await asked(one, "one more", RunId("run 0")) == BUSY
            few = [asked(one, f"few {number}", OTHER) for number in range(WAITING_A_RUN_MIN + 1)]
            assert await few[-1] == BUSY
            assert (await few[0]).normalized == "few 0"
            assert (await crowd[-1]).normalized == f"text {WAITING_MAX - 1}"

    asyncio.run(scenario())
