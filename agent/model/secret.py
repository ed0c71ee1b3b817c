"""Secrets that cannot print themselves."""

from collections.abc import Callable, Hashable
from typing import Never, TypeVar

DERIVED_MAX = 4  # results kept with a secret; one past it takes the place of the oldest
Derived = TypeVar("Derived")


class Secret:
    """Bytes that no repr, str, format, pickle or comparison reveals; `reveal()` is explicit."""

    __slots__ = ("_derived", "_value")

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._derived: dict[Hashable, object] = {}

    def reveal(self) -> bytes:
        """Return the bytes. Call it only where they are used upstream or scrubbed downstream."""
        return self._value

    def derive(self, label: Hashable, compute: Callable[[bytes], Derived]) -> Derived:
        """Return what is computed from the bytes; again with this label, what was before.

        It is as secret as the bytes are: kept here, and gone with them. The label says how it is
        computed, all of it.
        """
        if label not in self._derived:
            fresh = compute(self._value)
            if len(self._derived) >= DERIVED_MAX:
                del self._derived[next(iter(self._derived))]
            self._derived[label] = fresh
            return fresh
        return self._derived[label]  # type: ignore[return-value]  # this label's compute made it

    def __repr__(self) -> str:
        return "Secret(redacted)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> Never:
        raise TypeError("a Secret has no truth value")

    def __reduce__(self) -> Never:
        raise TypeError("a Secret is not pickled")
