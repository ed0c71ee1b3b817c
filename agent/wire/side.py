"""The two sides of a relay."""

from enum import Enum


class Side(Enum):
    """Downstream is the loop, upstream the server."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
