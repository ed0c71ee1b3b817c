"""A lease whose name never came: the answer was lost, or a crash was before it was kept.

Nobody has its secret. The server ends it with the run's token, but on its own time (OpenBao queues
what a revoked token leased), and never while its database is down. So it is looked for among the
leases of the path: those that began while this one was asked for.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agent.credentials.lost import asked_ms
from agent.credentials.spec import Client, CredentialError, Wanted
from agent.credentials.vault.login import ask
from agent.credentials.vault.settings import VaultSettings
from agent.credentials.vault.wire import refusal

LISTED_MAX = 64  # leases of a path that are looked at; with more, it is asked again later
ASKED_WITHIN_MS = 30_000  # an issue is cut off after 20 s
SLACK_MS = 2_000  # the server tells its clock in whole seconds


async def unnamed_is_gone(settings: VaultSettings, client: Client, wanted: Wanted) -> bool:
    """Say whether the path has no lease that could be it. The run's token is gone already.

    Raises:
        CredentialError: the server does not say: our login may not list, or there are too many.
    """
    answer = await ask(settings, client, "GET", f"sys/leases/lookup/{settings.path}?list=true")
    if answer.status == 404:
        return True
    if not answer.good:
        hint = "may our login list the path's leases?" if answer.status == 403 else ""
        what = f"list the leases of {settings.path}, one of which has no name here"
        raise refusal(settings, answer, what, hint=hint)
    names = answer.part("data").get("keys")
    if not isinstance(names, list) or len(names) > LISTED_MAX:
        raise CredentialError(
            f"{settings.path} has more than {LISTED_MAX} leases, and one of them may be a lost one",
            transient=True,
        )
    ahead_ms = answer.date_ms - client.now_ms() if answer.date_ms else 0
    first_ms = asked_ms(wanted) + ahead_ms - SLACK_MS
    for name in names:
        lease: dict[str, object] = {"lease_id": f"{settings.path}/{name}"}
        found = await ask(settings, client, "POST", "sys/leases/lookup", lease)
        if found.says_gone:
            continue
        if not found.good:
            raise refusal(settings, found, "look a lease up")
        began_ms = _began_ms(found.part("data"))
        if not began_ms or first_ms <= began_ms <= first_ms + ASKED_WITHIN_MS + 2 * SLACK_MS:
            return False
    return True


def _began_ms(data: Mapping[str, Any]) -> int:
    """Return a lease's issue_time (RFC 3339, nanoseconds) as Unix time, 0 when it is none."""
    text = data.get("issue_time")
    if not isinstance(text, str):
        return 0
    try:
        return int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp() * 1000)
    except ValueError:
        return 0
