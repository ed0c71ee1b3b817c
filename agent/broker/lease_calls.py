"""Calls of providers: bounded in time and number, their answers checked before they are believed.

Whatever a provider does (raise anything, answer nonsense, never answer), the caller gets a
checked answer or CallFailed.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from agent.broker.journal import ERROR_CHARACTERS_MAX, JournalDead, Row
from agent.broker.lease_clock import LeaseClock
from agent.broker.lease_times import TIME_MAX_MS
from agent.credentials.discover import providers
from agent.credentials.spec import (
    HANDLE_CHARACTERS_MAX,
    PROVIDER_ID_CHARACTERS_MAX,
    SECRET_BYTES_MAX,
    Client,
    Confirms,
    CredentialError,
    Issued,
    Provider,
    Renewed,
    RunToken,
    Wanted,
)
from agent.model.credential import Shape, secrets_of, type_of
from agent.model.ids import LeaseId

ISSUE_S, RENEW_S, REVOKE_S, CONFIRM_S = 20.0, 20.0, 20.0, 10.0
RETRY_AFTER_S_MAX = 300.0  # a backend that says "later" is not believed for longer
CALLS_MAX = 32  # of a kind under way at once; revocations never wait for issues
PROBES_MAX = 8  # under way at once, one past it waits
CONFIRM_POLLS_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)  # a backend that revokes soon is asked again

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class CallFailed(Exception):
    """The provider did not do it. The text is one bounded line without a secret."""

    def __init__(
        self,
        text: str,
        *,
        transient: bool = False,
        permanent: bool = False,
        nothing_made: bool = False,
        gone: bool = False,
        retry_after_s: float = 0.0,
        ends_ms: int = 0,
    ) -> None:
        super().__init__(one_line(text))
        self.transient = transient
        self.permanent = permanent
        self.nothing_made = nothing_made
        self.gone = gone
        self.ends_ms = ends_ms if _is_time(ends_ms) else 0
        self.retry_after_ms = int(1000 * max(0.0, min(retry_after_s, RETRY_AFTER_S_MAX)))


def one_line(text: str) -> str:
    """Return a provider's text as one bounded line that a terminal can show."""
    return " ".join(printable(text).split())[:ERROR_CHARACTERS_MAX]


