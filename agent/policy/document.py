"""YAML text → a tree of nodes with positions, by a bounded reader of PyYAML's event stream.

Nothing is constructed from tags, nothing is recursive, and each bound is a named number:
what is past it is a problem at its place. The merge key `<<` has no meaning here.
"""

from dataclasses import dataclass

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from agent.policy.errors import Place, PolicyError, Problem

SOURCE_BYTES_MAX = 1 << 20
NODES_MAX = 50_000  # of one source, each use of an alias counted with all below it
DEPTH_MAX = 16
ALIASES_MAX = 100
SCALAR_CHARACTERS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Source:
    """One file's name and text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written; plain says that it had no quotes."""

    place: Place
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    place: Place
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in order; keys are unique."""

    place: Place
    entries: "tuple[tuple[Scalar, Node], ...]"


Node = Scalar | Sequence | Mapping


@dataclass(slots=True)
class _Open:
    """A collection that is being read."""

    place: Place
    is_mapping: bool
    anchor: str | None
    children: list[Node]
    size: int = 1


def read_document(source: Source) -> Node | None:
    """Return the tree of the source's one document, None when there is none.

    Raises:
        PolicyError: not YAML, a tag, a duplicate or non-text key, several documents, or past a
            bound of this module.
    """
    if len(source.text.encode("utf-8", "surrogatepass")) > SOURCE_BYTES_MAX:
        place = Place(source.name, 1, 1)
        raise PolicyError((Problem(place, f"more than {SOURCE_BYTES_MAX} bytes"),))
    composer = _Composer(source)
    try:
        for event in yaml.parse(source.text, Loader=yaml.SafeLoader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        place = Place(source.name, line, column)
        raise PolicyError((Problem(place, f"not YAML: {error.problem}"),)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise PolicyError((Problem(Place(source.name, 1, 1), f"not YAML: {text}"),)) from error
    return composer.root


class _Composer:
    """Events → nodes with an explicit stack."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._start = Place(source.name, 1, 1)
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._aliases = 0
        self._nodes = 0
        self._documents = 0
        self.root: Node | None = None

    def take(self, event: Event) -> None:
        """Add one event."""
        mark = event.start_mark
        place = Place(self._name, mark.line + 1, mark.column + 1) if mark else self._start
        match event:
            case DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _failed(place, "a second document: one file is one document")
            case AliasEvent(anchor=anchor):
                self._alias(place, anchor or "")
            case ScalarEvent(value=value):
                self._check(place, event)
                if len(value) > SCALAR_CHARACTERS_MAX:
                    raise _failed(place, f"more than {SCALAR_CHARACTERS_MAX} characters")
                scalar = Scalar(place, value, event.style is None)
                self._add(scalar, event.anchor, 1)
            case SequenceStartEvent() | MappingStartEvent():
                self._check(place, event)
                if len(self._stack) >= DEPTH_MAX:
                    raise _failed(place, f"nested deeper than {DEPTH_MAX}")
                is_mapping = isinstance(event, MappingStartEvent)
                self._stack.append(_Open(place, is_mapping, event.anchor, []))
            case CollectionEndEvent():
                self._end()
            case _:
                pass  # stream and document ends

    def _check(self, place: Place, event: ScalarEvent | CollectionStartEvent) -> None:
        if event.tag is not None:
            raise _failed(place, f"the tag {event.tag!r}: a policy has no tags")

    def _alias(self, place: Place, anchor: str) -> None:
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise _failed(place, f"more than {ALIASES_MAX} aliases")
        if anchor not in self._anchors:
            raise _failed(place, f"the alias *{anchor[:40]} has no finished anchor before it")
        node, size = self._anchors[anchor]
        self._add(node, None, size)

    def _add(self, node: Node, anchor: str | None, size: int) -> None:
        """Hang a finished node where it belongs."""
        self._nodes += size
        if self._nodes > NODES_MAX:
            raise _failed(node.place, f"more than {NODES_MAX} values")
        if anchor is not None:
            self._anchors[anchor] = (node, size)
        if not self._stack:
            self.root = node
            return
        self._stack[-1].children.append(node)
        self._stack[-1].size += size

    def _end(self) -> None:
        done = self._stack.pop()
        children = tuple(done.children)
        node: Node
        if done.is_mapping:
            node = Mapping(done.place, _entries(children))
        else:
            node = Sequence(done.place, children)
        # the children were counted when they were added
        self._nodes -= done.size - 1
        self._add(node, done.anchor, done.size)


def _entries(children: tuple[Node, ...]) -> tuple[tuple[Scalar, Node], ...]:
    entries: list[tuple[Scalar, Node]] = []
    seen: dict[str, Place] = {}
    for key, value in zip(children[::2], children[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise _failed(key.place, "a key must be text")
        if key.text in seen:
            raise _failed(key.place, f"duplicate key {key.text!r}, first at {seen[key.text]}")
        seen[key.text] = key.place
        entries.append((key, value))
    return tuple(entries)


def _failed(place: Place, text: str) -> PolicyError:
    return PolicyError((Problem(place, text),))
