"""Whether credentials could be issued, asked before a run needs one."""

import asyncio
from collections.abc import AsyncIterator

from agent.broker.control import CredentialView
from agent.broker.leases import Leases
from agent.policy.schema import CredentialSource, Policy, TargetPolicy


async def probe_credentials(leases: Leases, policy: Policy) -> AsyncIterator[CredentialView]:
    """Yield what each target's provider says, in the order of the policy."""
    event_loop = asyncio.get_running_loop()

    async def ask(target: TargetPolicy, source: CredentialSource) -> CredentialView:
        return CredentialView(target.name, source.provider, await leases.probe(target, source))

    asked = [
        event_loop.create_task(ask(target, target.credential))
        for target in policy.targets.values()
        if target.credential is not None
    ]
    try:
        for task in asked:
            yield await task
    finally:
        for task in asked:
            task.cancel()
