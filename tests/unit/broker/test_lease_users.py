"""Who holds a lease: told when the last is gone, whoever goes first."""

from agent.broker.lease_users import LeaseUsers
from agent.model.ids import LeaseId, SessionId

ONE, TWO = LeaseId("one"), LeaseId("two")


def _users() -> tuple[LeaseUsers, list[LeaseId]]:
    users, free = LeaseUsers(), list[LeaseId]()
    users.on_free = free.append
    return users, free


def test_a_lease_is_free_when_its_last_session_ends() -> None:
    """Not before; a session that took it twice counts once."""
    users, free = _users()
    for session in ("a", "b", "b"):
        users.took(ONE, "proxy@0", SessionId(session))
    users.took(TWO, "proxy@0", SessionId("b"))
    users.ended("proxy@0", SessionId("a"))
    assert (users.of(ONE), free) == (1, [])
    users.ended("proxy@0", SessionId("b"))
    assert (users.of(ONE), sorted(free)) == (0, [ONE, TWO])


def test_a_worker_speaks_for_its_own_sessions() -> None:
    """Another's word ends nothing; its death ends all of its own."""
    users, free = _users()
    users.took(ONE, "proxy@0", SessionId("a"))
    users.took(ONE, "proxy@1", SessionId("b"))
    users.ended("proxy@1", SessionId("a"))
    users.ended("proxy@1", SessionId("nobody"))
    assert users.of(ONE) == 2
    users.worker_gone("proxy@0")
    assert (users.of(ONE), free) == (1, [])
    users.worker_gone("proxy@1")
    assert free == [ONE]


def test_what_is_over_is_not_kept() -> None:
    """A worker that never tells leaves nothing in memory."""
    users, free = _users()
    users.took(ONE, "proxy@0", SessionId("a"))
    users.took(TWO, "proxy@0", SessionId("a"))
    users.forget(ONE)
    users.forget(ONE)
    assert users._leases == {("proxy@0", SessionId("a")): {TWO}}
    users.forget(TWO)
    assert not users._leases
    assert not users._sessions
    assert not free
