"""The recorder: batches, waits as long as was asked, loses nothing, and is bounded."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from agent.ipc.endpoint import QUEUED_FRAMES_MAX, Endpoint, PeerGone
from agent.ipc.messages import FRAME_BYTES_MAX, Durable, Record, SpoolState
from agent.ipc.records import unpack_event
from agent.model.audit import (
    Heartbeat,
    OperationDenied,
    OperationFinished,
    Outcome,
    SessionOpened,
)
from agent.model.fitting import fitted
from agent.model.flow import Attribution, Evidence, Process, Tier
from agent.model.flow import Endpoint as Address
from agent.model.grant import Durability
from agent.model.ids import CgroupId, LoopName, OperationId, RuleId, RunId, SessionId, Tag
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.sql import Effect, Statement
from agent.proxy import recorder as recorder_module
from agent.proxy.recorder import (
    EVENT_BYTES_MAX,
    GATHER_INTENTS_MIN,
    GATHER_S,
    INTENTS_WAITING_MAX,
    OUTCOME_DELAY_S,
    UNACKNOWLEDGED_BYTES_MAX,
    Recorder,
)

DISK, PROCESS = Durability.DISK, Durability.PROCESS


class Ear:
    """A reporter's end that keeps the frames it gets."""

    def __init__(self) -> None:
        self.frames: list[Record] = []
        self.gone = False

    def notify(self, message: Record) -> None:
        """Keep, or be gone."""
        if self.gone:
            raise PeerGone("the test says so")
        self.frames.append(message)

    @property
    def events(self) -> list[object]:
        """All events so far."""
        return [unpack_event(*event) for frame in self.frames for event in frame.events]


class Case:
    """A recorder, its reporter, and what it answered."""

    def __init__(self) -> None:
        self.accepting: list[bool] = []
        self.recorder = Recorder(self.accepting.append)
        self.ear = Ear()
        self.answers: list[tuple[int, bool]] = []
        self.recorder.wired(cast("Endpoint", self.ear))

    def intend(self, number: int, level: Durability = PROCESS) -> None:
        """Intend event `number`."""
        self.recorder.intend(
            Heartbeat(number), level, lambda durable: self.answers.append((number, durable))
        )


def finished(note: str) -> OperationFinished:
    return OperationFinished(
        SessionId("s"), OperationId("o"), Outcome.ANSWERED, Reason.DONE, note, 0, 0, 0, ""
    )


def on_loop(test: Callable[[Case], Awaitable[None]]) -> None:
    async def run() -> None:
        await test(Case())

    asyncio.run(run())


def test_the_intents_of_a_turn_share_one_frame() -> None:
    """A hundred intents of one turn are one frame, answered by one acknowledgement."""

    async def claim(case: Case) -> None:
        for number in range(100):
            case.intend(number)
        assert case.ear.frames == []
        await asyncio.sleep(0)
        assert len(case.ear.frames) == 1
        assert case.answers == []
        case.recorder.durable(Durable(1))
        assert case.answers == [(number, True) for number in range(100)]

    on_loop(claim)


@pytest.mark.parametrize("level", list(Durability))
def test_intents_wait_for_the_frame_in_flight(level: Durability) -> None:
    """While a frame is not durable the next one gathers; it goes when the answer came."""

    async def claim(case: Case) -> None:
        case.intend(1, level)
        await asyncio.sleep(0)
        for number in (2, 3):
            case.intend(number, level)
            await asyncio.sleep(OUTCOME_DELAY_S * 2)
        assert [len(frame.events) for frame in case.ear.frames] == [1]
        case.recorder.durable(Durable(1))
        await asyncio.sleep(0)
        assert [len(frame.events) for frame in case.ear.frames] == [1, 2]
        case.recorder.durable(Durable(2))
        assert case.answers == [(1, True), (2, True), (3, True)]

    on_loop(claim)


def test_intents_for_less_do_not_wait_for_the_disk() -> None:
    """A frame for the disk in flight holds up none that asks for less."""

    async def claim(case: Case) -> None:
        case.intend(1, DISK)
        await asyncio.sleep(0)
        case.intend(2, PROCESS)
        await asyncio.sleep(0)
        assert [frame.level for frame in case.ear.frames] == [DISK, PROCESS]

    on_loop(claim)


@pytest.mark.parametrize("count", [GATHER_INTENTS_MIN - 1, GATHER_INTENTS_MIN])
def test_many_intents_for_the_disk_wait_for_company(count: int) -> None:
    """After GATHER_INTENTS_MIN the next wait for as many, or GATHER_S; after fewer they go."""

    async def claim(case: Case) -> None:
        for number in range(count):
            case.intend(number, DISK)
        await asyncio.sleep(0)
        case.recorder.durable(Durable(1))
        case.intend(count, DISK)
        await asyncio.sleep(0)
        assert len(case.ear.frames) == (2 if count < GATHER_INTENTS_MIN else 1)
        await asyncio.sleep(GATHER_S * 3)
        assert len(case.ear.frames) == 2

    on_loop(claim)


