"""Live sessions: which worker may speak for which flow. Only kernel can add one."""

import asyncio
from dataclasses import dataclass

from agent.model.flow import Attribution
from agent.model.grant import Grant
from agent.model.ids import RunId, SessionId

SESSIONS_MAX = 65_536  # past it a flow is not announced, so its worker is refused
WAITING_MAX = 1_024
ANNOUNCED_WITHIN_S = 2.0  # kernel announced it before it answered the worker; pairs can reorder


@dataclass(slots=True)
class Session:
    """One attributed connection of a worker."""

    worker: str
    attribution: Attribution
    grant: Grant | None = None
    opened: bool = False  # its worker asked for it: its first record is made or on its way


class Sessions:
    """All methods run on the event loop."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, Session] = {}
        self._waiting: dict[SessionId, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def began(self, worker: str, attribution: Attribution) -> None:
        """Kernel announces a flow of a worker."""
        if len(self._sessions) >= SESSIONS_MAX:
            return
        self._sessions[attribution.session_id] = Session(worker, attribution)
        waiting = self._waiting.pop(attribution.session_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def find(self, worker: str, session_id: SessionId) -> Session | None:
        """Return the worker's own session of this id."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.worker == worker else None

    async def wait(self, worker: str, session_id: SessionId) -> Session | None:
        """Return the worker's session; kernel's notice may come after the worker's."""
        if session_id not in self._sessions and len(self._waiting) < WAITING_MAX:
            future = self._waiting.setdefault(
                session_id, asyncio.get_running_loop().create_future()
            )
            try:
                async with asyncio.timeout(ANNOUNCED_WITHIN_S):
                    await asyncio.shield(future)
            except TimeoutError:
                self._waiting.pop(session_id, None)
        return self.find(worker, session_id)

    def ended(self, worker: str, session_id: SessionId) -> None:
        """The worker closed its session."""
        if self.find(worker, session_id) is not None:
            del self._sessions[session_id]

    def worker_gone(self, worker: str) -> None:
        """All sessions of a dead worker ended with it."""
        for session_id in [key for key, value in self._sessions.items() if value.worker == worker]:
            del self._sessions[session_id]

    def run_gone(self, run_id: RunId) -> None:
        """The run's sessions were cut."""
        for session_id, _ in self.of_run(run_id):
            del self._sessions[session_id]

    def of_run(self, run_id: RunId) -> list[tuple[SessionId, Session]]:
        """Return the sessions of a run."""
        return [
            (key, value)
            for key, value in self._sessions.items()
            if value.attribution.run_id == run_id
        ]
