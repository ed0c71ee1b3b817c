"""Live sessions: which worker may speak for which flow. Only kernel can add one."""

import asyncio
import collections
from dataclasses import dataclass

from agent.model.flow import Attribution
from agent.model.grant import Grant
from agent.model.ids import RunId, SessionId

SESSIONS_MAX = 65_536  # past it a flow is not announced, so its worker is refused
OPEN_A_RUN_MAX = 4_096  # one past it is refused; the reporter follows eight times as much in all
WAITING_MAX = 1_024
ENDED_EARLY_MAX = 1_024  # whose notice is awaited; past it the oldest would stay as long as its run
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
        self._open_of: collections.Counter[RunId] = collections.Counter()
        self._ended_early: dict[tuple[str, SessionId], None] = {}  # in the order they came

    def __len__(self) -> int:
        return len(self._sessions)

    def began(self, worker: str, attribution: Attribution) -> None:
        """Kernel announces a flow of a worker."""
        if (worker, attribution.session_id) in self._ended_early:
            del self._ended_early[worker, attribution.session_id]
            return
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

    def open(self, session: Session) -> bool:
        """Let its worker open it; False: the run has OPEN_A_RUN_MAX already."""
        run_id = session.attribution.run_id
        if self._open_of[run_id] >= OPEN_A_RUN_MAX:
            return False
        session.opened = True
        self._open_of[run_id] += 1
        return True

    def ended(self, worker: str, session_id: SessionId) -> None:
        """The worker closed its session; kernel's notice of it may come after that."""
        if self.find(worker, session_id) is not None:
            self._forget(session_id)
            return
        self._ended_early[worker, session_id] = None
        if len(self._ended_early) > ENDED_EARLY_MAX:
            del self._ended_early[next(iter(self._ended_early))]

    def _forget(self, session_id: SessionId) -> None:
        session = self._sessions.pop(session_id)
        if session.opened:
            run_id = session.attribution.run_id
            self._open_of[run_id] -= 1
            if not self._open_of[run_id]:
                del self._open_of[run_id]

    def worker_gone(self, worker: str) -> None:
        """All sessions of a dead worker ended with it."""
        for session_id in [key for key, value in self._sessions.items() if value.worker == worker]:
            self._forget(session_id)

    def run_gone(self, run_id: RunId) -> None:
        """The run's sessions were cut."""
        for session_id, _ in self.of_run(run_id):
            self._forget(session_id)

    def of_run(self, run_id: RunId) -> list[tuple[SessionId, Session]]:
        """Return the sessions of a run."""
        return [
            (key, value)
            for key, value in self._sessions.items()
            if value.attribution.run_id == run_id
        ]
