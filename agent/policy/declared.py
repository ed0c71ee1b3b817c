"""Settings of a provider that are a table: the policy and the provider check them by the same one.

A provider reads its settings from the journal's or the policy's texts: a list is JSON, a duration
is seconds, a flag is true or false. `read_declared` makes those of a policy file, with line and
column of what is wrong; `check_declared` checks them again where they are used.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from agent.policy.document import Node
from agent.policy.reading import (
    Fields,
    Problems,
    duration,
    flag,
    nearest,
    number,
    one_or_more,
    text,
)

Settings = tuple[tuple[str, str], ...]
LIST_MAX = 64  # items of one list
CHARACTERS_MAX = 1_024  # of one value, or of one item of a list


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is written. check raises ValueError for a text that is none."""

    check: Callable[[str], object]
    most: int = 0  # items, when it is a list
    seconds: tuple[int, int] = (0, 0)  # the least and the most, when it is a duration
    numbers: tuple[int, int] = (0, 0)  # the least and the most, when it is a number
    flag: bool = False  # true or false; what is false is as if it had not been said
    characters: int = CHARACTERS_MAX  # of one text


@dataclass(frozen=True, slots=True)
class Declared:
    """A provider's settings. wrong: what is wrong between them, as key ("" for none) and text."""

    provider: str
    kinds: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    wrong: Callable[[Mapping[str, str]], tuple[str, str] | None] = field(default=lambda _: None)


def read_declared(
    fields: Fields, problems: Problems, declared: Declared, known: Settings = ()
) -> Settings:
    """Return the settings in the order of keys; what is wrong is added to problems.

    known: what somebody else has said already, here said again or not.
    """
    found = {key: value for key, value in known if value}
    for key, kind in declared.kinds.items():
        if key in fields:
            found[key] = fields.optional(key, _reader(key, kind), "")
    for key in declared.required:
        if key not in found:
            problems.add(fields.place, f"provider {declared.provider} needs the key {key!r}")
    wrong = declared.wrong(found)
    if wrong is not None:
        key, said = wrong
        if key in fields:
            fields.problem(key, said)
        else:
            problems.add(fields.place, said)
    return tuple((key, found[key]) for key in sorted(found) if found[key])


