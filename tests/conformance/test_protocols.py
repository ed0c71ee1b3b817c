"""Runs the protocol suite on every SPEC (protocol_suite.py says what P1 to P9 are)."""

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.ids import OperationId, RuleId
from agent.model.reason import Reason
from agent.model.sql import unknown
from agent.model.verdict import Allow
from agent.wire.commands import Finish
from agent.wire.events import (
    Cut,
    Data,
    Eof,
    Event,
    Judged,
    Leased,
    LeaseRefused,
    Recorded,
    RecordFailed,
    TextClassified,
    TimedOut,
    TlsStarted,
    UpstreamFailed,
    UpstreamOpened,
)
from agent.wire.side import Side
from tests.conformance.conductor import CANARY, Conductor, deny, lease, silent
from tests.conformance.protocol_suite import Subject, subjects
from tests.conformance.sample import Sample

SUBJECTS = subjects()
CASES = [(subject, sample) for subject in SUBJECTS for sample in subject.samples]
each_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.spec.name)
each_case = pytest.mark.parametrize(
    ("subject", "sample"), CASES, ids=[f"{s.spec.name}: {c.name}" for s, c in CASES]
)
FLOOD_BYTES = 8 * 1024 * 1024
HELD_BYTES_MAX = 2 * 1024 * 1024  # allocated by a relay that is flooded


@each_case
def test_p1_pieces_do_not_matter(subject: Subject, sample: Sample) -> None:
    """P1: one byte at a time, or any other size, both ends read what they read at once."""
    expected = subject.reading(sample, subject.play(sample))
    for piece in (1, 2, 3, 7, 64):
        assert subject.reading(sample, subject.play(sample, piece=piece)) == expected
        assert subject.reading(sample, subject.play(sample, server_piece=piece)) == expected
        both = subject.play(sample, piece=piece, server_piece=piece)
        assert subject.reading(sample, both) == expected


@each_case
def test_p8_every_session_ends_once(subject: Subject, sample: Sample) -> None:
    """P4 to P8: a sample ends with one Finish and one end of each operation, no secret seen."""
    conductor = subject.play(sample)
    conductor.check_ended()
    assert CANARY not in conductor.to_loop
    assert CANARY not in repr(conductor.commands).encode()


@each_case
def test_p8_a_cut_at_any_byte_ends_it(subject: Subject, sample: Sample) -> None:
    """P8: cut after any byte, downstream or upstream, the session ends once, all recorded."""
    for size in range(0, len(sample.downstream), 5):
        for server in (subject.server(sample), silent):
            conductor = Conductor(subject.spec, subject.world(sample, server=server))
            conductor.down(sample.downstream[:size])
            conductor.cut(Reason.RUN_REVOKED)
            conductor.check_ended()


@each_case
def test_p5_nothing_upstream_after_deny(subject: Subject, sample: Sample) -> None:
    """P5: when policy denies, not a byte of an operation goes upstream."""
    conductor = Conductor(subject.spec, subject.world(sample, verdict=deny))
    conductor.down(sample.downstream)
    conductor.down_eof()
    conductor.check_ended()
    assert not subject.operations(conductor)
    judged = {operation.operation_id for operation in conductor.judged}
    assert not judged & {finished.operation_id for finished in conductor.outcomes}


@each_case
def test_p6_nothing_upstream_before_recorded(subject: Subject, sample: Sample) -> None:
    """P6: without a verdict, a lease, an upstream or a record nothing goes upstream, ever."""
    never: list[dict[str, object]] = [
        {"lease": None},
        {"lease": "no"},
        {"opened": None},
        {"opened": UpstreamFailed(Reason.UPSTREAM_UNREACHABLE, "no")},
        {"recorded": None},
        {"recorded": False},
    ]
    if not subject.spec.in_band_tls:  # else it is opened in clear, and asked for TLS
        never.append({"opened": UpstreamOpened("192.0.2.1:80", encrypted=False)})
    for changes in never:
        conductor = _play_and_cut(subject, sample, changes)
        assert not conductor.to_server, changes
    undecided = _play_and_cut(subject, sample, {"verdict": lambda _: None})
    assert not subject.operations(undecided)


def _play_and_cut(subject: Subject, sample: Sample, changes: dict[str, object]) -> Conductor:
    conductor = Conductor(subject.spec, subject.world(sample, **changes))
    conductor.down(sample.downstream)
    conductor.cut()
    conductor.check_ended()
    return conductor


@each_case
def test_p9_deterministic(subject: Subject, sample: Sample) -> None:
    """P9: the same events give the same commands, bytes included."""
    first, second = subject.play(sample, piece=9), subject.play(sample, piece=9)
    assert first.commands == second.commands