def printable(text: str) -> str:
    """Return a backend's text with a space for each letter that no text or terminal can show."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def wanted_of(row: Row) -> Wanted:
    """Return what a provider is asked for."""
    return Wanted(
        row.lease_id,
        row.run_id,
        row.loop,
        row.target,
        dict(row.settings),
        Shape(row.shape),
        row.name,
        row.user,
        row.ttl_s,
        row.max_ttl_s,
    )


class Calls:
    """All methods run on the event loop."""

    def __init__(
        self,
        client: Client,
        clock: LeaseClock,
        keep: Callable[[LeaseId, str], None] = lambda *_: None,
    ) -> None:
        """Keep writes a handle down while a lease is issued; it raises JournalDead if it can't."""
        self._client = client
        self._clock = clock
        self._keep = keep
        self._issuing = asyncio.Semaphore(CALLS_MAX)
        self._ending = asyncio.Semaphore(CALLS_MAX)
        self._probing = asyncio.Semaphore(PROBES_MAX)

    def revocable(self, name: str) -> bool:
        """Whether the provider's credentials can be ended at all."""
        spec = providers().get(name)
        return spec is None or spec.revocable

    async def issue(self, row: Row, shown: RunToken | None = None) -> Issued:
        """Return a checked credential; shown is the token that let the run start.

        Raises:
            CallFailed: there is none; unless it says nothing_made, there may be one.
        """
        provider = self._provider(row.provider)
        now_ms = self._clock.unix_ms()
        wanted = replace(
            wanted_of(row),
            subject="" if shown is None else shown.subject,
            keep=functools.partial(self._kept, row.lease_id),
            run_token=shown,
        )
        issued = await self._call(
            self._issuing, ISSUE_S, lambda: provider.issue(wanted, self._client, now_ms)
        )
        problem = _nonsense(issued, Shape(row.shape), now_ms)
        if problem:
            raise CallFailed(f"the provider's answer is refused: {problem}")
        return replace(issued, provider_id=printable(issued.provider_id))

    async def probe(self, row: Row) -> None:
        """Return when the provider could issue; nothing that it made for that stays.

        Raises:
            CallFailed: it could not.
        """
        provider = self._provider(row.provider)
        await self._call(
            self._probing, ISSUE_S, lambda: provider.probe(wanted_of(row), self._client)
        )

    async def renew(self, row: Row) -> Renewed:
        """Return until when it lasts now.

        Raises:
            CallFailed: it was not renewed; transient: it may be tried again.
        """
        provider = self._provider(row.provider)
        now_ms = self._clock.unix_ms()
        answer = await self._call(
            self._issuing,
            RENEW_S,
            lambda: provider.renew(wanted_of(row), row.handle, self._client, now_ms),
        )
        if not isinstance(answer, Issued | Renewed):
            raise CallFailed("the provider's answer is no renewal", transient=True)
        if not _is_time(answer.expires_ms) or not _is_time(answer.max_ms):
            raise CallFailed("the provider renewed until no possible time", transient=True)
        return Renewed(answer.expires_ms, answer.max_ms)

    async def revoke(self, row: Row) -> None:
        """Return when the credential is ended, and confirmed where the provider can ask.

        Raises:
            CallFailed: it may still be alive.
        """
        provider = self._provider(row.provider)
        await self._call(
            self._ending,
            REVOKE_S,
            lambda: provider.revoke(wanted_of(row), row.handle, self._client),
        )
        for pause_s in CONFIRM_POLLS_S:
            if pause_s:
                await asyncio.sleep(pause_s)
            if await self.is_gone(row) is not False:
                return
        raise CallFailed("revoked, but the provider says that it is still there", transient=True)

    async def is_gone(self, row: Row) -> bool | None:
        """Return what the provider says of it, None when it is one that can't be asked.

        Raises:
            CallFailed: it can't be said now.
        """
        provider = self._provider(row.provider)
        if not isinstance(provider, Confirms):
            return None
        asked = provider
        answer = await self._call(
            self._ending,
            CONFIRM_S,
            lambda: asked.confirm(wanted_of(row), row.handle, self._client),
        )
        return answer is True

    def _kept(self, lease_id: LeaseId, handle: str) -> None:
        if len(handle) > HANDLE_CHARACTERS_MAX:
            raise CredentialError("the provider's handle is too long for the journal")
        try:
            self._keep(lease_id, handle)
        except JournalDead as error:
            raise CredentialError("the lease journal cannot be written") from error

    def _provider(self, name: str) -> Provider:
        spec = providers().get(name)
        if spec is None:
            raise CallFailed(f"this version has no provider {name!r}", nothing_made=True)
        return spec.make()

    async def _call(
        self, gate: asyncio.Semaphore, within_s: float, call: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        try:
            async with gate, asyncio.timeout(within_s):
                return await call()
        except CredentialError as error:
            raise CallFailed(
                str(error) or "the provider gave no reason",
                transient=error.transient,
                permanent=error.permanent,
                nothing_made=error.nothing_made,
                gone=error.gone,
                retry_after_s=error.retry_after_s,
                ends_ms=error.ends_ms,
            ) from error
        except TimeoutError:
            text = f"the provider did not answer within {within_s:.0f} s"
            raise CallFailed(text, transient=True) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is an answer
            # its text may hold what a backend sent: it is neither logged nor kept as a cause
            kind = type(error).__name__
            logger.error("a provider failed with %s", kind)  # noqa: TRY400 - no traceback
            raise CallFailed(f"the provider failed ({kind})", transient=True) from None


def _nonsense(issued: object, shape: Shape, now_ms: int) -> str:
    """Return what is wrong with an answer, "" when it can be believed."""
    if not isinstance(issued, Issued):
        return "it is no credential"
    if not isinstance(issued.credential, type_of[shape]):
        return f"its shape is not {shape}"
    secrets = [secret.reveal() for secret in secrets_of(issued.credential)]
    if not all(0 < len(secret) <= SECRET_BYTES_MAX for secret in secrets):
        return f"its secret is empty, or longer than {SECRET_BYTES_MAX} bytes"
    if len(issued.handle) > HANDLE_CHARACTERS_MAX:
        return "its handle is too long for the journal"
    if len(issued.provider_id) > PROVIDER_ID_CHARACTERS_MAX:
        return "its name is too long for the journal"
    if not _is_time(issued.expires_ms) or not _is_time(issued.max_ms):
        return "its end is no possible time"
    if issued.expires_ms and issued.expires_ms <= now_ms:
        return "it has expired already: compare the clocks of this host and of the backend"
    return ""


def _is_time(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < TIME_MAX_MS
