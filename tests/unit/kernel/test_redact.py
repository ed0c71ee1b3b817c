"""Secrets on command lines do not get into records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.redact import (
    ARGUMENT_CHARS_MAX,
    ARGUMENTS_MAX,
    REDACTED,
    redact_argv,
    split_argv,
)

CANARY = "c4n4ry-S3cret"


@pytest.mark.parametrize(
    "argv",
    [
        ("mysql", f"--password={CANARY}"),
        ("tool", "--api-key", CANARY),
        ("tool", "--auth-token", CANARY, "file"),
        ("env", f"DB_PASSWORD={CANARY}", "job"),
        ("curl", "-H", f"Authorization: Bearer {CANARY}"),
        ("curl", "-H", f"X-Api-Key: {CANARY}"),
        ("curl", "-u", f"user:{CANARY}"),
        ("curl", f"https://user:{CANARY}@example.org/"),
        ("psql", f"postgresql://u:{CANARY}@db/x"),
        ("git", "-c", f"http.extraheader=Authorization: basic {CANARY}"),
        ("x", f"ghp_{CANARY.replace('-', '')}0123456789"),
    ],
)
def test_secrets_are_redacted(argv: tuple[str, ...]) -> None:
    """The usual shapes of a secret on a command line lose it, and say that they did."""
    shown = redact_argv(argv)
    assert CANARY not in " ".join(shown)
    assert CANARY.replace("-", "") not in " ".join(shown)
    assert REDACTED in " ".join(shown)
    assert shown[0] == argv[0]


def test_ordinary_arguments_stay() -> None:
    """What is no secret is shown as it was."""
    argv = ("python3", "job.py", "--rows=10", "-v", "https://example.org/a?b=c")
    assert redact_argv(argv) == argv


@given(st.binary(max_size=600), st.integers(0, 700))
def test_split_takes_any_bytes(raw: bytes, more: int) -> None:
    """Any block of the kernel's is split within the limits; a missing part is always marked."""
    argv, cut = split_argv(raw, len(raw) + more)
    assert len(argv) <= ARGUMENTS_MAX
    assert all(len(one) <= ARGUMENT_CHARS_MAX for one in argv) or not cut
    assert cut or more == 0


@pytest.mark.parametrize(("count", "cut"), [(ARGUMENTS_MAX, False), (ARGUMENTS_MAX + 1, True)])
def test_the_number_of_arguments_is_bounded(count: int, *, cut: bool) -> None:
    """At the limit all are shown; one past it the last is left out and argv marked."""
    raw = b"a\0" * count
    argv, marked = split_argv(raw, len(raw))
    assert (len(argv), marked) == (ARGUMENTS_MAX, cut)


@pytest.mark.parametrize(
    ("size", "cut"), [(ARGUMENT_CHARS_MAX, False), (ARGUMENT_CHARS_MAX + 1, True)]
)
def test_the_length_of_an_argument_is_bounded(size: int, *, cut: bool) -> None:
    """At the limit it is whole; one past it, it is cut and argv marked."""
    raw = b"a" * size + b"\0"
    argv, marked = split_argv(raw, len(raw))
    assert (len(argv[0]), marked) == (ARGUMENT_CHARS_MAX, cut)
