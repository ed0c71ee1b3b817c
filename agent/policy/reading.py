"""Reads values out of the document tree; what is wrong is collected with its place.

Each reader returns a value that fits its type even after a problem, so that one load finds all
problems. The caller looks at `problems` before it uses anything.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.policy.document import Mapping, Node, Scalar, Sequence
from agent.policy.errors import PROBLEMS_MAX, Place, PolicyError, Problem

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION_S_MAX = 366 * 86_400
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
Value = TypeVar("Value")


class Problems:
    """What was found so far."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._more = 0

    def add(self, place: Place, text: str) -> None:
        """Remember a problem; past PROBLEMS_MAX it is only counted."""
        if len(self._found) < PROBLEMS_MAX:
            self._found.append(Problem(place, text))
        else:
            self._more += 1

    def include(self, error: PolicyError) -> None:
        """Take over the problems of an error."""
        for problem in error.problems:
            self.add(problem.place, problem.text)

    @property
    def any(self) -> bool:
        """Whether something was found."""
        return bool(self._found)

    def raise_any(self) -> None:
        """Raise PolicyError if something was found."""
        if self._more:
            last = self._found[-1]
            self._found.append(Problem(last.place, f"… and {self._more} problems more"))
            self._more = 0
        if self._found:
            raise PolicyError(tuple(self._found))


class Fields:
    """A mapping whose keys are known; an unknown key is a problem that names the nearest one."""

    def __init__(self, node: Node, what: str, known: tuple[str, ...], problems: Problems) -> None:
        self.place = node.place
        self._what = what
        self._problems = problems
        self._values: dict[str, tuple[Place, Node]] = {}
        for key, value in entries(node, what, problems):
            if key.text in known:
                self._values[key.text] = (key.place, value)
            else:
                problems.add(key.place, unknown(f"key of {what}", key.text, known))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def place_of(self, key: str) -> Place:
        """Return where a key stands, or the mapping when it is absent."""
        return self._values[key][0] if key in self._values else self.place

    def optional(self, key: str, read: Callable[[Node, Problems], Value], default: Value) -> Value:
        """Return a key's value, or the default when it is absent."""
        if key not in self._values:
            return default
        return read(self._values[key][1], self._problems)

    def required(self, key: str, read: Callable[[Node, Problems], Value], default: Value) -> Value:
        """Return a key's value; its absence is a problem."""
        if key not in self._values:
            self._problems.add(self.place, f"{self._what} needs the key {key!r}")
        return self.optional(key, read, default)

    def problem(self, key: str, text: str) -> None:
        """Report a problem at a key."""
        self._problems.add(self.place_of(key), text)


def entries(node: Node, what: str, problems: Problems) -> Iterator[tuple[Scalar, Node]]:
    """Yield keys and values of a mapping; anything else is a problem and yields nothing."""
    if isinstance(node, Mapping):
        yield from node.entries
    else:
        problems.add(node.place, f"{what} must be a mapping of keys, not {kind(node)}")


def items(node: Node, what: str, problems: Problems) -> tuple[Node, ...]:
    """Return the items of a list; anything else is a problem."""
    if isinstance(node, Sequence):
        return node.items
    problems.add(node.place, f"{what} must be a list, not {kind(node)}")
    return ()


def text(node: Node, problems: Problems) -> str:
    """Return a non-empty text."""
    if not isinstance(node, Scalar):
        problems.add(node.place, f"this must be a text, not {kind(node)}")
        return ""
    if (node.plain and node.text in _NULLS) or not node.text:
        problems.add(node.place, "a value is missing here")
        return ""
    if not node.text.isprintable():
        problems.add(node.place, "a text of a policy is printable and on one line")
        return ""
    return node.text


def flag(node: Node, problems: Problems) -> bool:
    """Return `true` or `false`."""
    if isinstance(node, Scalar) and node.plain and node.text in {"true", "false"}:
        return node.text == "true"
    problems.add(node.place, "write true or false")
    return False


def number(node: Node, problems: Problems) -> int:
    """Return a number of 0 to 2**32-2 (a uid)."""
    if isinstance(node, Scalar) and re.fullmatch(r"0|[1-9][0-9]{0,9}", node.text, re.ASCII):
        value = int(node.text)
        if value < (1 << 32) - 1:
            return value
    # 0755 is another number in YAML 1.1 than in YAML 1.2
    problems.add(node.place, "write a number of 0 to 4294967294, without zeros before it")
    return 0


def duration(node: Node, problems: Problems) -> int:
    """Return seconds of `90s`, `15m`, `2h` or `1d`; at least 1 s, at most DURATION_S_MAX."""
    written = text(node, problems)
    match = _DURATION.fullmatch(written)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if written and not 0 < seconds <= DURATION_S_MAX:
        problems.add(node.place, "write a duration of 1s to 366d, such as 90s, 15m, 2h or 1d")
        return 0
    return seconds


def choice(*choices: str) -> Callable[[Node, Problems], str]:
    """Return a reader of one of these words."""

    def read(node: Node, problems: Problems) -> str:
        written = text(node, problems)
        if written and written not in choices:
            problems.add(node.place, unknown("value", written, choices))
            return choices[0]
        return written or choices[0]

    return read


def one_or_more(node: Node, problems: Problems) -> tuple[tuple[Place, str], ...]:
    """Return a text, or a list of texts (which may be empty), with their places."""
    nodes = node.items if isinstance(node, Sequence) else (node,)
    return tuple((each.place, text(each, problems)) for each in nodes)


def unknown(what: str, written: str, known: tuple[str, ...]) -> str:
    """Return the text of an unknown word's problem, with the nearest known one."""
    near = nearest(written, known)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what} {written[:100]!r}; {hint}"


def nearest(written: str, known: tuple[str, ...]) -> str:
    """Return the known word that is most like a written one, "" when none is."""
    near = difflib.get_close_matches(written[:100], known, n=1, cutoff=0.4)
    return near[0] if near else ""


def kind(node: Node) -> str:
    """Return what a node is, in words."""
    match node:
        case Scalar():
            return "a text"
        case Sequence():
            return "a list"
        case Mapping():
            return "a mapping"
