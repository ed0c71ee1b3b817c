"""The broker's client, which fails as told at the n-th thing that a provider does in the world.

A step is a request, a connection to a database, a statement (BEGIN and COMMIT too), a program or a
file. Faults: see Fault.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from agent.broker.lease_calls import CONFIRM_S, ISSUE_S, RENEW_S, REVOKE_S
from agent.broker.shared import MAKE_S
from agent.broker.sources import BrokerClient
from agent.broker.sql_client import Session
from agent.credentials.spec import (
    CredentialError,
    HttpReply,
    HttpRequest,
    Program,
    SqlRefused,
    SqlServer,
)
from agent.model.secret import Secret
from agent.runtime import clock
from tests.unit.broker.passing import PassingLoop

Answer = TypeVar("Answer")
SAID = b'{"errors": ["failed to connect to the database"], "error": "invalid_request"}'


class Fault(StrEnum):
    """What becomes of a step."""

    KILLED_BEFORE = "killed before"  # the broker, by SIGKILL; the step was not taken
    KILLED_AFTER = "killed after"  # it was taken, and its answer never read
    DOWN = "down"  # this and all that follow fail, until the backend is repaired
    LOST = "lost"  # taken; the connection breaks before the answer
    BAD_REQUEST = "400 for down"  # not taken; the backend says that we are wrong
    QUEUED = "202 for 204"  # not taken; the backend says that it will be
    NONSENSE = "nonsense"  # not taken (a program: taken); an answer that means nothing
    HANGS = "hangs"  # not taken, and no answer ever: the broker's longest wait passes


HANGS_S = max(ISSUE_S, RENEW_S, REVOKE_S, CONFIRM_S, MAKE_S) + 1
KILLS = (Fault.KILLED_BEFORE, Fault.KILLED_AFTER)


@dataclass(slots=True)
class Plan:
    """The fault, and at which step; met: whether it came to it."""

    fault: Fault
    step: int
    count: int = 0
    met: bool = False
    repaired: bool = False

    def next(self) -> Fault | None:
        """Count a step; return what becomes of it."""
        self.count += 1
        goes_on = self.fault is Fault.DOWN and self.count > self.step
        if self.repaired or (self.count != self.step and not goes_on):
            return None
        self.met = True
        return self.fault


@dataclass(frozen=True, slots=True)
class Forms:
    """How a kind of step fails in its own words. done: one that answers nonsense was taken."""

    down: CredentialError
    lost: CredentialError
    bad_request: Callable[[], Any]
    queued: Callable[[], Any]
    nonsense: Callable[[], Any]
    done: bool = False


async def step(plan: Plan, take: Callable[[], Awaitable[Answer]], forms: Forms) -> Answer:
    """Take a step, or fail it as planned."""
    fault = plan.next()
    match fault:
        case None:
            return await take()
        case Fault.KILLED_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        case Fault.KILLED_AFTER:
            await take()
            os.kill(os.getpid(), signal.SIGKILL)
        case Fault.DOWN:
            raise forms.down
        case Fault.LOST:
            await take()
            raise forms.lost
        case Fault.BAD_REQUEST:
            return forms.bad_request()  # type: ignore[no-any-return]
        case Fault.QUEUED:
            return forms.queued()  # type: ignore[no-any-return]
        case Fault.NONSENSE:
            if forms.done:
                await take()
            return forms.nonsense()  # type: ignore[no-any-return]
        case Fault.HANGS:
            event_loop = asyncio.get_running_loop()
            assert isinstance(event_loop, PassingLoop)
            event_loop.passed_s += HANGS_S
            await asyncio.Event().wait()
    raise AssertionError(f"still alive after {fault}")


class FaultyClient(BrokerClient):
    """Everything of the broker's own, but for what is planned."""

    plan: Plan

    async def http(self, request: HttpRequest) -> HttpReply:
        """See Client.http."""
        forms = Forms(
            CredentialError("no connection", transient=True, nothing_made=True),
            CredentialError("the connection broke", transient=True),
            lambda: _reply(400, SAID),
            lambda: _reply(202, b""),
            lambda: _reply(200, b"<html>sign in</html>"),
        )
        return await step(self.plan, lambda: super(FaultyClient, self).http(request), forms)

    async def run(self, program: Program) -> Secret:
        """See Client.run."""
        forms = Forms(
            CredentialError("it can't be started", transient=True, nothing_made=True),
            CredentialError("its end was not seen", transient=True),
            _raises(CredentialError("it ended with status 1", transient=True)),
            _raises(CredentialError("it ended with status 2", transient=True)),
            lambda: Secret(b"Segmentation fault\n"),
            done=True,  # status 0 is a program's word
        )

        return await step(self.plan, lambda: super(FaultyClient, self).run(program), forms)

    async def file(self, path: str) -> Secret:
        """See Client.file."""
        down = CredentialError(f"{path}: Input/output error", transient=True)
        refused = CredentialError(f"{path} can be read by others")
        forms = Forms(
            down, down, _raises(refused), lambda: Secret(b"\n"), lambda: Secret(b"\0\xff\0")
        )
        return await step(self.plan, lambda: super(FaultyClient, self).file(path), forms)

    @contextlib.asynccontextmanager
    async def sql(self, server: SqlServer, password: Secret) -> AsyncIterator[Session]:
        """See Client.sql."""
        async with contextlib.AsyncExitStack() as stack:
            opened = super().sql(server, password)
            forms = _sql_forms("no connection")
            session = await step(self.plan, lambda: stack.enter_async_context(opened), forms)
            session.__class__ = FaultySession
            assert isinstance(session, FaultySession)
            session.plan = self.plan
            yield session


class FaultySession(Session):
    """A session whose statements fail as planned; what breaks it breaks it for the server too."""

    plan: Plan

    async def execute(self, text: str) -> tuple[str, ...]:
        """See SqlSession.execute."""
        return await self._broken_by(lambda: super(FaultySession, self).execute(text))

    async def fetch(self, text: str, *arguments: str | int) -> tuple[tuple[object, ...], ...]:
        """See SqlSession.fetch."""
        return await self._broken_by(lambda: super(FaultySession, self).fetch(text, *arguments), ())

    async def _broken_by(
        self, take: Callable[[], Awaitable[Answer]], nonsense: object = None
    ) -> Answer:
        forms = _sql_forms("the connection broke", nonsense)
        try:
            return await step(self.plan, take, forms)
        except SqlRefused:
            raise
        except CredentialError:
            self._broken = True
            self._connection.terminate()
            raise


def _sql_forms(down: str, nonsense: object = None) -> Forms:
    """PostgreSQL's words: 57P03 while it starts and stops, XX000 for a fault of its own."""
    soon = SqlRefused("the database system is shutting down", "57P03")
    soon.transient = True
    broken = CredentialError(down, transient=True)
    odd = SqlRefused("internal error", "XX000")
    answer = _raises(odd) if nonsense is None else lambda: nonsense
    return Forms(broken, broken, _raises(soon), _raises(odd), answer)


def _raises(error: CredentialError) -> Callable[[], Any]:
    def raising() -> Any:
        raise error

    return raising


def _reply(status: int, body: bytes) -> HttpReply:
    return HttpReply(status, (), Secret(body), clock.unix_ms() // 1000 * 1000)
