"""A body that is held for its hash: what may happen meanwhile, and how much is held when."""

import pytest

from agent.model.audit import Outcome
from agent.model.reason import Reason
from agent.model.verdict import Allow
from agent.protocols.http1.held import HELD, Held
from agent.protocols.http1.limits import (
    HELD_BYTES_MAX,
    RUN_HELD_BYTES_MAX,
    SIGNED_BODY_BYTES_MAX,
    STALL_S,
    WATCH_TIMER,
)
from agent.wire.aws.chunks import CHUNK_BYTES_MAX
from agent.wire.commands import Pause, Resume
from agent.wire.events import TimedOut
from tests.conformance.conductor import RULE, RUN_KEY, Conductor
from tests.protocols.http1.signed import DYNAMODB, HOST, OK, S3, stage

HEAD = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


def _begun() -> Conductor:
    """Return a conversation in which half of a body came."""
    conductor, _ = stage(DYNAMODB)
    conductor.down(HEAD % 10 + b"hello")
    assert conductor.running()
    assert not conductor.to_loop
    assert not conductor.to_server
    return conductor


def test_before_the_verdict_little_is_held() -> None:
    """The loop is paused at HELD_BYTES_MAX as for any request, and read on when it may."""
    conductor, server = stage(DYNAMODB)
    conductor.world.verdict = lambda _: None
    size = 4 * HELD_BYTES_MAX
    conductor.down(HEAD % size + b"x" * HELD_BYTES_MAX)
    assert not any(isinstance(each, Pause) for each in conductor.commands)
    conductor.down(b"x")
    assert isinstance(conductor.commands[-1], Pause)
    [operation] = conductor.judged
    conductor.answer_judge(operation, Allow(RULE))
    conductor.give(TimedOut(WATCH_TIMER))
    assert any(isinstance(each, Resume) for each in conductor.commands)
    conductor.down(b"x" * (size - HELD_BYTES_MAX - 1))
    assert len(server.requests[0].body) == size
    conductor.down_eof()
    conductor.check_ended()


def test_it_does_not_come() -> None:
    """No byte for STALL_S: 408, and the connection ends. Each byte gives it more."""
    conductor = _begun()
    conductor.wait(STALL_S - 10)
    conductor.down(b"w")
    conductor.wait(STALL_S - 10)
    assert conductor.running()
    conductor.wait(10)
    assert conductor.to_loop.startswith(b"HTTP/1.1 408 ")
    assert [each.reason for each in conductor.denied] == [Reason.TIMED_OUT]
    assert not conductor.to_server


def test_the_loop_goes_away() -> None:
    """It is recorded as never made."""
    conductor = _begun()
    conductor.down_eof()
    conductor.check_ended()
    assert [each.reason for each in conductor.denied] == [Reason.DOWNSTREAM_CLOSED]
    assert not conductor.to_server


def test_the_session_is_cut() -> None:
    """With the true cause, in AWS' own form."""
    conductor = _begun()
    conductor.cut(Reason.RUN_ENDED)
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 503 ")
    assert b'"__type": "RunEnded"' in conductor.to_loop
    assert not conductor.to_server


@pytest.mark.parametrize("rest", [b"x\r\n", b"5\r\nworldXX", b"fffffffffffffff\r\n"])
def test_its_framing_breaks(rest: bytes) -> None:
    """400, and nothing goes."""
    conductor, _ = stage(DYNAMODB)
    conductor.down(CHUNKED)
    conductor.down(rest)
    assert conductor.to_loop.startswith(b"HTTP/1.1 400 ")
    assert not conductor.to_server
    conductor.down_eof()
    conductor.check_ended()


def test_the_upstream_of_the_request_before_closes() -> None:
    """A kept connection that ends while the next body is held: the request takes another."""
    conductor, server = stage(DYNAMODB)
    conductor.down(HEAD % 2 + b"{}")
    assert len(server.requests) == 1
    conductor.down(HEAD % 4 + b"{}")
    conductor.up_eof()
    conductor.down(b"{}")
    assert [seen.body for seen in server.requests] == [b"{}", b"{}{}"]
    conductor.down_eof()
    conductor.check_ended()
    assert [each.outcome for each in conductor.outcomes] == [Outcome.ANSWERED] * 2
    assert conductor.to_loop == OK * 2


CHUNKS = (
    b"PUT / HTTP/1.1\r\n" + HOST + b"x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%x;chunk-signature=" + b"0" * 64 + b"\r\n"
)  # fmt: skip


def _holding(count: int, *, chunks: bool) -> list[Conductor]:
    """Return conversations that hold a body, or a chunk, which lacks its last bytes."""
    found = []
    size = CHUNK_BYTES_MAX if chunks else SIGNED_BODY_BYTES_MAX
    for _ in range(count):
        conductor, _ = stage(S3 if chunks else DYNAMODB)
        conductor.down(CHUNKS % (size + 200, size) if chunks else HEAD % size)
        conductor.down(b"x" * (size - 1_000))
        found.append(conductor)
    return found


@pytest.mark.parametrize("chunks", [False, True])
def test_all_that_a_run_holds(chunks: bool) -> None:
    """RUN_HELD_BYTES_MAX go; past it 503, which SDKs try again, and they may when one has ended."""
    assert HELD.of(RUN_KEY) == 0
    each_bytes = CHUNK_BYTES_MAX if chunks else SIGNED_BODY_BYTES_MAX
    many = _holding(RUN_HELD_BYTES_MAX // each_bytes, chunks=chunks)
    assert all(each.running() and not each.to_loop for each in many)
    [late] = _holding(1, chunks=chunks)
    assert late.to_loop.startswith(b"HTTP/1.1 503 ")
    assert HELD.of(RUN_KEY) <= RUN_HELD_BYTES_MAX
    many.pop().cut(Reason.RUN_ENDED)
    [again] = _holding(1, chunks=chunks)
    assert again.running()
    assert not again.to_loop
    again.down(b"x" * 1_000)  # of a held body that is all: it goes, and nothing is held
    for each in (*many, again, late):
        each.down_eof()
        each.check_ended()
    assert HELD.of(RUN_KEY) == 0


def test_the_count_of_each_run_is_its_own() -> None:
    """One past the bound is not counted; what is given back is there for others of the run."""
    held = Held()
    assert held.change(b"a", RUN_HELD_BYTES_MAX)
    assert not held.change(b"a", 1)
    assert held.change(b"b", 1)
    assert held.change(b"a", -1)
    assert held.change(b"a", 1)
    assert held.change(b"a", -RUN_HELD_BYTES_MAX)
    assert (held.of(b"a"), held.of(b"b")) == (0, 1)
