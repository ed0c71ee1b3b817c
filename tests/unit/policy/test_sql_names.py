"""Names in rules: quoted as they are, bare in lower case with stars, one or two parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.sql_names import (
    NAME_PATTERN_CHARACTERS_MAX,
    check_name_pattern,
    compile_name,
    split_name,
    write_name,
)
from tests.unit.spent import is_quick


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "write NAME or SCHEMA.NAME"),
        (".a", "write NAME or SCHEMA.NAME"),
        ("a.", "write NAME or SCHEMA.NAME"),
        ('"a', "write NAME or SCHEMA.NAME"),
        ('a"b"', "write NAME or SCHEMA.NAME"),
        ("a.b.c", "at most two parts"),
        ("Orders", "unquoted names are lower case in PostgreSQL: write 'orders'"),
        ("a b", "in double quotes"),
        ("a;b", "in double quotes"),
        ("x" * (NAME_PATTERN_CHARACTERS_MAX + 1), "at most 256 characters"),
    ],
)
def test_what_is_no_pattern_is_told(pattern: str, said: str) -> None:
    """With the right form."""
    assert said in str(check_name_pattern(pattern))
    with pytest.raises(ValueError):
        compile_name(pattern)


def test_a_pattern_of_the_most_characters_is_one() -> None:
    """256 characters are."""
    assert check_name_pattern("x" * (NAME_PATTERN_CHARACTERS_MAX - 1) + "*") is None
    assert check_name_pattern("a.b", parts_max=1) == "one part only"


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        ("orders", ["orders"], ["orders2", "Orders", ""]),
        ("order_*", ["order_", "order_items"], ["orders", "x_order_"]),
        ("*_log", ["a_log", "_log", "a_log_log"], ["log", "a_logs"]),
        ("a*b*c", ["abc", "axbxc", "abbcc"], ["acb", "abcd"]),
        ("*", ["", "x", "a\nb"], []),
        ('"Or*ders"', ["Or*ders"], ["OrXders", "or*ders"]),
        ('"a""b.c"', ['a"b.c'], ["a"]),
        ("größe", ["größe"], ["grösse"]),
    ],
)
def test_what_a_part_fits(pattern: str, fits: list[str], not_fits: list[str]) -> None:
    """Stars are any characters; quotes make a part literal."""
    part = compile_name(pattern).name
    assert all(part.fits(name) for name in fits)
    assert not any(part.fits(name) for name in not_fits)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_a_written_name_means_itself(schema: str, name: str) -> None:
    """What we suggest to write is a pattern that fits exactly that name."""
    if name == "*" or schema == "*":
        return
    written = write_name(schema, name)
    assert split_name(written) == (schema, name)
    pattern = compile_name(written)
    assert pattern.qualifier is not None
    assert pattern.qualifier.fits(schema)
    assert pattern.name.fits(name)
    assert not pattern.name.fits(name + "x")


def test_no_name_makes_a_pattern_slow() -> None:
    """Time is linear in the name, whatever stars a pattern has."""
    part = compile_name("*a" * 60 + "*b").name
    assert not part.fits("a" * 20_000)
    assert is_quick(lambda: part.fits("a" * 20_000), 1.0)


def test_a_star_is_no_name() -> None:
    """split_name is for one function or schema."""
    assert split_name("app.f") == ("app", "f")
    assert split_name("f") == ("", "f")
    assert split_name("app.*") is None
    assert split_name('"*"') == ("", "*")
    assert split_name("A") is None


def test_a_name_is_as_long_as_the_server_keeps_it() -> None:
    """One byte more would mean nothing: a deny rule would be no rule."""
    for name in ("x" * 63, '"' + "é" * 31 + 'x"', f"{'s' * 63}.{'t' * 63}", "x" * 64 + "*"):
        assert check_name_pattern(name) is None
    for name in ("x" * 64, '"' + "é" * 32 + '"', f"s.{'t' * 64}", '"' + "x" * 63 + '*"'):
        assert "63 bytes" in (check_name_pattern(name) or "")
