"""argv as the kernel recorded it: any bytes, bounded, redacted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.argv import ARGUMENT_CHARS_MAX, ARGUMENTS_MAX, split_argv
from agent.model.redaction import CUT


def test_what_is_split_is_redacted() -> None:
    """A secret among the arguments is cut, the others stay."""
    raw = b"mysql\0--password=c4n4ry\0orders\0"
    assert split_argv(raw, len(raw)) == (("mysql", f"--password={CUT}", "orders"), False)


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
