"""The relay contract: a pure protocol machine between the loop and the server.

A relay gets events and returns commands. It does no I/O, reads no clock, draws no randomness,
and is deterministic: the same events give the same commands. It holds bounded memory, sends
nothing upstream before its intent is Recorded, and ends with exactly one Finish, after which it
is given nothing more. Bytes that it cannot parse are a refusal, never an exception.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.model.credential import Shape
from agent.model.grant import Target
from agent.model.ids import OperationId, SessionId
from agent.wire.commands import Command
from agent.wire.events import Event


@dataclass(frozen=True, slots=True)
class RelayContext:
    """What a relay is born with."""

    session_id: SessionId
    target: Target
    new_operation_id: Callable[[], OperationId]


class Relay(Protocol):
    """One session's machine."""

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        ...


@dataclass(frozen=True, slots=True)
class ProtocolSpec:
    """What a protocol folder exports as SPEC."""

    name: str
    accepts: tuple[Shape, ...]
    relay: Callable[[RelayContext], Relay]
