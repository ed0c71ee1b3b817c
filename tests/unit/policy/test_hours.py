"""Hours of the week: minutes at the edges, nights, and clocks that are set."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from agent.policy.hours import HOURS_MAX, are_open, shown
from agent.policy.schema import Hours
from tests.unit.policy.samples import parse, problems


def _hours(*texts: str) -> tuple[Hours, ...]:
    written = ", ".join(f"'{text}'" for text in texts)
    loop = parse(f"loops: {{a: {{rules: [], hours: [{written}]}}}}").loops.popitem()[1]
    assert loop.hours is not None
    return loop.hours


def _ms(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1000)


OFFICE = "mon-fri 06:00-20:00 Europe/Berlin"  # 2026-11-30 is a Monday; UTC+1 in winter
MOMENTS = [
    (OFFICE, "2026-11-30T05:59:59+01:00", False),
    (OFFICE, "2026-11-30T06:00:00+01:00", True),
    (OFFICE, "2026-11-30T19:59:59+01:00", True),
    (OFFICE, "2026-11-30T20:00:00+01:00", False),
    (OFFICE, "2026-11-30T05:00:00+00:00", True),
    (OFFICE, "2026-11-29T12:00:00+01:00", False),
    (OFFICE, "2026-12-04T19:59:00+01:00", True),
    (OFFICE, "2026-12-05T06:00:00+01:00", False),
    ("daily 00:00-24:00 UTC", "2026-11-29T23:59:59+00:00", True),
    ("sun 00:00-24:00 UTC", "2026-11-30T00:00:00+00:00", False),
    ("sun 00:00-24:00 UTC", "2026-11-29T00:00:00+00:00", True),
    # nights belong to the day on which they begin
    ("fri 22:00-06:00 UTC", "2026-12-04T21:59:59+00:00", False),
    ("fri 22:00-06:00 UTC", "2026-12-04T22:00:00+00:00", True),
    ("fri 22:00-06:00 UTC", "2026-12-05T05:59:59+00:00", True),
    ("fri 22:00-06:00 UTC", "2026-12-05T06:00:00+00:00", False),
    ("fri 22:00-06:00 UTC", "2026-12-04T05:00:00+00:00", False),
    ("sun 22:00-06:00 UTC", "2026-11-30T05:59:00+00:00", True),
    ("fri-mon 08:00-09:00 UTC", "2026-11-29T08:30:00+00:00", True),
    ("fri-mon 08:00-09:00 UTC", "2026-12-01T08:30:00+00:00", False),
    ("mon,wed 08:00-09:00 UTC", "2026-12-02T08:30:00+00:00", True),
    ("mon,wed 08:00-09:00 UTC", "2026-12-01T08:30:00+00:00", False),
    # the clock goes from 02:00 to 03:00 on 2026-03-29: that hour never comes
    ("sun 02:00-03:00 Europe/Berlin", "2026-03-29T00:59:59+00:00", False),
    ("sun 02:00-03:00 Europe/Berlin", "2026-03-29T01:00:00+00:00", False),
    ("sun 01:30-03:30 Europe/Berlin", "2026-03-29T00:30:00+00:00", True),
    ("sun 01:30-03:30 Europe/Berlin", "2026-03-29T01:29:59+00:00", True),
    ("sun 01:30-03:30 Europe/Berlin", "2026-03-29T01:30:00+00:00", False),
    # from 03:00 back to 02:00 on 2026-10-25: that hour comes twice, and is inside twice
    ("sun 02:00-03:00 Europe/Berlin", "2026-10-24T23:59:59+00:00", False),
    ("sun 02:00-03:00 Europe/Berlin", "2026-10-25T00:00:00+00:00", True),
    ("sun 02:00-03:00 Europe/Berlin", "2026-10-25T01:59:59+00:00", True),
    ("sun 02:00-03:00 Europe/Berlin", "2026-10-25T02:00:00+00:00", False),
    # the office opens at the same wall time before and after
    (OFFICE, "2026-10-23T04:00:00+00:00", True),
    (OFFICE, "2026-10-26T04:59:59+00:00", False),
    (OFFICE, "2026-10-26T05:00:00+00:00", True),
    ("daily 00:00-00:30 Asia/Kathmandu", "2026-11-29T18:15:00+00:00", True),
    ("daily 00:00-00:30 Asia/Kathmandu", "2026-11-29T18:14:59+00:00", False),
]


@pytest.mark.parametrize(("hours", "moment", "inside"), MOMENTS)
def test_a_moment_is_inside_or_not(hours: str, moment: str, inside: bool) -> None:
    """The first minute is inside, the last is not, by the wall clock of the zone."""
    assert are_open(_hours(hours), _ms(moment)) is inside


def test_every_quarter_of_a_year_is_as_the_wall_clock_says() -> None:
    """Against the zone's own local time, over both changes of the clock."""
    hours, zone = _hours(OFFICE), ZoneInfo("Europe/Berlin")
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for _ in range(4 * 24 * 365):
        local = moment.astimezone(zone)
        inside = local.weekday() < 5 and 6 <= local.hour < 20
        assert are_open(hours, int(moment.timestamp() * 1000)) == inside
        moment += dt.timedelta(minutes=15)


