"""What is wrong with a policy, and where."""

from dataclasses import dataclass

PROBLEMS_MAX = 50  # of one load; what is behind is counted, not told


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a source: lines and columns count from 1."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or (as a warning) that will not do what it seems to."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class PolicyError(Exception):
    """The policy can't be used; `problems` says everything that was found."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
