"""The boundary between our processes: typed, bounded, and closed to everything else."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ipc.endpoint import (
    QUEUED_FRAMES_MAX,
    Endpoint,
    PeerGone,
    Received,
    RequestFailed,
    pair,
)
from agent.ipc.messages import (
    FRAME_BYTES_MAX,
    Admit,
    Alarm,
    Done,
    Drain,
    Failed,
    ListRuns,
    Message,
    Ready,
    RunEmptied,
    Runs,
    Wire,
)
from agent.model.ids import RunId
from agent.model.reason import Reason

RUN = RunId("01JD0000000000000000000000")


class Ends:
    """A kernel end and a broker end, and what each received."""

    def __init__(self, answer: Callable[[Received], Awaitable[None] | None] | None = None) -> None:
        left, right = pair()
        self.at_kernel: list[Received] = []
        self.at_broker: list[Received] = []
        self.closed: list[str] = []
        self.kernel = Endpoint(
            left,
            own="kernel",
            peer="broker",
            receive=answer or self.at_kernel.append,
            on_closed=self.closed.append,
        )
        self.broker = Endpoint(
            right,
            own="broker",
            peer="kernel",
            receive=self.at_broker.append,
            on_closed=self.closed.append,
        )

    def close(self) -> None:
        """Close both."""
        self.kernel.close()
        self.broker.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition of the event loop's own making."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the condition is the peer's, no event of ours
            await asyncio.sleep(0)


def test_what_has_arrived_can_be_taken_at_once() -> None:
    """look takes what is there without a turn of the event loop; nothing there is no harm."""

    async def scenario() -> None:
        ends = Ends()
        ends.broker.look()
        assert not ends.at_broker
        ends.kernel.notify(RunEmptied(RUN, 1))
        ends.kernel.notify(RunEmptied(RUN, 2))
        ends.broker.look()
        ends.broker.look()
        assert [received.message for received in ends.at_broker] == [
            RunEmptied(RUN, 1),
            RunEmptied(RUN, 2),
        ]
        ends.close()
        ends.broker.look()

    asyncio.run(scenario())


def test_notices_arrive_in_order() -> None:
    """Notices arrive typed, whole and in the order of sending."""

    async def scenario() -> None:
        ends = Ends()
        for number in range(100):
            ends.kernel.notify(RunEmptied(RUN, number))
        await until(lambda: len(ends.at_broker) == 100)
        assert [received.message for received in ends.at_broker] == [
            RunEmptied(RUN, number) for number in range(100)
        ]
        ends.close()

    asyncio.run(scenario())


def test_requests_get_their_own_reply() -> None:
    """Replies reach the request they answer, whatever their order."""

    async def scenario() -> None:
        waiting: list[Received] = []
        ends = Ends(waiting.append)
        first = asyncio.ensure_future(ends.broker.request(ListRuns(), Runs))
        second = asyncio.ensure_future(ends.broker.request(ListRuns(), Done))
        await until(lambda: len(waiting) == 2)
        waiting[1].reply(Done())
        waiting[0].reply(Runs(()))
        assert await first == Runs(())
        assert await second == Done()
        ends.close()

    asyncio.run(scenario())


def test_a_refused_request_raises_with_its_reason() -> None:
    """Failed becomes RequestFailed with the reason; another reply than expected is a failure."""

    async def scenario() -> None:
        answers = iter([Failed(Reason.RUN_UNKNOWN, "no such run"), Done()])
        ends = Ends(lambda received: received.reply(next(answers)))
        with pytest.raises(RequestFailed) as refused:
            await ends.broker.request(ListRuns(), Runs)
        assert refused.value.failed.reason is Reason.RUN_UNKNOWN
        with pytest.raises(RequestFailed, match="unexpected Done"):
            await ends.broker.request(ListRuns(), Runs)
        ends.close()

    asyncio.run(scenario())


def test_descriptors_travel_with_their_message() -> None:
    """A descriptor arrives with its message, and the sender keeps its own."""

    async def scenario() -> None:
        ends = Ends()
        reader, writer = os.pipe()
        ends.broker.send_frame(0, is_reply=False, message=Admit(RUN), fds=(writer,))
        os.write(writer, b"mine")
        await until(lambda: ends.at_kernel)
        (received,) = ends.at_kernel
        os.write(received.fds[0], b" and theirs")
        assert os.read(reader, 64) == b"mine and theirs"
        received.close_fds()
        os.close(reader)
        os.close(writer)
        ends.close()

    asyncio.run(scenario())


def test_a_message_of_another_boundary_ends_the_peer() -> None:
    """What the table does not permit closes the endpoint and is told, with requests in flight."""

    async def scenario() -> None:
        ends = Ends(lambda _: None)
        asked = asyncio.ensure_future(ends.broker.request(ListRuns(), Runs))
        await asyncio.sleep(0)
        ends.broker.notify(Wire("broker"))  # only kernel may wire
        with pytest.raises(PeerGone):
            await asked
        assert ends.kernel.closed
        assert ends.closed[0].startswith("frame is not of the boundary")
        ends.close()

    asyncio.run(scenario())


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_message_or_end_the_peer(frame: bytes) -> None:
    """A frame of any bytes is a permitted message or ends the peer; it never raises."""

    async def scenario() -> None:
        left, right = pair()
        seen: list[object] = []
        endpoint = Endpoint(
            left, own="kernel", peer="broker", receive=seen.append, on_closed=seen.append
        )
        right.send(frame)
        right.close()
        await until(lambda: endpoint.closed)
        assert seen
        endpoint.close()

    asyncio.run(scenario())


def test_text_that_is_not_utf8_ends_the_peer() -> None:
    """Bytes that are no text, where text must be, are a broken frame like any other."""

    async def scenario() -> None:
        ends = Ends()
        ends.broker._sock.send(b"\x93\x00\xc2\x92\xa5Admit\xa1\xff")
        await until(lambda: ends.closed)
        assert ends.closed[0].startswith("frame is not of the boundary")
        ends.close()

    asyncio.run(scenario())


def test_frames_at_the_limit_pass_and_past_it_are_refused() -> None:
    """FRAME_BYTES_MAX bytes pass; one more raises on sending and ends a peer that sends it."""

    async def scenario() -> None:
        ends = Ends()
        overhead = len(msgspec.msgpack.encode((0, False, Alarm("a", "", RUN))))
        fits = "x" * (FRAME_BYTES_MAX - overhead - 2)  # str16 header is 3 bytes, "" has 1
        ends.kernel.notify(Alarm("a", fits, RUN))
        await until(lambda: ends.at_broker)
        assert ends.at_broker[0].message == Alarm("a", fits, RUN)
        with pytest.raises(ValueError, match="exceeds a frame"):
            ends.kernel.notify(Alarm("a", fits + "x", RUN))
        ends.close()
        left, right = pair()
        why: list[str] = []
        endpoint = Endpoint(
            left, own="kernel", peer="broker", receive=lambda _: None, on_closed=why.append
        )
        right.send(b"x" * (FRAME_BYTES_MAX + 1))
        await until(lambda: why)
        assert why == ["frame over the limit"]
        endpoint.close()
        right.close()

    asyncio.run(scenario())


def test_a_peer_that_does_not_read_is_given_up_at_a_bound() -> None:
    """Up to QUEUED_FRAMES_MAX frames wait for a slow peer; one more ends it."""

    async def scenario() -> None:
        left, right = pair()
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        why: list[str] = []
        endpoint = Endpoint(
            left, own="kernel", peer="broker", receive=lambda _: None, on_closed=why.append
        )
        sent = 0
        with contextlib.suppress(PeerGone):
            while True:
                endpoint.notify(Drain(1.0))
                sent += 1
        assert sent >= QUEUED_FRAMES_MAX
        assert why == [f"{QUEUED_FRAMES_MAX} frames unsent"]
        right.close()

    asyncio.run(scenario())


def test_a_slow_peer_gets_everything_when_it_reads() -> None:
    """Frames that had to wait arrive whole and in order."""

    async def scenario() -> None:
        ends = Ends()
        for number in range(5_000):
            ends.kernel.notify(RunEmptied(RUN, number))
        await until(lambda: len(ends.at_broker) == 5_000)
        assert [m.message.at_ns for m in ends.at_broker] == list(range(5_000))  # type: ignore[attr-defined]
        ends.close()

    asyncio.run(scenario())


def test_a_gone_peer_is_told_once() -> None:
    """on_closed is called once; sending afterwards raises PeerGone."""

    async def scenario() -> None:
        ends = Ends()
        ends.broker.notify(Ready())
        ends.broker.close()
        await until(lambda: ends.closed)
        assert ends.closed == ["closed by peer"]
        assert [received.message for received in ends.at_kernel] == [Ready()]
        with pytest.raises(PeerGone):
            ends.kernel.notify(Drain(1.0))

    asyncio.run(scenario())


@pytest.mark.parametrize("message", [Ready(), ListRuns()])
def test_descriptors_with_a_message_that_takes_none_end_the_peer(message: Message) -> None:
    """A hostile role cannot fill another's descriptor table: they are closed, and so is the end."""

    async def scenario() -> None:
        ends = Ends()
        before = set(os.listdir("/proc/self/fd"))
        ends.broker.notify(message, [0] * 32)
        await until(lambda: ends.closed)
        assert "takes none" in ends.closed[0]
        assert ends.kernel.closed
        assert not ends.at_kernel
        assert len(os.listdir("/proc/self/fd")) < len(before)
        ends.close()

    asyncio.run(scenario())


def test_descriptors_with_a_reply_end_the_peer() -> None:
    """Replies carry none."""

    async def scenario() -> None:
        ends = Ends()
        ends.broker.send_frame(7, is_reply=True, message=Ready(), fds=[0])
        await until(lambda: ends.closed)
        assert "takes none" in ends.closed[0]
        ends.close()

    asyncio.run(scenario())


def test_a_request_without_a_number_ends_its_sender() -> None:
    """It can't be answered: against the rules, not an error of the one who was asked."""

    async def scenario() -> None:
        ends = Ends(lambda received: received.reply(Runs(())))
        ends.broker.notify(ListRuns())
        await until(lambda: ends.closed)
        assert "ListRuns without a number" in ends.closed[0]
        ends.close()

    asyncio.run(scenario())
