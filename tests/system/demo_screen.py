"""What the demonstration looks like: steps with durations, facts with marks, commands as typed."""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WIDTH = 88
LINE_MAX = 170
INDENT = "     "
_CODES = {"bold": "1", "dim": "2", "green": "32", "red": "31", "cyan": "36", "yellow": "33"}


def shorten(line: str) -> str:
    """Return a line that is not much wider than a screen."""
    return line if len(line) <= LINE_MAX else line[: LINE_MAX - 1] + "…"


class Screen:
    """Prints; colours and rewritten lines only on a terminal that wants them."""

    def __init__(self) -> None:
        self._live = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )
        self._facts = 0
        self.failures: list[str] = []

    def paint(self, text: str, colour: str) -> str:
        """Return the text in a colour."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self._live else text

    def title(self, text: str, below: str) -> None:
        """Print the heading."""
        self.line()
        self.line(f"  {self.paint(text, 'bold')}")
        self.line(f"  {self.paint(below, 'dim')}")
        self.line()

    def line(self, text: str = "") -> None:
        """Print a line."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show that something is being done, then that it is, and how long it took."""
        if self._live:
            sys.stdout.write(f"  {self.paint('…', 'cyan')} {text}")
            sys.stdout.flush()
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self._over(self.paint("✗", "red"), text, began)
            raise
        self._over(self.paint("✓", "green"), text, began)

    def _over(self, mark: str, text: str, began: float) -> None:
        took = f"{time.monotonic() - began:.2f} s"
        gap = " " * max(1, WIDTH - 4 - len(text) - len(took))
        start = "\r\x1b[2K" if self._live else ""
        self.line(f"{start}  {mark} {text}{gap}{self.paint(took, 'dim')}")

    def fact(self, text: str) -> None:
        """Begin a fact: what is claimed."""
        self._facts += 1
        self.line()
        self.line(f"  {self.paint(str(self._facts), 'cyan')}  {self.paint(text, 'bold')}")

    def command(self, argv: Sequence[str], who: str = "") -> None:
        """Show a command as a person types it."""
        prompt = f"{who} $ " if who else "$ "
        self.line(f"{INDENT}{self.paint(prompt, 'dim')}{shlex.join(argv)}")

    def output(self, text: str, lines: int = 8) -> None:
        """Show what a command said."""
        said = text.strip().splitlines()
        for line in said[:lines]:
            self.line(f"{INDENT}{self.paint(shorten(line), 'dim')}")
        if len(said) > lines:
            self.line(f"{INDENT}{self.paint(f'… {len(said) - lines} more lines', 'dim')}")

    def holds(self, ok: bool, text: str, took_s: float | None = None) -> None:
        """Say whether a claim holds."""
        mark = self.paint("✓", "green") if ok else self.paint("✗", "red")
        took = "" if took_s is None else "  " + self.paint(f"{took_s * 1000:.0f} ms", "dim")
        self.line(f"{INDENT}{mark} {text}{took}")
        if not ok:
            self.failures.append(text)

    def section(self, text: str) -> None:
        """Begin a part of the end."""
        self.line()
        self.line(f"  {self.paint(text, 'bold')}")

    def verdict(self, took_s: float) -> None:
        """Print the last line."""
        self.line()
        if self.failures:
            count = len(self.failures)
            self.line(f"  {self.paint(f'{count} of the claims did not hold:', 'red')}")
            for failure in self.failures:
                self.line(f"    {self.paint('✗', 'red')} {failure}")
        else:
            text = f"All {self._facts} facts hold"
            self.line(f"  {self.paint(text, 'green')}, in {took_s:.1f} s. Nothing is left behind.")
        self.line()
