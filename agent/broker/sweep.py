"""At each start: credentials that we made and that no lease is known of are ended.

An intent is journalled before anything is made, so there are none, unless the journal was lost.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from agent.credentials.discover import providers
from agent.credentials.spec import Client, CredentialError, Sweeps, Wanted
from agent.model.audit import Alarm
from agent.model.ids import LeaseId, LoopName, RunId
from agent.policy.schema import CredentialSource, TargetPolicy
from agent.runtime import clock

SWEEP_S = 60.0  # of one backend
RETRY_FIRST_S, RETRY_MOST_S = 2.0, 600.0
NAMES_SHOWN_MAX = 5

logger = logging.getLogger(__name__)


async def sweep(
    targets: Iterable[TargetPolicy],
    known: Callable[[], frozenset[LeaseId]],
    client: Client,
    alarm: Callable[[Alarm, str], None],
) -> None:
    """Sweep each backend of the policy once; one that does not answer is asked again, for ever."""
    before_ms = clock.unix_ms()
    backends = {_backend(target): target for target in targets if target.credential is not None}
    async with asyncio.TaskGroup() as group:
        for target in backends.values():
            group.create_task(_until_swept(target, known, before_ms, client, alarm))


def _backend(target: TargetPolicy) -> tuple[str, tuple[tuple[str, str], ...]]:
    source = target.credential
    return ("", ()) if source is None else (source.provider, source.settings)


async def _until_swept(
    target: TargetPolicy,
    known: Callable[[], frozenset[LeaseId]],
    before_ms: int,
    client: Client,
    alarm: Callable[[Alarm, str], None],
) -> None:
    source = target.credential
    if source is None or source.provider not in providers():
        return
    provider = providers()[source.provider].make()
    if not isinstance(provider, Sweeps):
        return
    wanted, delay_s = _wanted(target, source), RETRY_FIRST_S
    while (ended := await _attempt(provider, wanted, known(), before_ms, client)) is None:
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, RETRY_MOST_S)
    if ended:
        names = ", ".join(ended[:NAMES_SHOWN_MAX])
        alarm(
            Alarm.LEASE_LOST,
            f"{len(ended)} credentials of this host at target {target.name} were of no lease that "
            f"its journal knows, and were ended: {names}",
        )


async def _attempt(
    provider: Sweeps,
    wanted: Wanted,
    known: frozenset[LeaseId],
    before_ms: int,
    client: Client,
) -> tuple[str, ...] | None:
    """Return what was ended, None when it is to be tried again."""
    try:
        async with asyncio.timeout(SWEEP_S):
            return await provider.sweep(wanted, known, before_ms, client)
    except (CredentialError, TimeoutError) as error:
        logger.warning("target %s is not swept yet: %s", wanted.target, error)
        return () if isinstance(error, CredentialError) and not error.transient else None


def _wanted(target: TargetPolicy, source: CredentialSource) -> Wanted:
    """Return a request that nothing is issued for."""
    return Wanted(
        LeaseId(clock.fresh_ulid()),
        RunId(clock.fresh_ulid()),
        LoopName(""),
        target.name,
        dict(source.settings),
        source.shape,
        source.name,
        source.user,
    )
