"""What the loop is told: always whole, in PostgreSQL's words, with what to do."""

import pytest

from agent.model.ids import RuleId, SessionId
from agent.model.reason import Reason
from agent.protocols.postgres.answers import Refusal, of_cut, of_malformed, serialize_refusal
from agent.protocols.postgres.frames import Malformed, Splitter, report_fields
from agent.protocols.postgres.limits import BACKEND

SESSION = SessionId("S" * 26)


def _fields(data: bytes) -> dict[str, str]:
    splitter = Splitter(BACKEND)
    splitter.feed(data)
    frame = splitter.next()
    assert frame is not None
    assert frame.kind == ord("E")
    assert not splitter.held
    return {chr(kind): value.decode() for kind, value in report_fields(frame.payload).items()}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_an_answer(reason: Reason) -> None:
    """Each reason gives an SQLSTATE, a text, where it comes from, and a next step."""
    said = _fields(serialize_refusal(Refusal(reason, "No."), SESSION))
    assert len(said["C"]) == 5
    assert said["M"] == "loopwarden: No."
    assert reason.value in said["D"]
    assert SESSION in said["D"]
    assert said["H"]
    assert said["S"] == said["V"] == "FATAL"


def test_a_denial_names_its_rule() -> None:
    """A policy's refusal is 42501 with the rule, its words and its next step."""
    refusal = Refusal(
        Reason.POLICY_DENIED, "Not this.", RuleId("nightly/3"), "Because.", "Ask for it."
    )
    said = _fields(serialize_refusal(refusal, SESSION, "ERROR"))
    assert said["C"] == "42501"
    assert said["S"] == "ERROR"
    assert said["D"].startswith("Because. Refused by rule nightly/3")
    assert said["H"] == "Ask for it."


def test_texts_can_not_break_out() -> None:
    """A NUL or a lone surrogate in a text of the policy stays within its field."""
    refusal = Refusal(Reason.POLICY_DENIED, "a\0Cb", RuleId("r\udc80"), next_step="x\0\0")
    said = _fields(serialize_refusal(refusal, SESSION))
    assert said["M"] == "loopwarden: a?Cb"
    assert said["C"] == "42501"
    assert said["H"] == "x??"


def test_who_sent_what() -> None:
    """Malformed bytes are told as whose they are; a cut is 57P01 with its cause."""
    down = of_malformed(Malformed("a thing", Reason.LIMIT_EXCEEDED))
    assert (down.status, down.reason) == ("08P01", Reason.LIMIT_EXCEEDED)
    assert down.explanation == "The client sent a thing."
    up = of_malformed(Malformed("a thing"), upstream=True)
    assert (up.status, up.reason) == ("08P01", Reason.UPSTREAM_PROTOCOL_ERROR)
    for reason in (Reason.RUN_ENDED, Reason.OVERLOADED):
        assert of_cut(reason).status == "57P01"
        assert of_cut(reason).reason is reason