def test_any_entry_will_do_and_none_is_never() -> None:
    """Several entries are one union; an empty list is never; no key is at any time."""
    both = _hours("mon 08:00-09:00 UTC", "tue 08:00-09:00 UTC")
    assert are_open(both, _ms("2026-12-01T08:00:00+00:00"))
    assert not are_open(_hours(), _ms("2026-12-01T08:00:00+00:00"))
    assert parse("loops: {a: {rules: []}}").loops.popitem()[1].hours is None


def test_the_hours_are_shown_with_the_time_there() -> None:
    """What a person is told who comes at the wrong time."""
    said = shown(_hours(OFFICE), _ms("2026-11-29T12:03:00+01:00"))
    assert said == f"{OFFICE}; now it is sun 12:03 Europe/Berlin"
    assert shown((), 0) == "at no time"


MISTAKES = [
    ("mon-fri 6:00-20:00 UTC", "write DAYS HH:MM-HH:MM ZONE"),
    ("mon-fri 06:00-20:00", "write DAYS HH:MM-HH:MM ZONE"),
    ("MON 06:00-20:00 UTC", "write DAYS HH:MM-HH:MM ZONE"),
    ("mon-day 06:00-20:00 UTC", "unknown days 'mon-day'"),
    ("mon-tue-wed 06:00-20:00 UTC", "unknown days"),
    ("mon, 06:00-20:00 UTC", "unknown days"),
    ("mon 24:00-06:00 UTC", "a time is 00:00 to 23:59"),
    ("mon 06:00-24:01 UTC", "a time is 00:00 to 23:59"),
    ("mon 06:60-07:00 UTC", "a time is 00:00 to 23:59"),
    ("mon 06:00-06:00 UTC", "these hours are empty"),
    ("mon 06:00-07:00 Europe/Berlinn", "unknown time zone 'Europe/Berlinn'"),
    ("mon 06:00-07:00 Europe", "unknown time zone"),
    ("mon 06:00-07:00 ../../etc/passwd", "write DAYS"),
    ("mon 06:00-07:00 /etc/localtime", "unknown time zone"),
    ("mon 06:00-07:00 posixrules/", "unknown time zone"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    """Line and column of the entry."""
    found = problems(f"loops:\n  a:\n    rules: []\n    hours: ['{text}']\n")
    assert found.startswith("a.yaml:4:13: ")
    assert said in found


def test_entries_have_a_bound() -> None:
    """At HOURS_MAX it is a policy, one past it is not."""
    template = "loops: {a: {rules: [], hours: [*]}}"
    parse(template.replace("*", "'daily 00:00-01:00 UTC'," * HOURS_MAX))
    assert str(HOURS_MAX) in problems(
        template.replace("*", "'daily 00:00-01:00 UTC'," * (HOURS_MAX + 1))
    )
