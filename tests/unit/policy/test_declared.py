"""Tables of settings: values at their limits, and one past them."""

import json

import pytest

from agent.policy.declared import (
    CHARACTERS_MAX,
    FLAG,
    LIST_MAX,
    Declared,
    Kind,
    any_text,
    check_declared,
    fitting,
    https_url,
    items_of,
    one_of,
)

TABLE = Declared(
    "sample",
    {
        "one": Kind(any_text),
        "many": Kind(any_text, LIST_MAX),
        "time": Kind(any_text, 0, (5, 9)),
        "count": Kind(any_text, numbers=(1, 7)),
        "on": FLAG,
        "word": Kind(one_of("approle", "token")),
        "number": Kind(fitting(int)),
    },
    ("one",),
)


def test_limits() -> None:
    """Of characters, items, seconds and numbers."""
    good = {"one": "x" * CHARACTERS_MAX, "many": json.dumps(["a"] * LIST_MAX), "time": "9"}
    good |= {"count": "7", "on": "true", "word": "token", "number": "5"}
    check_declared(good, TABLE)
    check_declared(good | {"count": "1", "on": "false", "time": "5"}, TABLE)
    assert len(items_of(good, "many")) == LIST_MAX
    for change in (
        {"one": "x" * (CHARACTERS_MAX + 1)},
        {"one": ""},
        {"one": "a\nb"},
        {"many": json.dumps(["a"] * (LIST_MAX + 1))},
        {"many": "[" * 100_000},
        {"many": '[""]'},
        {"many": "[1]"},
        {"time": "10"},
        {"time": "4"},
        {"time": "-5"},
        {"count": "0"},
        {"count": "8"},
        {"count": "٣"},
        {"on": "yes"},
        {"on": ""},
        {"other": "x"},
    ):
        with pytest.raises(ValueError):
            check_declared(good | change, TABLE)
    with pytest.raises(ValueError, match="'one' is needed"):
        check_declared({}, TABLE)


def test_what_is_wrong_is_shown() -> None:
    """The text that is wrong, and the word that was meant."""
    with pytest.raises(ValueError, match=r"word: write one of .*, not 'aprole'; did you mean 'app"):
        check_declared({"one": "x", "word": "aprole"}, TABLE)
    with pytest.raises(ValueError, match=r"number: 'five': "):
        check_declared({"one": "x", "number": "five"}, TABLE)


@pytest.mark.parametrize(
    "url", ["https://a", "https://a:1/b", "http://127.0.0.1:1/", "http://[::1]"]
)
def test_urls(url: str) -> None:
    """TLS, or a loopback address."""
    https_url(url)


@pytest.mark.parametrize(
    "url",
    ["", "http://a", "http://localhost", "ftp://a", "https://", "https://a b", "https://a/#",
     "https://a/?", "https://a:x", "https://u:p@a", "https://é", "https://a:99999", "https://[::1"],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    """No user, query, fragment, space, nor clear text to elsewhere."""
    with pytest.raises(ValueError):
        https_url(url)
