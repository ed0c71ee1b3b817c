"""The serialiser by hand writes what the generated code writes, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.audit import OperationFinished, OperationIntended, Outcome
from agent.model.grant import Durability
from agent.model.ids import LeaseId, LoopName, OperationId, RuleId, RunId, SessionId, TargetName
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.sql import Call, Column, Effect, Relation, Statement
from agent.pb import audit_pb2 as pb
from agent.reporter import wire
from agent.reporter.encoding import Stamp, _operation, serialize_records

UINT64_MAX = (1 << 64) - 1
TEXTS = st.text(max_size=40) | st.sampled_from(["", "a" * 127, "a" * 128, "\N{SNOWMAN}" * 6_000])
# around each length that a varint changes at, and anywhere
NUMBERS = st.integers(0, UINT64_MAX) | st.builds(
    lambda bits, step: min(max((1 << bits) + step, 0), UINT64_MAX),
    st.sampled_from(range(7, 65, 7)),
    st.integers(-1, 1),
)
RELATIONS = st.lists(st.builds(Relation, TEXTS, TEXTS), max_size=2).map(tuple)
COLUMNS = st.lists(st.builds(Column, TEXTS, TEXTS), max_size=2).map(tuple)
STATEMENTS = st.builds(
    Statement,
    TEXTS,
    st.frozensets(st.sampled_from(Effect)),
    RELATIONS,
    RELATIONS,
    COLUMNS,
    COLUMNS,
    st.lists(st.builds(Call, TEXTS, TEXTS, st.sampled_from(Effect)), max_size=2).map(tuple),
    st.booleans(),
    st.booleans(),
    TEXTS,
    TEXTS,
    st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=2).map(tuple),
)
PAIRS = st.lists(st.tuples(TEXTS | st.just("$1"), TEXTS), max_size=3).map(tuple)
OPERATIONS = st.builds(
    Operation,
    TEXTS.map(OperationId),
    TEXTS,
    TEXTS,
    TEXTS,
    PAIRS,
    st.just(()) | st.lists(STATEMENTS, min_size=1, max_size=2).map(tuple),
)
INTENDED = st.builds(
    OperationIntended,
    TEXTS.map(SessionId),
    TEXTS.map(RunId),
    TEXTS.map(LoopName),
    st.none() | TEXTS.map(TargetName),
    OPERATIONS,
    TEXTS.map(RuleId),
    st.none() | TEXTS.map(LeaseId),
    st.sampled_from(Durability),
)
FINISHED = st.builds(
    OperationFinished,
    TEXTS.map(SessionId),
    TEXTS.map(OperationId),
    st.sampled_from(Outcome),
    st.sampled_from(Reason),
    TEXTS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    TEXTS,
    NUMBERS,
    PAIRS,
)
STAMPS = st.builds(Stamp, TEXTS, NUMBERS, NUMBERS)


def generated(
    event: OperationIntended | OperationFinished, seq: int, stamp: Stamp, role: str
) -> bytes:
    """Return the record as protobuf's own code makes it."""
    record = pb.Record(
        seq=seq,
        boot_id=stamp.boot_id,
        unix_ms=stamp.unix_ms,
        monotonic_ns=stamp.monotonic_ns,
        role=role,
    )
    if isinstance(event, OperationIntended):
        intended = record.operation_intended
        for name in ("session_id", "run_id", "loop", "target", "rule", "lease_id", "durability"):
            setattr(intended, name, getattr(event, name) or "")
        intended.operation.CopyFrom(_operation(event.operation))
        record.operation_intended.SetInParent()
    else:
        for field in pb.OperationFinished.DESCRIPTOR.fields:
            if field.name != "attributes":
                setattr(record.operation_finished, field.name, getattr(event, field.name))
        for name, value in event.attributes:
            record.operation_finished.attributes.add(name=name, value=value)
        record.operation_finished.SetInParent()
    return record.SerializeToString()


@given(INTENDED | FINISHED, NUMBERS, STAMPS, TEXTS)
def test_the_bytes_are_those_of_the_generated_code(
    event: OperationIntended | OperationFinished, seq: int, stamp: Stamp, role: str
) -> None:
    """Any text, any number, any stamp: identical, also when parts were kept from before."""
    for _ in range(2):
        assert serialize_records([event], seq, stamp, role) == [generated(event, seq, stamp, role)]


@pytest.mark.parametrize("number", [-1, UINT64_MAX + 1])
def test_a_number_past_64_bits_is_an_error(number: int) -> None:
    """One below and one past the range: ValueError, which ends the sender."""
    with pytest.raises(ValueError):
        wire.varint(number)


def test_what_is_kept_is_bounded() -> None:
    """Up to KEPT_MAX groups of fields are kept, long ones not at all; past it it starts anew."""
    wire._kept.clear()
    for index in range(wire.KEPT_MAX):
        wire.texts(9, f"10.0.0.1:{index}")
    assert len(wire._kept) == wire.KEPT_MAX
    wire.texts(9, "a" * wire.KEPT_BYTES_MAX)
    assert len(wire._kept) == wire.KEPT_MAX
    wire.texts(9, "one more")
    assert len(wire._kept) == 1