def check_declared(settings: Mapping[str, str], declared: Declared) -> None:
    """Check settings as a provider gets them.

    Raises:
        ValueError: one is missing, unknown or wrong.
    """
    for key, value in settings.items():
        kind = declared.kinds.get(key)
        if kind is None:
            raise ValueError(f"unknown setting {key[:40]!r}")
        try:
            _check(kind, value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    for key in declared.required:
        if not settings.get(key):
            raise ValueError(f"the setting {key!r} is needed")
    wrong = declared.wrong(settings)
    if wrong is not None:
        raise ValueError(wrong[1])


def items_of(settings: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Return a checked list."""
    return tuple(json.loads(settings.get(key, "[]")))


def _check(kind: Kind, value: str) -> None:
    if kind.most:
        _check_list(kind, value)
    elif kind.seconds[1]:
        _check_seconds(kind, _whole(value))
    elif kind.numbers[1]:
        _check_number(kind, _whole(value))
    elif kind.flag:
        if value not in {"true", "false"}:
            raise ValueError("write true or false")
    else:
        _check_text(kind, value)


def _check_list(kind: Kind, value: str) -> None:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("no JSON list") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError("no list of texts")
    if len(found) > kind.most:
        raise ValueError(f"more than {kind.most} in one list")
    for each in found:
        _check_text(kind, each)


def _check_text(kind: Kind, value: str) -> None:
    if not value or not value.isprintable() or len(value) > kind.characters:
        raise ValueError(f"a printable text of 1 to {kind.characters} characters")
    kind.check(value)


def _check_seconds(kind: Kind, seconds: int) -> None:
    least, most = kind.seconds
    if not least <= seconds <= most:
        raise ValueError(f"a duration of {_spoken(least)} to {_spoken(most)}")


def _spoken(seconds: int) -> str:
    """Return a duration as people write it."""
    sizes = ((86_400, "d"), (3_600, "h"), (60, "m"))
    for size, unit in sizes:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _check_number(kind: Kind, written: int) -> None:
    least, most = kind.numbers
    if not least <= written <= most:
        raise ValueError(f"a number of {least} to {most}")


def _whole(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        raise ValueError("no whole number")
    return int(value)


def _reader(key: str, kind: Kind) -> Callable[[Node, Problems], str]:
    """Return what reads a value out of a policy and checks it, with the place of what is wrong."""
    if kind.flag:
        return lambda node, problems: "true" if flag(node, problems) else ""
    if kind.seconds[1]:
        return _bounded(key, duration, lambda seconds: _check_seconds(kind, seconds))
    if kind.numbers[1]:
        return _bounded(key, number, lambda written: _check_number(kind, written))
    return _texts(key, kind)


def _bounded(
    key: str, parse: Callable[[Node, Problems], int], check: Callable[[int], None]
) -> Callable[[Node, Problems], str]:
    def read(node: Node, problems: Problems) -> str:
        own = Problems()
        found = parse(node, own)
        if own.any:  # it is no duration, no number: what its bounds are is not the point
            parse(node, problems)
            return ""
        problem = _problem(lambda: check(found))
        if problem:
            problems.add(node.place, f"{key}: {problem}")
        return str(found)

    return read


def _texts(key: str, kind: Kind) -> Callable[[Node, Problems], str]:
    def read(node: Node, problems: Problems) -> str:
        many = one_or_more(node, problems) if kind.most else ((node.place, text(node, problems)),)
        if kind.most and len(many) > kind.most:
            problems.add(node.place, f"{key}: more than {kind.most} in one list")
        for place, written in many:
            # mypy can't infer a lambda with a default, which is how a loop's variable is bound
            problem = _problem(lambda written=written: _check_text(kind, written))  # type: ignore[misc]
            if written and problem:
                problems.add(place, f"{key}: {problem}")
        if kind.most:
            return json.dumps([written for _, written in many], ensure_ascii=False)
        return many[0][1]

    return read


def _problem(check: Callable[[], object]) -> str:
    try:
        check()
    except ValueError as error:
        return str(error)
    return ""


def matching(pattern: str, what: str) -> Callable[[str], None]:
    """Return a check that a text matches as a whole; what: how to write it."""
    compiled = re.compile(pattern, re.ASCII)

    def check(written: str) -> None:
        if not compiled.fullmatch(written):
            raise ValueError(f"write {what}, not {written[:80]!r}")

    return check


def one_of(*words: str) -> Callable[[str], None]:
    """Return a check for one of these words."""

    def check(written: str) -> None:
        if written not in words:
            near = nearest(written, words)
            hint = f"; did you mean {near!r}?" if near else ""
            raise ValueError(f"write one of {', '.join(words)}, not {written[:80]!r}{hint}")

    return check


def fitting(parse: Callable[[str], object]) -> Callable[[str], None]:
    """Return a check for what parses, that says what does not."""

    def check(written: str) -> None:
        try:
            parse(written)
        except ValueError as error:
            raise ValueError(f"{written[:80]!r}: {error}") from error

    return check


def any_text(written: str) -> None:
    """Any printable text."""


def https_url(written: str) -> None:
    """Check a URL of https, or of http at a loopback address, without user, query or fragment.

    Raises:
        ValueError: it is none.
    """
    wanted = "write https://HOST[:PORT]/PATH (http only to a loopback address)"
    try:
        parts = urlsplit(written)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(wanted) from None
    loopback = host in {"127.0.0.1", "::1"}
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    graphic = all("!" <= letter <= "~" for letter in written)
    if not host or not graphic or not plain or "?" in written or "#" in written:
        raise ValueError(wanted)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError(wanted)


URL = Kind(https_url)
PATH = Kind(matching(r"/.*", "an absolute path"))
TEXT = Kind(any_text)
FLAG = Kind(any_text, flag=True)
SOURCES = {  # where a secret comes from; one of them
    "file": PATH,
    "systemd_credential": Kind(
        matching(r"(?!\.\.?\Z)[A-Za-z0-9_.@:-]{1,100}", "the name of LoadCredential=")
    ),
    "environment": Kind(matching(r"[A-Za-z_][A-Za-z0-9_]{0,99}", "the name of a variable")),
}


def source_of(settings: Mapping[str, str]) -> tuple[str, str]:
    """Return where a checked secret comes from: the key, and what is said with it."""
    return next((key, settings[key]) for key in SOURCES if key in settings)


def one_source(settings: Mapping[str, str], what: str) -> tuple[str, str] | None:
    """Return what is wrong unless a secret comes from one place."""
    if sum(key in settings for key in SOURCES) == 1:
        return None
    return "", f"{what} has one of {', '.join(SOURCES)}"
