"""One conversation that a protocol's folder of tests offers to the conformance suite."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """What the loop sends, and what the server answers to the requests that reach it, in order."""

    name: str
    downstream: bytes
    answers: tuple[bytes, ...]
