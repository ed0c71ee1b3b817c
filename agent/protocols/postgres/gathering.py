"""Bytes of a message that is not complete yet: kept without copying them at each arrival."""


class Gathering:
    """Holds the beginning of one message, and whatever comes behind it."""

    __slots__ = ("_need", "_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._need = 0
        self.size = 0

    def add(self, data: bytes) -> bytes:
        """Return all that is held with these bytes, b"" while that is still not enough."""
        if not self._parts:
            return data
        self._parts.append(data)
        self.size += len(data)
        return self.take() if self.size >= self._need else b""

    def keep(self, rest: bytes, need: int) -> None:
        """Hold these bytes until there are so many."""
        if rest:
            self._parts, self.size, self._need = [rest], len(rest), need

    def take(self) -> bytes:
        """Return and forget what is held."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self.size, self._need = [], 0, 0
        return data
