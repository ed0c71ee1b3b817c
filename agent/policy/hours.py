"""Hours of the week in which a loop may be started: "mon-fri 06:00-20:00 Europe/Berlin".

Days are `mon` to `sun`, ranges of them, or `daily`, with commas between. The first minute is
inside, the last one (up to 24:00) is not; an end before the beginning is on the next day, and the
days are those on which it begins. It is the wall clock of that zone that counts: an hour that
comes twice (the clock is set back) is inside both times, one that is left out never comes. Zones
are those of the host's time zone database (IANA), or UTC.
"""

import datetime as dt
import re
import zoneinfo

from agent.policy.document import Node
from agent.policy.reading import Problems, items, text
from agent.policy.schema import Hours

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS_MAX = 32  # entries of one loop
MINUTES = 24 * 60
FORM = "write DAYS HH:MM-HH:MM ZONE, such as 'mon-fri 06:00-20:00 Europe/Berlin'"
_ENTRY = re.compile(r"([a-z,-]{1,40}) ([0-9:]{5})-([0-9:]{5}) ([A-Za-z0-9_+/-]{1,64})")
_TIME = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z][A-Za-z0-9_+-]*){0,2}")


def read_hours(node: Node, problems: Problems) -> tuple[Hours, ...] | None:
    """Return the entries; an empty list is never."""
    nodes = items(node, "hours", problems)
    if len(nodes) > HOURS_MAX:
        problems.add(node.place, f"hours has more than {HOURS_MAX} entries")
        return None
    return tuple(one for each in nodes if (one := _entry(each, problems)) is not None)


def are_open(hours: tuple[Hours, ...], unix_ms: int) -> bool:
    """Return whether that moment is inside one of them."""
    return any(_is_open(one, unix_ms) for one in hours)


def shown(hours: tuple[Hours, ...], unix_ms: int) -> str:
    """Return the hours and the time there, for people."""
    if not hours:
        return "at no time"
    now = _local(hours[0].zone, unix_ms)
    there = f"{DAYS[now.weekday()]} {now:%H:%M} {hours[0].zone}"
    return f"{'; '.join(one.text for one in hours)}; now it is {there}"


def _is_open(hours: Hours, unix_ms: int) -> bool:
    now = _local(hours.zone, unix_ms)
    minute, today = now.hour * 60 + now.minute, now.weekday()
    if hours.begin < hours.end:
        return today in hours.days and hours.begin <= minute < hours.end
    yesterday = (today - 1) % 7
    return (today in hours.days and minute >= hours.begin) or (
        yesterday in hours.days and minute < hours.end
    )


def _local(zone: str, unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms // 1000, _zone(zone))


def _zone(name: str) -> dt.tzinfo:
    return dt.UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


def _entry(node: Node, problems: Problems) -> Hours | None:
    written = text(node, problems)
    if not written:
        return None
    found = _ENTRY.fullmatch(written)
    if found is None:
        problems.add(node.place, FORM)
        return None
    days, begin, end = _days(found[1]), _minute(found[2]), _minute(found[3])
    if days is None:
        problems.add(node.place, f"unknown days {found[1]!r}: mon to sun, mon-fri, or daily")
    elif begin is None or end is None or begin == MINUTES:
        problems.add(node.place, "a time is 00:00 to 23:59; an end may be 24:00")
    elif begin == end:
        problems.add(node.place, "these hours are empty: a whole day is 00:00-24:00")
    elif not _is_zone(found[4]):
        known = "a name such as Europe/Berlin, or UTC"
        problems.add(node.place, f"unknown time zone {found[4]!r}: {known} (package tzdata)")
    else:
        return Hours(written, days, begin, end, found[4])
    return None


def _days(written: str) -> tuple[int, ...] | None:
    if written == "daily":
        return tuple(range(7))
    days: set[int] = set()
    for part in written.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            return None
        begin = DAYS.index(first)
        end = DAYS.index(last) if dash else begin
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return tuple(sorted(days))


def _minute(written: str) -> int | None:
    found = _TIME.fullmatch(written)
    minute = int(found[1]) * 60 + int(found[2]) if found else MINUTES + 1
    return minute if minute <= MINUTES else None


def _is_zone(name: str) -> bool:
    if not _ZONE.fullmatch(name):
        return False
    try:
        _zone(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
