"""What a session's names stand for: prepared statements and portals, kept as the server keeps them.

A name changes when the server says so, not when the loop asks for it. What was asked for and is
not answered yet is pending, with the segment it is in: the messages up to a Sync, of which a
server runs none after one that failed. So a name that was changed in the same segment is sure
(else what asks for it is skipped), and one that an earlier segment may change has to wait.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from agent.model.sql import Classified, Statement

NAMES_MAX = 8_192  # of one kind in one session → 54000
NAMES_BYTES_MAX = 64 * 1024 * 1024  # of texts, facts and values that they stand for → 54000
FACT_BYTES = 128  # about what a table, column or call of a statement takes (measured: 123)


class NotYet(Exception):
    """The name's meaning depends on an answer that did not come yet."""


class Weighed(Protocol):
    """What a name stands for."""

    @property
    def weight(self) -> int:
        """About how many bytes it holds."""
        ...


Value = TypeVar("Value", bound=Weighed)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared statement: its text and what it does. verb and shown are as recorded."""

    text: str = field(repr=False)
    classified: Classified = field(repr=False)
    statements: tuple[Statement, ...] = field(repr=False)  # with what an EXECUTE names
    verb: str
    shown: str = field(repr=False)
    may_copy: bool  # it may begin a COPY with the loop
    pure: bool  # one statement that only reads
    wild: bool  # it may change what names stand for
    returns_rows: bool

    @property
    def weight(self) -> int:
        """About how many bytes it holds."""
        facts = 0
        for one in self.statements:
            facts += 4 + len(one.columns_read) + len(one.columns_written) + len(one.calls)
            facts += len(one.reads) + len(one.writes)
        return len(self.text) + len(self.shown) + FACT_BYTES * facts


@dataclass(slots=True)
class Portal:
    """A portal: a statement with its values; rows counts what went downstream of it."""

    prepared: Prepared | None  # None: nobody knows what it runs
    values: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    rows: int = 0

    @property
    def weight(self) -> int:
        """About how many bytes it holds, its statement apart."""
        return sum(len(value) for _, value in self.values)


@dataclass(slots=True, eq=False)
class Change(Generic[Value]):
    """A pending change of a name. value None: it is removed."""

    names: "Names[Value]"
    name: bytes
    value: Value | None
    segment: int

    def settle(self) -> None:
        """The server did it."""
        self.names.settle(self)

    def drop(self, *, tried: bool) -> None:
        """The server did not: it failed at it (tried), or never came to it."""
        self.names.drop(self, tried=tried)


class Names(Generic[Value]):
    """The names of one kind."""

    __slots__ = ("_pending", "_settled", "weight")

    def __init__(self) -> None:
        self._settled: dict[bytes, Value] = {}
        self._pending: dict[bytes, deque[Change[Value]]] = {}
        self.weight = 0  # of all that is settled

    def is_full(self) -> bool:
        """Whether there may be no more names."""
        return len(self) >= NAMES_MAX or self.weight >= NAMES_BYTES_MAX

    def change(self, name: bytes, value: Value | None, segment: int) -> Change[Value]:
        """Note a change that is asked for; None removes the name."""
        change = Change(self, name, value, segment)
        self._pending.setdefault(name, deque()).append(change)
        return change

    def find(self, name: bytes, segment: int) -> Value | None:
        """Return what a name stands for, when this segment comes to it; None when unknown.

        Raises:
            NotYet: an earlier segment may change it.
        """
        pending = self._pending.get(name)
        if not pending:
            return self._settled.get(name)
        last = pending[-1]
        if last.segment != segment:
            raise NotYet
        return last.value

    def settle(self, change: Change[Value]) -> None:
        """See Change.settle."""
        self._forget(change)
        self.set(change.name, change.value)

    def drop(self, change: Change[Value], *, tried: bool) -> None:
        """See Change.drop. The unnamed is removed before it is made anew."""
        self._forget(change)
        if tried and not change.name:
            self.set(b"", None)

    def set(self, name: bytes, value: Value | None) -> None:
        """Change a name that is not pending."""
        settled = self._settled
        before = settled.pop(name, None)
        if before is not None:
            self.weight -= before.weight
        if value is not None:
            settled[name] = value
            self.weight += value.weight

    def clear(self) -> None:
        """All that is settled is gone."""
        self._settled.clear()
        self.weight = 0

    def named(self) -> list[Value]:
        """Return what all names but the empty one stand for, or may stand for soon."""
        found = [value for name, value in self._settled.items() if name]
        for name, changes in self._pending.items():
            if name:
                found += [change.value for change in changes if change.value is not None]
        return found

    def __len__(self) -> int:
        return len(self._settled) + len(self._pending)

    def _forget(self, change: Change[Value]) -> None:
        pending = self._pending[change.name]
        if pending[0] is change:
            pending.popleft()
        else:
            pending.remove(change)
        if not pending:
            del self._pending[change.name]
