"""What every credential provider must do, whatever backend is behind it.

A provider's own test module gives a `Case`; `check_all` runs the whole suite on it. Adding a
provider is adding a case: no test here knows a provider by name.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from agent.credentials.spec import (
    HANDLE_CHARACTERS_MAX,
    SECRET_BYTES_MAX,
    Client,
    CredentialError,
    Issued,
    ProviderSpec,
    Wanted,
)
from agent.model.credential import Shape, secrets_of, type_of
from agent.model.ids import LeaseId, LoopName, RunId, TargetName

NOW_MS = 1_800_000_000_000


@dataclass(frozen=True)
class Case:
    """One provider with settings that work and settings that do not."""

    spec: ProviderSpec
    client: Client
    good: Mapping[str, str]
    bad: tuple[Mapping[str, str], ...]
    canary: bytes  # part of every secret of this case
    alive: Callable[[Issued], bool]  # does the backend still accept it?


def wanted(case: Case, shape: Shape, settings: Mapping[str, str]) -> Wanted:
    """Return a request as the broker makes it."""
    name = "X-Key" if shape is Shape.HEADER else "key" if shape is Shape.QUERY_PARAMETER else ""
    user = "robot" if shape is Shape.BASIC else ""
    return Wanted(
        LeaseId("01JD0000000000000000000000"),
        RunId("01JD0000000000000000000001"),
        LoopName("nightly"),
        TargetName("api"),
        settings,
        shape,
        name,
        user,
    )


async def check_all(case: Case) -> None:
    """Run the suite."""
    for shape in sorted(case.spec.shapes):
        await _check_issue(case, shape)
    for settings in case.bad:
        await _check_refusal(case, settings)
    await _check_revoke(case)
    await _check_probe(case)


async def _check_issue(case: Case, shape: Shape) -> None:
    """The credential has the shape, the handle no secret, and nothing prints the secret."""
    provider = case.spec.make()
    issued = await provider.issue(wanted(case, shape, case.good), case.client, NOW_MS)
    assert isinstance(issued.credential, type_of[shape])
    for secret in secrets_of(issued.credential):
        assert case.canary in secret.reveal()
        assert 0 < len(secret.reveal()) <= SECRET_BYTES_MAX
        assert not secret.reveal().endswith((b"\n", b"\r"))
    assert case.canary.decode() not in repr(issued)
    assert case.canary.decode() not in issued.handle
    assert len(issued.handle) <= HANDLE_CHARACTERS_MAX
    assert issued.expires_ms == 0 or issued.expires_ms > NOW_MS
    assert case.alive(issued)
    if not issued.renewable:
        await _refuses(provider.renew(wanted(case, shape, case.good), issued.handle, case.client,
                                      NOW_MS), case)  # fmt: skip


async def _check_refusal(case: Case, settings: Mapping[str, str]) -> None:
    """What can't be issued is a CredentialError, by issue and by probe, without the secret."""
    provider = case.spec.make()
    asked = wanted(case, min(case.spec.shapes), settings)
    await _refuses(provider.issue(asked, case.client, NOW_MS), case)
    await _refuses(provider.probe(asked, case.client), case)


async def _check_revoke(case: Case) -> None:
    """Revoking is idempotent, works by a new instance, and for what was never issued."""
    asked = wanted(case, min(case.spec.shapes), case.good)
    issued = await case.spec.make().issue(asked, case.client, NOW_MS)
    for _ in range(2):
        await case.spec.make().revoke(asked, issued.handle, case.client)
    assert not (issued.revocable and case.alive(issued))
    never = replace(asked, lease_id=LeaseId("01JD0000000000000000000009"))
    await case.spec.make().revoke(never, "", case.client)


async def _check_probe(case: Case) -> None:
    """A probe of what works raises nothing."""
    asked = wanted(case, min(case.spec.shapes), case.good)
    await case.spec.make().probe(asked, case.client)


async def _refuses(attempt: Awaitable[object], case: Case) -> None:
    with pytest.raises(CredentialError) as caught:
        await attempt
    assert str(caught.value)
    assert case.canary.decode() not in str(caught.value)
