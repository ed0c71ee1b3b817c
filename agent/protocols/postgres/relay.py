"""The PostgreSQL relay: the opening of a session, then its steady half."""

from collections.abc import Sequence

from agent.protocols.postgres.opening import Opening
from agent.protocols.postgres.steady import Steady
from agent.wire.commands import Command
from agent.wire.events import Event
from agent.wire.relay import RelayContext


class PostgresRelay:
    """One downstream connection, to one target."""

    def __init__(self, context: RelayContext) -> None:
        self._context = context
        self._opening: Opening | None = Opening(context)
        self._steady: Steady | None = None

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        if self._steady is not None:
            return self._steady.handle(event, now_ns)
        opening = self._opening
        assert opening is not None  # one of the two is there
        commands = opening.handle(event, now_ns)
        if opening.opened is None:
            return commands
        self._opening, self._steady = None, Steady(self._context, opening.opened)
        return [*commands, *self._steady.begin(now_ns)]
