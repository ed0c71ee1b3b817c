"""Redaction: no canary gets through, whatever the usual way of writing it."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.redaction import (
    ARGUMENT_CHARACTERS_MAX,
    ARGUMENTS_MAX,
    CUT,
    LINE_BYTES_MAX,
    LOOKED_AT_CHARACTERS_MAX,
    redact,
)
from tests.unit.spent import is_quick

CANARY = "c4n4ry-value-123"
LINES = [
    ["curl", "-H", f"Authorization: Bearer {CANARY}", "https://x"],
    ["curl", "-u", f"bob:{CANARY}", "https://x"],
    ["curl", f"https://bob:{CANARY}@x/y"],
    ["curl", f"https://x/y?access_token={CANARY}&z=1"],
    ["mysql", f"--password={CANARY}"],
    ["psql", f"postgresql://u:{CANARY}@db/x"],
    ["git", "-c", f"http.extraheader=Authorization: basic {CANARY}"],
    ["tool", "--api-key", CANARY],
    ["tool", "--token", CANARY, "go"],
    ["env", f"AWS_SECRET_ACCESS_KEY={CANARY}", "aws"],
    ["sh", "-c", f"TOKEN={CANARY} ./x"],
    ["sh", "-c", f"curl -H 'X-Api-Key: {CANARY}' x"],
    ["x", f'{{"password": "{CANARY}"}}'],
    ["x", "--user", f"--password={CANARY} a:b"],
    ["docker", "--password-stdin", "--token", CANARY],
    ["sh", "-c", f"curl -H 'Authorization: Token token=\"{CANARY}\"' x"],
    ["sh", "-c", f'x token=password="{CANARY}"'],
    ["sh", "-c", f"x token X-Api-Key: {CANARY}"],
    ["git", "clone", "https://ghp_0123456789abcdef0123@github.com/x"],
]


@pytest.mark.parametrize("line", LINES)
def test_what_looks_like_a_secret_is_cut(line: list[str]) -> None:
    """The command stays readable, the value is gone."""
    shown = redact(tuple(line))
    assert CANARY not in " ".join(shown)
    assert "0123456789abcdef" not in " ".join(shown)
    assert shown[0] == line[0]
    assert CUT in " ".join(shown)


def test_ordinary_words_stay() -> None:
    """Nothing is cut from a command without secrets."""
    line = ("python", "job.py", "--verbose", "--out=/tmp/x", "a=b", "https://x/y?page=2", "-u")
    assert redact(line) == line


@given(st.lists(st.text(max_size=50), max_size=10))
def test_it_is_total_and_bounded(line: list[str]) -> None:
    """Any arguments give as many arguments."""
    assert len(redact(tuple(line))) == len(line)


def test_the_record_of_a_command_line_is_bounded() -> None:
    """At the limits all is shown, past them a mark says what is missing."""
    line = ("x" * 1024,) * (LINE_BYTES_MAX // 1024)
    assert redact(line) == line
    assert redact((*line, "y")) == (*line, "… 1 more")
    assert redact((*line[1:], "ü" * 512, "y"))[-1] == "… 1 more"
    assert redact(("x" * ARGUMENT_CHARACTERS_MAX,))[0] == "x" * ARGUMENT_CHARACTERS_MAX
    assert redact(("x" * (ARGUMENT_CHARACTERS_MAX + 1),))[0].endswith("…")
    assert len(redact(("x",) * ARGUMENTS_MAX)) == ARGUMENTS_MAX
    assert redact(("x",) * (ARGUMENTS_MAX + 5))[-1] == "… 5 more"


@pytest.mark.parametrize("ahead", range(-1, len(CANARY) + 2))
def test_a_secret_across_the_cut_is_not_shown(ahead: int) -> None:
    """What is cut at LOOKED_AT_CHARACTERS_MAX loses its tail, however short it got."""
    head = "x password=".ljust(LOOKED_AT_CHARACTERS_MAX - 14 - ahead, "p") + " https://bob:"
    shown = redact(("sh", "-c", f"{head}{CANARY}@x/y"))[-1]
    assert CANARY[:3] not in shown
    assert shown.endswith("…")


@pytest.mark.parametrize("piece", ["a", "token", "a.-", "pass ", "a://", "eyJ", "x=", "sk-"])
def test_no_argument_makes_it_slow(piece: str) -> None:
    """A whole frame of one caller's arguments takes under 250 ms of CPU time (it takes 10)."""
    argument = (piece * 65_536)[:16_384]
    line = (*((argument[:1_400],) * 40), argument)
    assert is_quick(functools.partial(redact, line), 0.25)
