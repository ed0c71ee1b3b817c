"""What every credential provider must do, whatever backend is behind it.

A provider's own test module gives a `Case`; `check_all` runs the whole suite on it. Adding a
provider is adding a case: no test here knows a provider by name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest

from agent.credentials.spec import (
    HANDLE_CHARACTERS_MAX,
    PROVIDER_ID_CHARACTERS_MAX,
    SECRET_BYTES_MAX,
    Client,
    Confirms,
    CredentialError,
    Issued,
    ProviderSpec,
    Renewed,
    Wanted,
)
from agent.model.credential import Shape, secrets_of, type_of
from agent.model.ids import LeaseId, LoopName, RunId, TargetName

NOW_MS = 1_800_000_000_000
LATER_MS = 1_000
CALL_S = 100.0  # a provider that hangs fails; a busy machine does not
TTL_S, TTL_SLACK_S = 120, 5
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Case:
    """One provider with settings that work and settings that do not."""

    spec: ProviderSpec
    client: Client
    good: Mapping[str, str]
    bad: tuple[Mapping[str, str], ...]
    canary: bytes  # part of every secret of this case
    alive: Callable[[Issued], bool]  # does the backend still accept it?
    # for shapes that need other settings, and those whose secrets have another canary
    settings: Mapping[Shape, Mapping[str, str]] = field(default_factory=dict)
    canaries: Mapping[Shape, bytes] = field(default_factory=dict)


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
    await _check_ttl(case)
    await _check_renew(case)
    await _check_revoke(case)
    await _check_lost_answer(case)
    await _check_probe(case)


async def _check_issue(case: Case, shape: Shape) -> None:
    """The credential has the shape, the handle no secret, and nothing prints the secret."""
    canary = case.canaries.get(shape, case.canary)
    kept: list[str] = []
    asked = replace(wanted(case, shape, case.settings.get(shape, case.good)), keep=kept.append)
    issued = await _timely(case.spec.make().issue(asked, case.client, NOW_MS))
    assert isinstance(issued.credential, type_of[shape])
    for secret in secrets_of(issued.credential):
        assert canary in secret.reveal()
        assert 0 < len(secret.reveal()) <= SECRET_BYTES_MAX
        assert not secret.reveal().endswith((b"\n", b"\r"))
    for shown in (repr(issued), issued.provider_id, issued.handle, *kept):
        assert canary.decode() not in shown
    assert all(len(handle) <= HANDLE_CHARACTERS_MAX for handle in (issued.handle, *kept))
    assert len(issued.provider_id) <= PROVIDER_ID_CHARACTERS_MAX
    assert issued.expires_ms == 0 or issued.expires_ms > NOW_MS
    assert issued.max_ms == 0 or issued.max_ms >= issued.expires_ms > 0
    assert case.spec.revocable or not issued.revocable
    assert case.alive(issued)
    await _take_back(case, asked, issued)


async def _check_refusal(case: Case, settings: Mapping[str, str]) -> None:
    """What can't be issued is a CredentialError, by issue and by probe, without the secret."""
    provider = case.spec.make()
    asked = wanted(case, min(case.spec.shapes), settings)
    await _refuses(provider.issue(asked, case.client, NOW_MS), case)
    await _refuses(provider.probe(asked, case.client), case)


async def _check_ttl(case: Case) -> None:
    """A target's ttl is an upper bound of what the provider declares, and can end."""
    asked = replace(wanted(case, min(case.spec.shapes), case.good), ttl_s=TTL_S)
    issued = await _timely(case.spec.make().issue(asked, case.client, NOW_MS))
    if issued.revocable:  # of what nobody can end, the true end is told
        assert issued.expires_ms <= NOW_MS + 1000 * (TTL_S + TTL_SLACK_S)
    await _take_back(case, asked, issued)


async def _check_renew(case: Case) -> None:
    """Renewing extends and keeps the credential alive, or says no."""
    asked = wanted(case, min(case.spec.shapes), case.good)
    issued = await _timely(case.spec.make().issue(asked, case.client, NOW_MS))
    renewal = case.spec.make().renew(asked, issued.handle, case.client, NOW_MS + LATER_MS)
    if issued.renewable:
        renewed = await _timely(renewal)
        assert isinstance(renewed, Issued | Renewed)
        assert renewed.expires_ms == 0 or renewed.expires_ms >= issued.expires_ms
        assert case.canary.decode() not in repr(renewed)
        assert case.alive(issued)
    else:
        await _refuses(renewal, case)
    await _take_back(case, asked, issued)
    if issued.renewable and issued.revocable:
        gone = case.spec.make().renew(asked, issued.handle, case.client, NOW_MS)
        await _refuses(gone, case)


async def _check_revoke(case: Case) -> None:
    """Revoking is idempotent, works by a new instance, is confirmed, and hurts no other lease."""
    asked = wanted(case, min(case.spec.shapes), case.good)
    other = replace(asked, lease_id=LeaseId("01JD0000000000000000000008"))
    issued = await _timely(case.spec.make().issue(asked, case.client, NOW_MS))
    beside = await _timely(case.spec.make().issue(other, case.client, NOW_MS))
    if issued.revocable:
        assert await _gone(case, asked, issued.handle) in {False, None}
    for _ in range(2):
        await _take_back(case, asked, issued)
    if issued.revocable:
        assert not case.alive(issued)
        assert await _gone(case, asked, issued.handle) in {True, None}
    assert case.alive(beside)
    await _take_back(case, other, beside)
    never = replace(asked, lease_id=LeaseId("01JD0000000000000000000009"))
    await _timely(case.spec.make().revoke(never, "", case.client))
    assert await _gone(case, never, "") in {True, None}


async def _check_lost_answer(case: Case) -> None:
    """A crash between issue and journal: it is found by its lease's id, or by what was kept."""
    kept = [""]
    asked = replace(
        wanted(case, min(case.spec.shapes), case.good),
        lease_id=LeaseId("01JD0000000000000000000007"),
        keep=kept.append,
    )
    issued = await _timely(case.spec.make().issue(asked, case.client, NOW_MS))
    await _take_back(case, asked, replace(issued, handle=kept[-1]))
    assert not (issued.revocable and case.alive(issued))
    if issued.revocable:
        assert await _gone(case, asked, kept[-1]) in {True, None}


async def _check_probe(case: Case) -> None:
    """A probe of what works raises nothing."""
    asked = wanted(case, min(case.spec.shapes), case.good)
    await _timely(case.spec.make().probe(asked, case.client))


async def _take_back(case: Case, asked: Wanted, issued: Issued) -> None:
    """Revoke it. What nobody can end is told so, with its end: never as done."""
    revocation = case.spec.make().revoke(asked, issued.handle, case.client)
    if issued.revocable or not issued.expires_ms:
        await _timely(revocation)
        return
    with pytest.raises(CredentialError) as caught:
        await _timely(revocation)
    assert caught.value.ends_ms > 0


async def _gone(case: Case, asked: Wanted, handle: str) -> bool | None:
    provider = case.spec.make()
    if not isinstance(provider, Confirms):
        return None
    return await _timely(provider.confirm(asked, handle, case.client))


async def _timely(call: Awaitable[Answer]) -> Answer:
    async with asyncio.timeout(CALL_S):
        return await call


async def _refuses(attempt: Awaitable[object], case: Case) -> None:
    with pytest.raises(CredentialError) as caught:
        await _timely(attempt)
    assert str(caught.value)
    assert case.canary.decode() not in str(caught.value)
