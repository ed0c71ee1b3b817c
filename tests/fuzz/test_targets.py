"""A short run of every fuzz target is part of the suite."""

import pytest

from tests.fuzz.engine import Finding, load, mutate, run
from tests.fuzz.targets import names

SECONDS = 0.5
SEED = 20260802


@pytest.mark.parametrize("name", names())
def test_a_short_run(name: str) -> None:
    """Each target's invariant holds on its seeds and half a second of mutations of them."""
    assert run(name, SECONDS, SEED) > len(load(name).SEEDS)


@pytest.mark.parametrize("name", names())
def test_a_target_says_its_invariant(name: str) -> None:
    """The first line of a target's docstring is its invariant, and it has seeds."""
    target = load(name)
    assert (target.__doc__ or "").startswith("Invariant: ")
    assert target.SEEDS


def test_a_finding_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that breaks an invariant ends the run and is named, ready for a test."""
    target = load(names()[0])

    def broken(data: bytes) -> None:
        raise ValueError(data)

    monkeypatch.setattr(target, "check", broken)
    with pytest.raises(Finding, match="fails on b"):
        run(names()[0], 0, SEED)


def test_mutations_are_repeatable() -> None:
    """The same seed gives the same inputs: a finding can be made again."""
    import random

    seeds = (b"GET / HTTP/1.1\r\n\r\n", b"other")
    first = [mutate(random.Random(7), seeds) for _ in range(3)]
    assert first == [mutate(random.Random(7), seeds) for _ in range(3)]
