"""What commands print: moments and counts for people, JSON for programs."""

import datetime as dt
import sys

import msgspec


def when(unix_ms: int) -> str:
    """Return a moment in UTC to the second, "never" for none."""
    if not unix_ms:
        return "never"
    moment = dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def counted(number: int, thing: str) -> str:
    """Return a number with its thing in the plural, or in the singular if it is one."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def form(value: msgspec.Struct) -> dict[str, object]:
    """Return a struct as an object with named fields (on the wire it is an array)."""
    return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return form(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def print_json(value: object) -> None:
    """Print one JSON document, indented."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()
