"""The opening of a session, from the first byte to ReadyForQuery on both sides."""

from collections.abc import Sequence

from agent.protocols.postgres.opened import Opened as Opened
from agent.wire.commands import Command
from agent.wire.events import Event
from agent.wire.relay import RelayContext


class Opening:
    """Gets events until `opened` is set or Finish was commanded."""

    def __init__(self, context: RelayContext) -> None:
        self._context = context
        self.opened: Opened | None = None

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        raise NotImplementedError
