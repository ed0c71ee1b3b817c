"""Text for people: tables, times, sizes. Colours only on a terminal that wants them."""

import datetime as dt
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import msgspec

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1", "cyan": "36"}
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_KIBI = 1024
_MINUTE_S = 60
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours text, or not (NO_COLOR, TERM=dumb, not a terminal)."""

    enabled: bool

    def __call__(self, text: str, colour: str) -> str:
        """Return the text in a colour."""
        if not self.enabled or not text or not colour:
            return text
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def paint_for(stream: TextIO) -> Paint:
    """Decide by the stream and the environment."""
    # no-color.org: present and not empty
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Paint(wanted and stream.isatty())


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with a colour; plain strings have none."""

    text: str
    colour: str = ""


def clean(text: str) -> str:
    """Return text without characters that could steer a terminal."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def json_line(value: object) -> str:
    """Return one canonical JSON object: keys sorted, nothing in it that could steer a terminal."""
    text = msgspec.json.encode(value, order="sorted").decode()
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    pairs = letter.encode("utf-16-be").hex()
    return "".join(f"\\u{pairs[at : at + 4]}" for at in range(0, len(pairs), 4))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str | Cell]], paint: Paint, width: int = 60
) -> str:
    """Return aligned columns; a cell longer than width is cut with an ellipsis."""
    cells = [[_cell(one, width) for one in row] for row in rows]
    widths = [
        max([len(title), *(len(row[column].text) for row in cells)])
        for column, title in enumerate(header)
    ]
    lines = [
        "  ".join(
            paint(title.ljust(size), "dim") for title, size in zip(header, widths, strict=True)
        )
    ]
    for row in cells:
        padded = [
            paint(cell.text, cell.colour) + " " * (size - len(cell.text))
            for cell, size in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(padded))
    return "\n".join(line.rstrip() for line in lines)


def _cell(one: str | Cell, width: int) -> Cell:
    cell = one if isinstance(one, Cell) else Cell(one)
    text = clean(cell.text)
    return Cell(text if len(text) <= width else text[: width - 1] + "…", cell.colour)


def moment(unix_ms: int | None) -> str:
    """Return local time to the millisecond, "-" for none."""
    if not unix_ms:
        return "-"
    try:
        at = dt.datetime.fromtimestamp(unix_ms / 1000).astimezone()
    except (ValueError, OverflowError, OSError):  # a host may say any number
        return f"{unix_ms} ms"
    return f"{at:%Y-%m-%d %H:%M:%S}.{unix_ms % 1000:03d}"


def size(count: int) -> str:
    """Return bytes with a unit."""
    value, unit = float(count), 0
    while value >= _KIBI and unit < len(_SIZES) - 1:
        value /= _KIBI
        unit += 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_SIZES[unit]}"


def duration(nanoseconds: int) -> str:
    """Return a duration with three digits or so."""
    seconds = nanoseconds / 1e9
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{seconds // 60:.0f} m {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} m"


def out(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
