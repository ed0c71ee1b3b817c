"""An operation of any size becomes a record of a bounded one that says what is missing."""

import msgspec
import pytest

from agent.model.audit import OperationIntended
from agent.model.fitting import (
    ATTRIBUTES_BYTES_MAX,
    LEFT_OUT,
    RESOURCE_BYTES_MAX,
    VALUE_BYTES_MAX,
    cut,
    fitted,
)
from agent.model.grant import Durability
from agent.model.ids import LoopName, OperationId, RuleId, RunId, SessionId, TargetName
from agent.model.operation import Operation
from agent.model.sql import Call, Column, Effect, Relation, Statement
from agent.proxy.recorder import EVENT_BYTES_MAX

SMALL = Statement("SELECT", frozenset({Effect.READ}), reads=(Relation("public", "orders"),))


def operation(*statements: Statement, text: str = "SELECT 1", **attributes: str) -> Operation:
    """A query of these statements."""
    return Operation(
        OperationId("o" * 26), "postgres", "SELECT", text, tuple(attributes.items()), statements
    )


def size(one: Operation) -> int:
    """The bytes of its intent between processes."""
    event = OperationIntended(
        SessionId("s" * 26), RunId("r" * 26), LoopName("l" * 64), TargetName("t" * 64), one,
        RuleId("l" * 68), None, Durability.DISK,
    )  # fmt: skip
    return len(msgspec.msgpack.encode(event))


def test_what_fits_stays() -> None:
    """A usual operation is not changed."""
    one = operation(SMALL, SMALL, command_tag="SELECT 1")
    assert fitted(one) == one


WIDE = Statement(
    "SELECT",
    frozenset({Effect.READ}),
    reads=tuple(Relation("s", f"t{number}") for number in range(500)),
    writes=tuple(Relation("s", "ä" * 63) for _ in range(500)),
    columns_read=tuple(Column("t", f"c{number}") for number in range(5_000)),
    columns_written=(Column("x" * 100_000, "y"),),
    calls=tuple(Call("s", f"f{number}", Effect.ADMIN) for number in range(500)),
    why="w" * 100_000,
    prepared="p" * 100_000,
    settings=(("a", "b" * 100_000), ("c", None)),
)


@pytest.mark.parametrize(
    "one",
    [
        operation(*[SMALL] * 10_000),
        operation(WIDE),
        operation(SMALL, *[WIDE] * 20),
        operation(text="\N{SNOWMAN}" * 100_000),
        operation(**{f"${number}": "\N{SNOWMAN}" * 300 for number in range(64)}),
        operation(*[WIDE] * 100, text="x" * 100_000, **{"n" * 10_000: "v" * 100_000}),
        operation(*[Statement("\N{SNOWMAN}" * 900, frozenset(Effect))] * 900),
    ],
)
def test_whatever_is_asked_fits_a_record(one: Operation) -> None:
    """With room for the rest of the event."""
    assert size(fitted(one)) <= EVENT_BYTES_MAX - 2_048


def test_what_is_left_out_is_said() -> None:
    """The effects of all statements stay, names and pairs are counted."""
    drop = Statement("DROP TABLE", frozenset({Effect.DDL}), unbounded=True,
                     calls=(Call("", "f", Effect.ADMIN),))  # fmt: skip
    *kept, last = fitted(operation(*[SMALL] * 1_000, drop)).statements
    assert set(kept) == {SMALL}
    assert last.kind == LEFT_OUT
    assert last.effects == {Effect.READ, Effect.DDL, Effect.ADMIN}
    assert last.unbounded
    assert last.why == f"and {1_001 - len(kept)} statements more"
    [wide] = fitted(operation(WIDE)).statements
    assert wide.reads[0] == WIDE.reads[0]
    assert "names are left out" in wide.why
    many = {f"${number}": "v" * 400 for number in range(64)}
    pairs = fitted(operation(**many)).attributes
    assert pairs[-1] == (LEFT_OUT, f"and {64 - len(pairs) + 1} more")
    assert sum(len(name) + len(value) for name, value in pairs) <= ATTRIBUTES_BYTES_MAX


@pytest.mark.parametrize("most", [VALUE_BYTES_MAX, RESOURCE_BYTES_MAX])
def test_a_text_is_cut_past_its_bound(most: int) -> None:
    """At the bound it is whole; one more byte, and it has a hash."""
    assert cut("x" * most, most) == "x" * most
    shown = cut("x" * most + "y", most)
    assert len(shown.encode()) <= most
    assert "sha256:" in shown
    assert shown.endswith("y")
