"""A connection over its life: keep-alive, pipelining, bodies, time, cuts, retries."""

import pytest

from agent.model.audit import Outcome
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.protocols.http1 import SPEC
from agent.protocols.http1.limits import (
    DRAIN_BYTES_MAX,
    DRAIN_S,
    HEAD_S,
    HELD_BYTES_HARD,
    HELD_BYTES_MAX,
    IDLE_S,
    STALL_S,
)
from agent.wire.commands import CloseUpstream, OpenUpstream, Pause, Resume
from agent.wire.events import UpstreamFailed, UpstreamOpened
from agent.wire.side import Side
from tests.conformance.conductor import Conductor, World, allow, deny, silent
from tests.protocols.http1.server import Server

HOST = b"Host: api.example.com\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _post(size: int, fields: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"Content-Length: %d\r\n\r\n" % size


def _conductor(**world: object) -> Conductor:
    return Conductor(SPEC, World(**world))  # type: ignore[arg-type]


def test_a_pipelined_request_waits_for_the_answer_before_it() -> None:
    """One request is in flight at a time, and answers come in order."""
    conductor = _conductor()
    conductor.down(GET + GET.replace(b"/ ", b"/second "))
    assert conductor.to_server.count(b"GET ") == 1
    conductor.up(OK)
    assert conductor.to_server.count(b"GET ") == 2
    assert b"/second" in conductor.to_server


def test_pipelined_bytes_are_bounded() -> None:
    """More than HELD_BYTES_MAX pauses the loop once; it is resumed when the answer is through."""
    conductor = _conductor(verdict=lambda _: None)
    conductor.down(GET)
    conductor.down(b"GET /" + b"a" * (HELD_BYTES_MAX - 5))
    assert Pause(Side.DOWNSTREAM) not in conductor.commands
    conductor.down(b"a")
    assert conductor.commands.count(Pause(Side.DOWNSTREAM)) == 1


