"""What a running product has written: files that come and go as they are read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def files(*places: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each file below some folders, or one of these names, and what is in it.

    What is removed meanwhile (a segment that was sent, a temporary file) is nowhere any more.
    """
    for place in places:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if place.is_file():
                yield place, place.read_bytes()
                continue
            for inside in list(place.iterdir()) if place.is_dir() else ():
                yield from files(inside)
