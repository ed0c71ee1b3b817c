"""The table of a lease's life."""

from agent.model.lease import ANNOUNCING, OVER, LeaseState, allowed

S = LeaseState


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    """From INTENT, by moves of the table."""
    assert allowed.keys() == set(LeaseState)
    reached, fresh = {S.INTENT}, {S.INTENT}
    while fresh:
        fresh = {after for state in fresh for after in allowed[state]} - reached
        reached |= fresh
    assert reached == set(LeaseState)


def test_only_what_is_over_is_an_end_and_all_else_can_get_there() -> None:
    """No dead end: a lease in any state can still be taken away."""
    assert {state for state in S if not allowed[state]} == OVER
    for state in set(S) - OVER:
        seen, fresh = {state}, {state}
        while fresh:
            fresh = {after for each in fresh for after in allowed[each]} - seen
            seen |= fresh
        assert seen & OVER


def test_nobody_gets_a_lease_that_was_taken_away() -> None:
    """Once DRAINING or later, no move leads back to ACTIVE."""
    seen, fresh = {S.DRAINING}, {S.DRAINING}
    while fresh:
        fresh = {after for each in fresh for after in allowed[each]} - seen
        seen |= fresh
    assert not seen & {S.INTENT, S.ISSUED, S.ACTIVE, S.RENEWING}


def test_revoked_comes_from_revoking_or_from_nothing_made() -> None:
    """It is shown as revoked only after the provider was told, or when nothing exists."""
    assert {state for state in S if S.REVOKED in allowed[state]} == {S.INTENT, S.REVOKING}
    assert not ANNOUNCING & OVER