def test_the_hard_bound_ends_the_session() -> None:
    """Bytes given in spite of Pause end the session at HELD_BYTES_HARD."""
    conductor = _conductor(verdict=lambda _: None)
    conductor.down(GET)
    conductor.paused = False
    for _ in range(HELD_BYTES_HARD // 65536):
        conductor.down(b"a" * 65536)
        conductor.paused = False
    assert conductor.running()
    conductor.down(b"a")
    conductor.check_ended()
    assert conductor.finished is Reason.OVERLOADED


def test_a_body_waits_for_the_decision() -> None:
    """Body bytes before the record are held up to the bound, then sent whole, and it goes on."""
    waiting: list[Operation] = []

    def later(operation: Operation) -> None:
        waiting.append(operation)

    server = Server((OK,))
    conductor = _conductor(verdict=later, server=server)
    body = b"b" * (HELD_BYTES_MAX + 70000)
    conductor.down(_post(len(body)) + body)
    assert conductor.paused
    assert not conductor.to_server
    conductor.answer_judge(waiting[0], allow(waiting[0]))
    conductor.down(b"")
    conductor.wait(0)  # lets the answer through
    conductor.down(b"")
    assert Resume(Side.DOWNSTREAM) in conductor.commands
    assert server.requests[0].body == body


def test_expect_is_forwarded_and_never_answered_by_us() -> None:
    """100-continue is the upstream's word: forwarded after the decision, 100 comes from it."""
    conductor = _conductor()
    conductor.down(_post(5, b"Expect: 100-continue\r\n"))
    assert b"Expect: 100-continue\r\n" in conductor.to_server
    assert len(conductor.to_loop) == 0
    conductor.up(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert conductor.to_loop == b"HTTP/1.1 100 Continue\r\n\r\n"
    conductor.down(b"hello")
    assert conductor.to_server.endswith(b"hello")
    conductor.up(OK)
    assert conductor.running()


def test_an_expectation_that_is_denied_ends_the_connection() -> None:
    """Nobody can know whether the body follows: 403, no 100, close."""
    conductor = _conductor(verdict=deny)
    conductor.down(_post(5, b"Expect: 100-continue\r\n"))
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 403 ")
    assert b"Connection: close\r\n" in conductor.to_loop
    assert b" 100 " not in conductor.to_loop


def test_an_unasked_continue_is_dropped() -> None:
    """A 100 that the loop did not ask for does not go down; other interim answers do."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.up(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK)
    assert conductor.to_loop.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 ")


@pytest.mark.parametrize("extra", [0, 1])
def test_a_refused_body_is_drained_within_a_bound(extra: int) -> None:
    """A denied body of DRAIN_BYTES_MAX is read and the connection lives; one byte more ends it."""
    conductor = _conductor(verdict=deny)
    size = DRAIN_BYTES_MAX + extra
    conductor.down(_post(size) + b"b" * size + GET)
    assert (b"Connection: close" in conductor.to_loop) == bool(extra)
    assert conductor.to_loop.count(b"HTTP/1.1 403 ") == 2 - extra
    assert (conductor.finished is None) == (not extra)


def test_a_refused_chunked_body_is_drained_within_a_bound() -> None:
    """A chunked body without end is read only up to the bound."""
    conductor = _conductor(verdict=deny)
    conductor.down(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    conductor.down(b"1;" + b"x" * 1000 + b"\r\na\r\n", piece=99)
    assert conductor.running()
    conductor.down((b"1;" + b"x" * 1000 + b"\r\na\r\n") * 300)
    conductor.check_ended()


def test_an_early_answer_ends_the_connection() -> None:
    """An answer before the body is complete goes through with close; the rest is drained."""
    conductor = _conductor()
    conductor.down(_post(10) + b"hello")
    conductor.up(OK)
    assert b"Connection: close\r\n" in conductor.to_loop
    assert CloseUpstream(reusable=False) in conductor.commands
    conductor.down(b"world")
    conductor.check_ended()
    assert conductor.to_server.endswith(b"hello")
    assert [finished.outcome for finished in conductor.outcomes] == [Outcome.ANSWERED]


def test_a_body_that_breaks_on_the_way() -> None:
    """A chunk that goes wrong after the head went up: 400, ABORTED, both sides closed."""
    conductor = _conductor()
    conductor.down(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    conductor.down(b"5\r\nhello\r\nzz\r\n")
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 400 ")
    assert not conductor.to_server.endswith(b"0\r\n\r\n")
    assert conductor.outcomes[0].outcome is Outcome.ABORTED


def test_outcomes_have_sizes_status_and_time() -> None:
    """An outcome says what was forwarded: body bytes both ways, status, duration, address."""
    conductor = _conductor(server=silent)
    conductor.down(_post(5) + b"hello")
    conductor.now_ns += 250_000_000
    conductor.up(OK)
    finished = conductor.outcomes[0]
    assert (finished.request_bytes, finished.response_bytes) == (5, 2)
    assert (finished.status, finished.duration_ns) == ("200", 250_000_000)
    assert finished.upstream == "192.0.2.1:443"


# ends


def test_the_loop_ends_between_requests() -> None:
    """At the loop's end the upstream is given back as reusable."""
    conductor = _conductor(server=Server((OK,)))
    conductor.down(GET)
    conductor.down_eof()
    conductor.check_ended()
    assert CloseUpstream(reusable=True) in conductor.commands
    assert conductor.finished is Reason.DOWNSTREAM_CLOSED


def test_the_loop_ends_its_side_and_still_gets_the_answer() -> None:
    """A half-closed connection gets the answers to what was asked, then ends."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.down_eof()
    assert conductor.running()
    conductor.up(OK)
    conductor.check_ended()
    assert conductor.to_loop.endswith(b"ok")


def test_the_loop_ends_within_a_body() -> None:
    """An incomplete request is aborted: the upstream connection is not used again."""
    conductor = _conductor()
    conductor.down(_post(10) + b"hello")
    conductor.down_eof()
    conductor.check_ended()
    assert conductor.outcomes[0].outcome is Outcome.ABORTED
    assert CloseUpstream(reusable=False) in conductor.commands


@pytest.mark.parametrize(
    "reason",
    [
        Reason.RUN_REVOKED,
        Reason.POLICY_CHANGED,
        Reason.DRAINING,
        Reason.LEASE_EXPIRED,
        Reason.LEASE_REVOKED,
    ],
)
def test_a_cut_says_why(reason: Reason) -> None:
    """Before an answer began, a cut session gets 503 with the true cause; then it ends with it."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.cut(reason)
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 503 ")
    assert reason.value.encode() in conductor.to_loop
    assert conductor.finished is reason
    assert [(f.outcome, f.reason) for f in conductor.outcomes] == [(Outcome.ABORTED, reason)]


def test_a_cut_within_an_answer_says_nothing() -> None:
    """After an answer began nothing of ours is mixed into it."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.up(OK[:-1])
    before = conductor.to_loop
    conductor.cut()
    conductor.check_ended()
    assert conductor.to_loop == before
    assert conductor.outcomes[0].status == "200"


def test_a_cut_while_the_record_is_made() -> None:
    """An intent that may be durable gets its outcome: DENIED, nothing went upstream."""
    conductor = _conductor(recorded=None)
    conductor.down(GET)
    conductor.cut()
    conductor.check_ended()
    assert [finished.outcome for finished in conductor.outcomes] == [Outcome.DENIED]


# time


def test_idle() -> None:
    """An idle connection ends after IDLE_S, and its upstream can be used again."""
    conductor = _conductor(server=Server((OK,)))
    conductor.down(GET)
    conductor.wait(IDLE_S - 1)
    assert conductor.running()
    conductor.wait(1)
    conductor.check_ended()
    assert conductor.finished is Reason.TIMED_OUT
    assert CloseUpstream(reusable=True) in conductor.commands


def test_a_slow_head() -> None:
    """A head that trickles in is refused HEAD_S after its first byte, however it trickles."""
    conductor = _conductor()
    conductor.wait(IDLE_S - 1)
    conductor.down(b"GET / HT")
    for letter in (b"T", b"P", b"/"):
        conductor.wait((HEAD_S - 1) / 3)
        conductor.down(letter)
    assert conductor.running()
    conductor.wait(1.1)
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 408 ")


def test_a_silent_upstream() -> None:
    """An upstream that says nothing for STALL_S gives 504 and ABORTED."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.wait(STALL_S - 1)
    assert conductor.running()
    conductor.wait(1)
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 504 ")
    assert conductor.outcomes[0].reason is Reason.TIMED_OUT


def test_a_slow_answer_is_not_silent() -> None:
    """Each byte of an answer gives it STALL_S more."""
    conductor = _conductor()
    conductor.down(GET)
    for at in range(len(OK)):
        conductor.wait(STALL_S - 1)
        conductor.up(OK[at : at + 1])
    assert conductor.outcomes[0].outcome is Outcome.ANSWERED


def test_a_decision_that_does_not_come() -> None:
    """A verdict, lease, upstream or record that does not come for STALL_S: 504, and the end."""
    for world in ({"verdict": lambda _: None}, {"lease": None}, {"opened": None}):
        conductor = _conductor(**world)
        conductor.down(GET)
        conductor.wait(STALL_S)
        conductor.check_ended()
        assert conductor.to_loop.startswith(b"HTTP/1.1 504 ")


def test_draining_ends() -> None:
    """A refused body that does not come is waited for DRAIN_S only."""
    conductor = _conductor(verdict=deny)
    conductor.down(_post(10))
    conductor.wait(DRAIN_S - 1)
    assert conductor.running()
    conductor.wait(1)
    conductor.check_ended()


# retries


def _kept(request: bytes) -> Conductor:
    """Return a session whose second request finds the kept upstream connection closed."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.up(OK)
    conductor.down(request)
    conductor.up_eof()
    return conductor


def test_a_kept_connection_that_was_closed_is_opened_again_once() -> None:
    """A safe request without body is made again, as an operation with its own records."""
    conductor = _kept(GET)
    assert conductor.to_server.count(b"GET ") == 3
    assert len(conductor.judged) == 3
    assert dict(conductor.judged[2].attributes)["retry-of"] == conductor.judged[1].operation_id
    assert [finished.outcome for finished in conductor.outcomes] == [
        Outcome.ANSWERED,
        Outcome.ABORTED,
    ]
    conductor.up_eof()
    conductor.check_ended()
    assert conductor.to_server.count(b"GET ") == 3
    assert b"HTTP/1.1 502 " in conductor.to_loop


@pytest.mark.parametrize("request_bytes", [_post(2) + b"hi", GET.replace(b"GET", b"DELETE")])
def test_what_is_not_safe_is_never_made_again(request_bytes: bytes) -> None:
    """A method that changes things, or a body: 502, the loop decides."""
    conductor = _kept(request_bytes)
    conductor.check_ended()
    assert len(conductor.judged) == 2
    assert b"HTTP/1.1 502 " in conductor.to_loop


def test_a_fresh_connection_is_not_opened_again() -> None:
    """Only a kept connection can have been closed by accident; a pooled one is such a one."""
    for reused, times in ((False, 1), (True, 2)):
        opened = UpstreamOpened("192.0.2.1:443", encrypted=True, reused=reused)
        conductor = _conductor(opened=opened)
        conductor.down(GET)
        conductor.up_eof()
        assert conductor.to_server.count(b"GET ") == times


def test_an_answer_that_began_is_not_asked_for_again() -> None:
    """One byte of an answer shows that the request arrived."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.up(OK)
    conductor.down(GET)
    conductor.up(b"H")
    conductor.up_eof()
    conductor.check_ended()
    assert conductor.to_server.count(b"GET ") == 2


def test_the_upstream_ends_between_requests() -> None:
    """A kept connection that ends while idle is opened anew for the next request."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.up(OK)
    conductor.give(UpstreamFailed(Reason.UPSTREAM_CLOSED, "reset"))
    conductor.down(GET)
    assert sum(isinstance(command, OpenUpstream) for command in conductor.commands) == 2
    assert len(conductor.outcomes) == 1


def test_the_upstream_ends_while_the_record_is_made() -> None:
    """Lost before the first byte: opened again under the same record, and sent once."""
    conductor = _conductor()
    conductor.down(GET)
    conductor.up(OK)
    conductor.world.recorded = None
    conductor.down(GET)
    conductor.up_eof()
    operation = conductor.judged[1]
    conductor.world.recorded = True
    conductor._intend(operation)
    conductor.wait(0)
    assert conductor.to_server.count(b"GET ") == 2
    conductor.up(OK)
    assert [finished.outcome for finished in conductor.outcomes] == [Outcome.ANSWERED] * 2
