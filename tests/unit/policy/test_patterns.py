"""Path patterns against a slow, obvious matcher; and against paths made to be slow."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.patterns import (
    PATTERN_CHARACTERS_MAX,
    check_pattern,
    compile_pattern,
    is_ambiguous,
    readings,
)
from tests.unit.spent import is_quick

TABLE = [
    ("/a", ["/a"], ["/", "/a/", "/ab", "/a/b"]),
    ("/a/*", ["/a/b", "/a/"], ["/a", "/a/b/c", "/b/b"]),
    ("/a/**", ["/a/", "/a/b", "/a/b/c/"], ["/a", "/ab", "/"]),
    ("/**", ["/", "/a", "/a/b"], []),
    ("/a/**/b", ["/a/b", "/a/x/b", "/a/x/y/b", "/a/b/b"], ["/a", "/a/bb", "/a/xb", "/a/b/c"]),
    ("/**/b/*", ["/b/x", "/a/b/x", "/b/b/x"], ["/b", "/b/x/y", "/ab/x"]),
    ("/a*c", ["/ac", "/abc", "/accc"], ["/ab", "/a/c", "/acd"]),
    ("/*.tar.*", ["/x.tar.gz", "/.tar."], ["/x.tar", "/x/y.tar.gz"]),
    ("/a.b", ["/a.b"], ["/axb"]),
    ("/a/**/x*y/**/z", ["/a/xy/z", "/a/q/x1y/r/z"], ["/a/x/y/z", "/a/xy/zz"]),
]


@pytest.mark.parametrize(("pattern", "match", "differ"), TABLE)
def test_the_table(pattern: str, match: list[str], differ: list[str]) -> None:
    """`*` stays in its segment, `**` does not, and all else is literal."""
    compiled = compile_pattern(pattern)
    assert [path for path in match if not compiled.fullmatch(path)] == []
    assert [path for path in differ if compiled.fullmatch(path)] == []


def _segment_matches(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_segment_matches(pattern[1:], text[cut:]) for cut in range(len(text) + 1))
    return text[:1] == pattern[0] and _segment_matches(pattern[1:], text[1:])


def _matches(pattern: list[str], path: list[str]) -> bool:
    """The meaning, by trying everything."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        if len(pattern) == 1:
            return len(path) >= 1
        return any(_matches(pattern[1:], path[cut:]) for cut in range(len(path) + 1))
    return bool(path) and _segment_matches(pattern[0], path[0]) and _matches(pattern[1:], path[1:])


SEGMENT = st.text(alphabet="ab", max_size=4)
GLOB = st.text(alphabet="ab*", max_size=4).filter(lambda text: "**" not in text)


@given(
    st.lists(st.one_of(GLOB, st.just("**")), min_size=1, max_size=6),
    st.lists(SEGMENT, min_size=1, max_size=7),
)
def test_the_compiled_form_has_the_obvious_meaning(pattern: list[str], path: list[str]) -> None:
    """Atomic groups lose no match, for any mix of stars."""
    written = "/" + "/".join(pattern)
    compiled = compile_pattern(written)
    assert bool(compiled.fullmatch("/" + "/".join(path))) == _matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/" + "*a" * 20 + "b", "/" + "a" * 8000),
        ("/" + "**/a/" * 20 + "b", "/" + "a/" * 4000),
        ("/**/" + "*a*/" * 10 + "**/b", "/" + "aaa/" * 2000),
        ("/" + "*=a" * 20 + "b", "/" + "%3Da=a" * 1300),
    ],
)
def test_no_path_makes_a_pattern_slow(pattern: str, path: str) -> None:
    """8 KiB made for backtracking are decided in 50 ms of CPU time (they take about 1)."""
    for loose in (False, True):
        compiled = compile_pattern(pattern, loose=loose)
        assert compiled.fullmatch(path) is None
        assert is_quick(functools.partial(compiled.fullmatch, path), 0.05)


def test_a_pattern_has_a_length() -> None:
    """At the limit it compiles, one past it is refused."""
    compile_pattern("/" + "a" * (PATTERN_CHARACTERS_MAX - 1))
    assert str(PATTERN_CHARACTERS_MAX) in (check_pattern("/" + "a" * PATTERN_CHARACTERS_MAX) or "")


def test_odd_paths_have_several_readings() -> None:
    """Encoded slashes, backslashes and empty segments are read as servers may read them."""
    assert readings("/a/b") == ("/a/b",)
    assert readings("/a%2Fb") == ("/a%2Fb", "/a/b")
    assert readings("/a//b") == ("/a//b", "/a/b")
    assert readings("/a%5c%2fb") == ("/a%5c%2fb", "/a//b", "/a/b")


@pytest.mark.parametrize(
    "path",
    ["/a%2F..%2Fb", "/a%5C..", "/..", "/a/../b", "/a/./b", "/%2e%2e/x", "/a/.%2E", "/a/..;/b"],
)
def test_dot_segments_make_a_path_ambiguous(path: str) -> None:
    """In any reading."""
    assert is_ambiguous(path)


@pytest.mark.parametrize("path", ["/a..b", "/...", "/.well-known/x", "/a.", "/a/b.."])
def test_dots_in_names_do_not(path: str) -> None:
    """A dot segment is a whole segment."""
    assert not is_ambiguous(path)
