"""What one secret is searched for by, compiled once a secret and kept with it."""

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

    __slots__ = ("hidden_bytes_max", "literals", "near", "start", "subtle", "tolerant", "wide")

    def __init__(self, secret: Secret) -> None:
        value = secret.reveal()
        self.literals = literals(secret)
        self.wide = wide(secret)
        self.near = tuple(Near(text) for text in dict.fromkeys((value, *aligned(value))))
        many_readings = not value.isascii() or b"\\" in value or b" " in value
        self.subtle = many_readings or not self.near[0].anchors
        self.tolerant = re.compile(tolerant_pattern(secret))
        self.start = re.compile(tolerant_start(secret))
        re.purge()  # its cache of patterns would keep the secrets longer than their leases live
        escaped = ESCAPED_BYTES_MAX * min(len(value), TOLERANT_BYTES_MAX)
        near = [near.window_bytes for near in self.near]
        self.hidden_bytes_max = max(escaped, *near, len(self.wide), *map(len, self.literals))


def forms_of(secret: Secret) -> Forms:
    """Return its forms; they go with it.

    Raises:
        ValueError: it is too short or too long (agent.masking.encodings has the numbers).
    """
    return secret.derive(_LABEL, lambda _: Forms(secret))