def test_as_many_as_before_do_not_wait_longer() -> None:
    """The frame goes in the turn in which it has as many intents as the one before had."""

    async def claim(case: Case) -> None:
        for _ in range(2):
            for number in range(GATHER_INTENTS_MIN):
                case.intend(number, DISK)
                if case.ear.frames:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            case.recorder.durable(Durable(len(case.ear.frames)))
        assert [len(frame.events) for frame in case.ear.frames] == [GATHER_INTENTS_MIN] * 2

    on_loop(claim)


def test_what_waits_behind_a_frame_without_an_answer_fails_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The intents in flight and those behind them fail INTENT_TIMEOUT_S after they came."""
    monkeypatch.setattr(recorder_module, "INTENT_TIMEOUT_S", 0.05)

    async def claim(case: Case) -> None:
        case.intend(1)
        await asyncio.sleep(0)
        case.intend(2)
        async with asyncio.timeout(60):
            while len(case.answers) < 2:  # noqa: ASYNC110 - a timer of its own, no event
                await asyncio.sleep(0.01)
        assert [len(frame.events) for frame in case.ear.frames] == [1]
        assert case.answers == [(1, False), (2, False)]
        monkeypatch.setattr(recorder_module, "INTENT_TIMEOUT_S", 60.0)
        case.intend(3)
        await asyncio.sleep(0)
        case.recorder.durable(Durable(len(case.ear.frames)))
        assert case.answers[2:] == [(3, True)]

    on_loop(claim)


def test_a_new_reporter_is_not_held_up_by_what_the_old_one_owed() -> None:
    """What was in flight to a reporter that died holds up nothing for its successor."""

    async def claim(case: Case) -> None:
        case.intend(1)
        await asyncio.sleep(0)
        case.recorder.unwired()
        case.recorder.wired(cast("Endpoint", case.ear))
        case.intend(2)
        await asyncio.sleep(0)
        case.recorder.durable(Durable(2))
        await asyncio.sleep(0)
        assert case.answers == [(1, False), (2, True)]

    on_loop(claim)


def test_an_outcome_travels_with_the_next_intent() -> None:
    """What nobody waits for costs no frame of its own when an intent follows."""

    async def claim(case: Case) -> None:
        case.recorder.record(finished("200"))
        case.intend(1)
        await asyncio.sleep(0)
        assert len(case.ear.frames) == 1
        assert case.ear.events == [finished("200"), Heartbeat(1)]

    on_loop(claim)


def test_an_outcome_alone_is_sent_soon() -> None:
    """Without company it goes after OUTCOME_DELAY_S."""

    async def claim(case: Case) -> None:
        case.recorder.record(finished("200"))
        await asyncio.sleep(OUTCOME_DELAY_S * 3)
        assert case.ear.events == [finished("200")]

    on_loop(claim)


def test_an_acknowledgement_of_less_does_not_answer_the_disk() -> None:
    """`process` frames are answered before an older `disk` frame, which waits for its own."""

    async def claim(case: Case) -> None:
        case.intend(1, DISK)
        await asyncio.sleep(0)
        case.intend(2, PROCESS)
        await asyncio.sleep(0)
        assert [frame.level for frame in case.ear.frames] == [DISK, PROCESS]
        case.recorder.durable(Durable(2))
        assert case.answers == [(2, True)]
        case.recorder.durable(Durable(1))
        assert case.answers == [(2, True), (1, True)]

    on_loop(claim)


def test_levels_do_not_mix_in_a_frame() -> None:
    """Intents of one turn with different levels go in frames of their own, in order."""

    async def claim(case: Case) -> None:
        for number, level in enumerate((PROCESS, DISK, PROCESS)):
            case.intend(number, level)
        await asyncio.sleep(0)
        assert [frame.level for frame in case.ear.frames] == [PROCESS, DISK, PROCESS]
        assert case.ear.events == [Heartbeat(0), Heartbeat(1), Heartbeat(2)]

    on_loop(claim)


def test_a_frame_is_bounded() -> None:
    """More than fits goes in several frames, none above FRAME_BYTES_MAX."""

    async def claim(case: Case) -> None:
        for _ in range(40):
            case.recorder.record(finished("x" * 4_000))
        case.recorder.flush()
        sizes = [sum(len(body) for _, body in frame.events) for frame in case.ear.frames]
        assert len(sizes) > 1
        assert max(sizes) < FRAME_BYTES_MAX
        assert len(case.ear.events) == 40

    on_loop(claim)


def test_waiting_intents_are_bounded() -> None:
    """INTENTS_WAITING_MAX wait; one more fails at once; room again after an answer."""

    async def claim(case: Case) -> None:
        for number in range(INTENTS_WAITING_MAX + 1):
            case.intend(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert case.answers == [(INTENTS_WAITING_MAX, False)]
        case.recorder.durable(Durable(case.ear.frames[-1].durable))
        case.intend(0)
        await asyncio.sleep(0)
        assert case.answers.count((0, False)) == 0

    on_loop(claim)


@pytest.mark.parametrize("how", ["gone", "refuses", "send fails"])
def test_without_a_reporter_intents_fail(how: str) -> None:
    """What waits fails, what comes fails, and never from within the call."""

    async def claim(case: Case) -> None:
        case.intend(1)
        if how == "gone":
            await asyncio.sleep(0)
            case.recorder.unwired()
        elif how == "refuses":
            await asyncio.sleep(0)
            case.recorder.spool_state(SpoolState(False, "full"))
        else:
            case.ear.gone = True
            await asyncio.sleep(0)
        case.intend(2)
        assert case.answers == []
        await asyncio.sleep(0)
        assert case.answers == [(1, False), (2, False)]

    on_loop(claim)


def test_a_new_reporter_gets_all_that_is_not_acknowledged() -> None:
    """In order, small ones in one frame under the last number; not what was acknowledged."""

    async def claim(case: Case) -> None:
        for number in (1, 2, 3):
            case.recorder.record(finished(str(number)))
            case.recorder.flush()
        case.recorder.durable(Durable(1))
        case.recorder.unwired()
        case.recorder.record(finished("4"))
        case.recorder.flush()
        successor = Ear()
        case.recorder.wired(cast("Endpoint", successor))
        assert successor.events == [finished("2"), finished("3"), finished("4")]
        assert [frame.durable for frame in successor.frames] == [4]

    on_loop(claim)


def test_what_a_new_reporter_gets_at_once_fits_its_queue() -> None:
    """More small frames than a peer's queue takes are sent again as few, all in order."""

    async def claim(case: Case) -> None:
        count = QUEUED_FRAMES_MAX + 1_000
        for number in range(count):
            case.recorder.record(finished(str(number)))
            case.recorder.flush()
        assert len(case.ear.frames) == count
        case.recorder.unwired()
        new = Ear()
        case.recorder.wired(cast("Endpoint", new))
        assert len(new.frames) < QUEUED_FRAMES_MAX / 10
        assert new.events == [finished(str(number)) for number in range(count)]
        assert new.frames[-1].durable == count
        case.recorder.durable(Durable(count))
        async with asyncio.timeout(60):
            await case.recorder.settle()

    on_loop(claim)


