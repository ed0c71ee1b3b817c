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
from agent.model.sql import Classified
from agent.wire.commands import Command
from agent.wire.events import Event


def no_random(count: int) -> bytes:
    """Refuse: a relay that needs randomness is given a source."""
    raise AssertionError(f"nobody gave a source for {count} random bytes")


def no_clock() -> int:
    """Refuse: a relay that has to know the time of day is given a clock."""
    raise AssertionError("nobody gave a clock")


@dataclass(frozen=True, slots=True)
class RelayContext:
    """What a relay is born with."""

    session_id: SessionId
    target: Target
    new_operation_id: Callable[[], OperationId]
    random: Callable[[int], bytes] = no_random  # so many unpredictable bytes
    run_key: bytes = b""  # 32 bytes, the same for all sessions of this run at this target
    unix_ms: Callable[[], int] = no_clock  # for signatures, which name their moment


class Relay(Protocol):
    """One session's machine."""

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        ...


@dataclass(frozen=True, slots=True)
class Kinship:
    """Which texts have the class of another one; both are pure and quick.

    kin: a key with a NUL in it, None when the text is like no other. is_shared: whether a class
    holds for all texts of one key.
    """

    kin: Callable[[str], str | None]
    is_shared: Callable[[Classified], bool]


@dataclass(frozen=True, slots=True)
class ProtocolSpec:
    """What a protocol folder exports as SPEC."""

    name: str
    accepts: tuple[Shape, ...]
    relay: Callable[[RelayContext], Relay]
    alpn: tuple[str, ...] = ("http/1.1",)  # what downstream TLS from the first byte may ask for
    alpn_required: bool = False
    in_band_tls: bool = False  # first bytes that are no ClientHello go to the relay as they are
    classify: Callable[[str], Classified] | None = None  # pure, may crash: run in a child process
    answers_strays: bool = False  # a TLS name that is not the target's, or none, goes to the relay
    kinship: Kinship | None = None  # None: each text is classified for itself
