"""Calls of providers: whatever comes back is bounded and checked."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.broker import lease_calls
from agent.broker.control import encode
from agent.broker.journal import ERROR_CHARACTERS_MAX
from agent.broker.lease_calls import PROBES_MAX, CallFailed, one_line
from agent.broker.lease_views import view
from agent.broker.leases import LeaseFailed
from agent.broker.probing import probe_credentials
from agent.credentials.spec import CredentialError, Issued, ProviderSpec
from agent.model.credential import Basic, Bearer, Shape
from agent.model.ids import RunId, TargetName
from agent.model.secret import Secret
from agent.policy.parse import parse_policy
from tests.unit.broker.harness import run_async
from tests.unit.broker.lease_harness import World, calm, target

GOOD = Issued(Bearer(Secret(b"x")), "h", 0, renewable=False, revocable=True)


class Saying:
    """A provider whose every answer is the same, whatever it is."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def issue(self, *_: object) -> object:
        """Say it."""
        return self.answer

    revoke = renew = probe = issue


NONSENSE: list[tuple[object, str]] = [
    (None, "no credential"),
    ({"token": "x"}, "no credential"),
    (Issued(Basic("u", Secret(b"x")), "h", 0, renewable=False, revocable=True), "shape"),
    (Issued(Bearer(Secret(b"x" * 20_000)), "h", 0, renewable=False, revocable=True), "longer than"),
    (Issued(Bearer(Secret(b"")), "h", 0, renewable=False, revocable=True), "empty"),
    (Issued(Bearer(Secret(b"x")), "h" * 1_025, 0, renewable=False, revocable=True), "handle"),
    (Issued(Bearer(Secret(b"x")), "", -1, renewable=False, revocable=True), "no possible time"),
    (Issued(Bearer(Secret(b"x")), "", 1 << 48, renewable=False, revocable=True), "possible time"),
    (Issued(Bearer(Secret(b"x")), "", 1, renewable=False, revocable=True), "expired already"),
    (Issued(Bearer(Secret(b"x")), "", 0, True, True, provider_id="i" * 513), "name is too long"),
]


@pytest.mark.parametrize(("answer", "words"), NONSENSE)
def test_nonsense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object, words: str
) -> None:
    """Another kind, shape, size or time than can be: no lease, and what was made is taken back."""

    async def main() -> None:
        world = World(tmp_path, monkeypatch)
        spec = ProviderSpec("scripted", frozenset(Shape), (), lambda: Saying(answer))  # type: ignore[arg-type,return-value]
        monkeypatch.setattr(lease_calls, "providers", lambda: {"scripted": spec})
        with pytest.raises(LeaseFailed, match=words):
            await world.take()
        await world.leases.settled()
        assert len(world.leases) == 0

    run_async(main())


def test_a_name_that_is_no_text_is_one_that_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON can say half a letter; `loopwarden leases` could tell of no lease at all with it."""

    async def main() -> None:
        world = World(tmp_path, monkeypatch)
        answer = replace(GOOD, provider_id="a\ud800\x1b[2Jé")
        spec = ProviderSpec("scripted", frozenset(Shape), (), lambda: Saying(answer))  # type: ignore[arg-type,return-value]
        monkeypatch.setattr(lease_calls, "providers", lambda: {"scripted": spec})
        lease = await world.take()
        [row] = world.leases.rows(lease.run_id)
        assert row.provider_id == "a  [2Jé"
        assert encode(view(world.leases, row))

    run_async(main())


def test_calls_at_once_are_bounded_and_revocations_do_not_wait_for_issues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 issues under way, the 33rd waits; a revocation goes ahead."""

    async def main() -> None:
        world = World(tmp_path, monkeypatch)
        first = await world.take("first")
        gate = world.backend.gates["issue"] = asyncio.Event()
        asked = [
            asyncio.ensure_future(world.take(run=RunId(f"r{number}")))
            for number in range(lease_calls.CALLS_MAX + 1)
        ]
        await calm()
        assert world.backend.calls.count("issue") == 1 + lease_calls.CALLS_MAX
        world.leases.forget(first.run_id)
        await calm()
        assert not world.backend.lives(first.lease_id)
        gate.set()
        for each in asked:
            await each

    run_async(main())


def test_probes_are_bounded_and_make_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 at once, the next waits; whatever one does has words, and no lease comes of it."""

    async def main() -> None:
        world = World(tmp_path, monkeypatch)
        policy = replace(
            parse_policy((), lambda _: ""),
            targets={TargetName(f"t{at}"): target(f"t{at}") for at in range(3 * PROBES_MAX)},
        )
        world.backend.faults["probe"] = ["transient", "broken"]
        gate = world.backend.gates["probe"] = asyncio.Event()

        async def ask() -> list[str]:
            return [view.problem async for view in probe_credentials(world.leases, policy)]

        asked = asyncio.ensure_future(ask())
        await calm()
        assert world.backend.calls == ["probe"] * PROBES_MAX
        gate.set()
        found = await asked
        assert world.backend.calls == ["probe"] * 3 * PROBES_MAX
        assert found[:3] == ["the backend is away", "the provider failed (KeyError)", ""]
        assert world.leases.every(past=True) == []
        gate.clear()
        asked = asyncio.ensure_future(ask())
        await calm()
        asked.cancel()
        await calm()
        gate.set()
        await calm()
        assert len(world.backend.calls) <= 4 * PROBES_MAX + 1  # who asked has left

    run_async(main())


def test_an_error_is_one_line() -> None:
    """At most ERROR_CHARACTERS_MAX, nothing a terminal obeys."""
    text = one_line("a\r\n b\x1b[31m\u202e" + "c" * 1_000)
    assert text.startswith("a b [31m ccc")
    assert len(text) == ERROR_CHARACTERS_MAX
    assert str(CallFailed("x" * 241)) == "x" * 240


def test_an_error_without_words_has_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CredentialError("") is not shown as nothing."""

    class Mute(Saying):
        async def issue(self, *_: object) -> object:
            """Say nothing."""
            raise CredentialError("")

        async def revoke(self, *_: object) -> object:
            """Do nothing."""
            return None

    async def main() -> None:
        world = World(tmp_path, monkeypatch)
        spec = ProviderSpec("scripted", frozenset(Shape), (), lambda: Mute(None))  # type: ignore[arg-type,return-value]
        monkeypatch.setattr(lease_calls, "providers", lambda: {"scripted": spec})
        with pytest.raises(LeaseFailed, match="gave no reason"):
            await world.take()
        await world.leases.settled()

    run_async(main())