@each_subject
def test_p3_a_flood_is_not_held(subject: Subject) -> None:
    """P3: 8 MiB from either side, with nothing answered, costs less than 2 MiB."""
    for changes in ({"verdict": lambda _: None}, {"server": silent}):
        for sample in subject.samples[:6]:
            conductor = Conductor(subject.spec, subject.world(sample, **changes))
            flood = sample.downstream * (FLOOD_BYTES // len(sample.downstream))
            tracemalloc.start()
            for at in range(0, len(flood), 65536):
                if conductor.paused or conductor.finished:
                    break
                conductor.give(Data(Side.DOWNSTREAM, flood[at : at + 65536]))
            held = _held()
            tracemalloc.stop()
            assert conductor.paused or conductor.finished
            assert held < HELD_BYTES_MAX


def _held() -> int:
    """Return what is allocated; what only waits to be collected is not held."""
    held, _ = tracemalloc.get_traced_memory()
    if held >= HELD_BYTES_MAX:
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    return held


def _events() -> st.SearchStrategy[Event]:
    side = st.sampled_from(Side)
    texts = [case.downstream for _, case in CASES] + [a for _, c in CASES for a in c.answers]
    pieces = st.sampled_from([text for text in texts if text]).flatmap(
        lambda text: st.slices(len(text)).map(lambda cut: text[cut] or text[:1])
    )
    leases = [Leased(subject.lease) for subject in SUBJECTS] + [Leased(lease())]
    operation = st.integers(0, 4).map(lambda n: OperationId(f"{n:026d}"))
    return st.one_of(
        st.builds(Data, side, st.one_of(st.binary(min_size=1), pieces, st.sampled_from(texts))),
        st.builds(Eof, side),
        st.builds(Judged, operation, st.just(Allow(RuleId("loop/0")))),
        st.builds(Recorded, operation),
        st.builds(RecordFailed, operation),
        st.sampled_from(leases),
        st.just(LeaseRefused("no")),
        st.builds(UpstreamOpened, st.just("192.0.2.1:443"), st.booleans(), st.booleans()),
        st.just(UpstreamFailed(Reason.UPSTREAM_CLOSED, "gone")),
        st.builds(TimedOut, st.sampled_from(["watch", "opening", "cancel", "idle"])),
        st.builds(TlsStarted, side, st.none()),
        st.builds(TextClassified, st.sampled_from(["SELECT 1", ""]), st.just(unknown("no"))),
        st.just(Cut(Reason.DRAINING)),
    )


@each_subject
@given(events=st.lists(_events(), max_size=30), data=st.data())
def test_p2_any_events(subject: Subject, events: list[Event], data: st.DataObject) -> None:
    """P2, P8: any events in any order, questions answered or not, give commands and one Finish."""
    sample = data.draw(st.sampled_from(list(subject.samples)))
    conductor = Conductor(subject.spec, subject.world(sample))
    for event in events:
        if isinstance(event, TlsStarted | TextClassified) and not subject.spec.in_band_tls:
            continue  # the driver never says it to a relay that never asks
        conductor.now_ns += 7_000_000_000
        if conductor.finished is None:
            for command in conductor.relay.handle(event, conductor.now_ns):
                conductor.commands.append(command)
                if isinstance(command, Finish):
                    conductor.finished = command.reason
    if conductor.finished is None:
        conductor.commands.extend(conductor.relay.handle(Cut(Reason.RUN_ENDED), 0))
    assert sum(isinstance(command, Finish) for command in conductor.commands) == 1
    assert isinstance(conductor.commands[-1], Finish)
    assert not conductor.relay.handle(Cut(Reason.RUN_ENDED), 0)
    assert CANARY not in conductor.to_loop


@each_subject
@given(garbage=st.binary(min_size=1, max_size=4096), piece=st.integers(1, 100))
def test_p2_any_bytes(subject: Subject, garbage: bytes, piece: int) -> None:
    """P2: any bytes from the loop end in a refusal or wait; none of them go upstream as such."""
    conductor = Conductor(subject.spec, subject.world(subject.samples[0]))
    conductor.down(garbage, piece)
    conductor.down_eof()
    conductor.check_ended()


@each_subject
@given(garbage=st.binary(min_size=1, max_size=4096), piece=st.integers(1, 100))
def test_p2_any_answer(subject: Subject, garbage: bytes, piece: int) -> None:
    """P2: any bytes from the server end the session properly: it is not trusted either."""
    sample = subject.samples[0]
    world = subject.world(sample, server=silent)
    conductor = Conductor(subject.spec, world)
    conductor.down(sample.downstream)
    conductor.up(garbage, piece)
    conductor.up_eof()
    conductor.down_eof()
    conductor.check_ended()
