"""YAML reading is bounded: no bomb, no tag, no second document."""

from collections.abc import Callable

import pytest

from agent.policy import document
from agent.policy.document import Mapping, Scalar, Sequence, Source, read_document
from agent.policy.errors import PolicyError
from tests.unit.spent import is_quick


def _read(text: str) -> document.Node | None:
    return read_document(Source("a", text))


def test_nodes_have_places() -> None:
    """Lines and columns count from 1."""
    root = _read("a:\n  - b\n")
    assert isinstance(root, Mapping)
    [(key, value)] = root.entries
    assert (key.place.line, key.place.column) == (1, 1)
    assert isinstance(value, Sequence)
    assert str(value.items[0].place) == "a:2:5"


def test_an_alias_is_its_anchors_node() -> None:
    """Anchors may save writing."""
    root = _read("a: &x [1, 2]\nb: *x\n")
    assert isinstance(root, Mapping)
    assert root.entries[0][1] is root.entries[1][1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: *b", "no finished anchor"),
        ("a: &a [*a]", "no finished anchor"),
        ("a: 1\n---\nb: 2", "second document"),
        ("a: !x 1", "no tags"),
        ("a: 1\na: 2", "duplicate key 'a', first at a:1:1"),
        ("[1]: 2", "a key must be text"),
        ("a: [", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    """Each with its place."""
    with pytest.raises(PolicyError, match=r"^a:\d+:\d+: ") as caught:
        _read(text)
    assert said in str(caught.value)


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    """Nested aliases count each time they are used."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]

    def refused() -> None:
        with pytest.raises(PolicyError, match="values"):
            _read("\n".join(lines))

    assert is_quick(refused, 2.0)


@pytest.mark.parametrize(
    ("limit", "value", "make"),
    [
        ("DEPTH_MAX", 16, lambda n: "[" * n + "]" * n),
        ("ALIASES_MAX", 100, lambda n: "a: &a 1\nb: [" + "*a ," * n + "]"),
        ("SCALAR_CHARACTERS_MAX", 4096, lambda n: "a" * n),
        ("SOURCE_BYTES_MAX", 1 << 20, lambda n: "#" * n),
        ("NODES_MAX", 50_000, lambda n: "[" + "1," * (n - 1) + "]"),
    ],
)
def test_bounds(limit: str, value: int, make: Callable[[int], str]) -> None:
    """At the limit it is read, one past it is refused."""
    assert getattr(document, limit) == value
    _read(make(value))
    with pytest.raises(PolicyError, match=str(value)):
        _read(make(value + 1))


def test_plain_and_quoted_text_differ() -> None:
    """`null` is a missing value, "null" is a text."""
    root = _read("[null, 'null']")
    assert isinstance(root, Sequence)
    assert [item.plain for item in root.items if isinstance(item, Scalar)] == [True, False]
