"""Every event becomes a record that says the same."""

import dataclasses
from typing import get_args

import pytest

from agent.model import audit
from agent.model.flow import Unattributed
from agent.model.ids import LeaseId, RunId, SessionId
from agent.model.lease import LeaseState
from agent.model.reason import Reason
from agent.pb import audit_pb2 as pb
from agent.reporter.encoding import Stamp, serialize_records
from tests.unit.reporter.events import (
    TARGET,
    answered,
    denied,
    finished,
    intended,
    queried,
    run_started,
    session_closed,
    session_opened,
    ulid,
)

EVENTS: list[audit.AuditEvent] = [
    run_started(),
    audit.RunEnded(RunId(ulid(1)), Reason.RUN_ENDED),
    session_opened(2),
    audit.SessionRefused(Unattributed(SessionId(ulid(3)), "of nobody"), Reason.UNATTRIBUTED),
    intended(4),
    finished(4),
    queried(7),
    answered(7),
    denied(5),
    dataclasses.replace(denied(8), operation=queried(8).operation),
    session_closed(2),
    audit.LeaseChanged(LeaseId(ulid(6)), RunId(ulid(1)), TARGET, "static", LeaseState.ISSUED),
    audit.Alarmed(audit.Alarm.ROLE_DIED, "proxy@0", None),
    audit.Heartbeat(7),
]


def record(event: audit.AuditEvent) -> pb.Record:
    (data,) = serialize_records([event], 9, Stamp("boot", 10, 11), "proxy@0")
    return pb.Record.FromString(data)


def test_every_kind_of_event_is_covered() -> None:
    """The list here is the closed union."""
    assert {type(event) for event in EVENTS} == set(get_args(audit.AuditEvent))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_record_says_what_the_event_says(event: audit.AuditEvent) -> None:
    """Head and kind are there, and every text and number of the event is in the record."""
    made = record(event)
    assert (made.seq, made.boot_id, made.unix_ms, made.role) == (9, "boot", 10, "proxy@0")
    kind = made.WhichOneof("event")
    assert kind is not None
    assert kind.replace("_", "") == type(event).__name__.lower()
    text = str(made)
    for value in leaves(dataclasses.asdict(event)):
        assert ("true" if value is True else str(value)) in text, value


def test_no_secret_of_a_query_is_recorded() -> None:
    """Allowed or denied: the literal behind PASSWORD is cut out of the text."""
    text = "ALTER ROLE a PASSWORD 'hunter2'"
    allowed = queried(7)
    operation = dataclasses.replace(allowed.operation, resource=text)
    for event in (
        dataclasses.replace(allowed, operation=operation),
        dataclasses.replace(denied(8), operation=operation),
    ):
        shown = str(record(event))
        assert "hunter2" not in shown
        assert "ALTER ROLE a PASSWORD" in shown


def leaves(value: object) -> list[object]:
    """Every value that proto3 would print: not empty, not zero, not False."""
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list | tuple | frozenset):
        return [leaf for one in value for leaf in leaves(one)]
    return [] if value in ("", 0, None, False) else [value]


def test_what_does_not_fit_is_an_error() -> None:
    """A number out of range and text that is not UTF-8 are ValueError, which ends the sender."""
    for event in (
        session_closed(1, operations=-1),
        session_closed(1, operations=1 << 64),
        audit.Alarmed(audit.Alarm.ROLE_DIED, "\ud800", None),
    ):
        with pytest.raises(ValueError):
            record(event)
