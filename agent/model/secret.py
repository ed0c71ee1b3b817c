"""Secrets that cannot print themselves."""

from typing import Never


class Secret:
    """Bytes that no repr, str, format, pickle or comparison reveals; `reveal()` is explicit."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes. Call it only where they are used upstream or scrubbed downstream."""
        return self._value

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
