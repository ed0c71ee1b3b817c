"""What one secret is searched for by, made once a secret and kept with it."""

import re

from agent.masking.encodings import aligned, literals, wide
from agent.masking.escapes import (
    ESCAPED_BYTES_MAX,
    TOLERANT_BYTES_MAX,
    tolerant_pattern,
    tolerant_start,
)
from agent.masking.near import Near
from agent.model.secret import Secret

_LABEL = "forms of the scrubber"


class Forms:
    """Its repr shows nothing.

    hidden_bytes_max: of the longest form. subtle: what minimal encoders make of it is for the
    tolerant pattern too, because it has no anchor, or characters that have several readings.
    """

    __slots__ = (
        "_start", "_tolerant", "_value", "hidden_bytes_max", "literals", "near", "subtle", "wide",
    )  # fmt: skip

    def __init__(self, secret: Secret) -> None:
        value = secret.reveal()
        self.literals = literals(secret)
        self.wide = wide(secret)
        self.near = tuple(Near(text) for text in dict.fromkeys((value, *aligned(value))))
        many_readings = not value.isascii() or b"\\" in value or b" " in value
        self.subtle = many_readings or not self.near[0].anchors
        self._value = value
        self._tolerant: re.Pattern[bytes] | None = None
        self._start: re.Pattern[bytes] | None = None
        escaped = ESCAPED_BYTES_MAX * min(len(value), TOLERANT_BYTES_MAX)
        near = [near.window_bytes for near in self.near]
        self.hidden_bytes_max = max(escaped, *near, len(self.wide), *map(len, self.literals))

    @property
    def tolerant(self) -> re.Pattern[bytes]:
        """A pattern for any mix of escapes. It takes milliseconds to make: at its first use."""
        if self._tolerant is None:
            self._tolerant = _compiled(tolerant_pattern(Secret(self._value)))
        return self._tolerant

    @property
    def start(self) -> re.Pattern[bytes]:
        """A pattern for a beginning of it at the data's end, made at its first use."""
        if self._start is None:
            self._start = _compiled(tolerant_start(Secret(self._value)))
        return self._start


def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    found = re.compile(pattern)
    re.purge()  # its cache of patterns would keep the secrets longer than their leases live
    return found


def forms_of(secret: Secret) -> Forms:
    """Return its forms; they go with it.

    Raises:
        ValueError: it is too short or too long (agent.masking.encodings has the numbers).
    """
    return secret.derive(_LABEL, lambda _: Forms(secret))
