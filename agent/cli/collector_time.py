"""Times as people write them."""

import datetime as dt
import re

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_span_s(text: str) -> int:
    """Return seconds of "90s", "10m", "2h" or "1d".

    Raises:
        ValueError: none of these.
    """
    match = _AGO.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time span such as 90s, 10m, 2h or 1d")
    return int(match[1]) * _UNIT_S[match[2]]


def parse_moment_ms(text: str, now_ms: int) -> int:
    """Return Unix milliseconds of "now", a span ago ("2h"), or an ISO 8601 time.

    A time without an offset is local time.

    Raises:
        ValueError: none of these.
    """
    if text == "now":
        return now_ms
    if _AGO.fullmatch(text):
        return now_ms - parse_span_s(text) * 1000
    try:
        at = dt.datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.astimezone()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is not a time: write now, 2h (ago) or 2026-11-30T14:05:00"
        ) from error