def test_a_full_recorder_says_so_and_recovers() -> None:
    """At UNACKNOWLEDGED_BYTES_MAX connections stop, nothing is dropped; half of it frees them."""

    async def claim(case: Case) -> None:
        count = UNACKNOWLEDGED_BYTES_MAX // 40_000 + 40
        for _ in range(count):
            case.recorder.record(finished("x" * 40_000))
        case.recorder.flush()
        assert case.accepting == [False]
        case.intend(1)
        await asyncio.sleep(0)
        assert case.answers == [(1, False)]
        assert len(case.ear.events) == count
        case.recorder.durable(Durable(case.ear.frames[-1].durable))
        assert case.accepting == [False, True]

    on_loop(claim)


def test_a_session_with_huge_arguments_is_recorded_without_them() -> None:
    """An event above EVENT_BYTES_MAX is cut to its processes' names: recorded, and marked so."""
    process = Process(1, 1, 1, "c", "/c", ("c", "y" * EVENT_BYTES_MAX), False)
    attribution = Attribution(
        SessionId("s"), RunId("r"), Tag(1), CgroupId(1), Evidence.TAG_AND_CGROUP, Tier.LAUNCHED,
        Address("::1", 1), 1, 1, 1, process, (process,),
    )  # fmt: skip

    async def claim(case: Case) -> None:
        opened = SessionOpened(attribution, LoopName("l"), None)
        case.recorder.record(opened)
        case.recorder.flush()
        bare = dataclasses.replace(process, argv=("c",), argv_truncated=True)
        kept = dataclasses.replace(attribution, process=bare, ancestors=(bare,))
        assert case.ear.events == [dataclasses.replace(opened, attribution=kept)]

    on_loop(claim)


def test_an_operation_that_is_too_large_is_recorded_cut() -> None:
    """What is recorded fits a frame and says what is left out."""
    statement = Statement("SELECT", frozenset({Effect.READ}))
    operation = Operation(OperationId("o"), "postgres", "SELECT", "x", (), (statement,) * 9_000)

    async def claim(case: Case) -> None:
        denied = OperationDenied(
            SessionId("s"), RunId("r"), LoopName("l"), None, operation, RuleId("l/0"),
            Reason.POLICY_DENIED, "", "42501",
        )  # fmt: skip
        case.recorder.record(denied)
        case.recorder.flush()
        assert case.ear.events == [dataclasses.replace(denied, operation=fitted(operation))]

    on_loop(claim)


def test_settling_waits_for_the_last_acknowledgement() -> None:
    """`settle` returns when nothing of ours is unacknowledged."""

    async def claim(case: Case) -> None:
        case.recorder.record(finished("200"))
        settling = asyncio.ensure_future(case.recorder.settle())
        await asyncio.sleep(0)
        assert not settling.done()
        case.recorder.durable(Durable(1))
        await settling

    on_loop(claim)
