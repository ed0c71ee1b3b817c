"""Clients that are not what they should be: a clean FATAL, a record, and nothing upstream."""

import pytest

from agent.model.reason import Reason
from agent.protocols.postgres.messages import TERMINATE
from agent.wire.commands import OpenUpstream, RequestLease
from agent.wire.events import Data
from agent.wire.side import Side
from tests.protocols.postgres.server import Server
from tests.protocols.postgres.world import begin, fatal, startup
from tests.protocols.postgres.wrongs import GSS_REQUEST, WRONGS

IDS = [row[0] for row in WRONGS]


def _before(data: bytes) -> int:
    """How many single bytes (N) come before the answer."""
    return int(data.startswith(GSS_REQUEST))


@pytest.mark.parametrize(("name", "data", "sqlstate"), WRONGS, ids=IDS)
def test_a_wrong_client_reaches_nothing(name: str, data: bytes, sqlstate: str) -> None:
    """Each wrong client: one FATAL with its SQLSTATE, one record, nothing leased or opened."""
    conductor = begin()
    conductor.down(data)
    conductor.check_ended()
    said = fatal(conductor, _before(data))
    assert said["C"] == sqlstate
    assert said["M"].startswith("loopwarden: ")
    assert "built-in" in said["D"]
    assert said["H"]
    asked = [c for c in conductor.commands if isinstance(c, RequestLease | OpenUpstream)]
    assert not conductor.to_server
    assert not asked
    (denied,) = conductor.denied
    assert denied.status == sqlstate
    assert denied.reason in {Reason.PROTOCOL_ERROR, Reason.POLICY_DENIED, Reason.LIMIT_EXCEEDED}


@pytest.mark.parametrize(("name", "data", "sqlstate"), WRONGS, ids=IDS)
def test_pieces_do_not_matter(name: str, data: bytes, sqlstate: str) -> None:
    """However a wrong client cuts its bytes, it gets the same answer."""
    if "SSLRequest" in name:
        return  # what is in clear behind it is judged by what came with it
    expected = begin(lease=None)
    expected.down(data)
    for piece in (1, 2, 3, 7):
        conductor = begin(lease=None)
        conductor.down(data, piece)
        assert conductor.to_loop == expected.to_loop


@pytest.mark.parametrize("request_", [GSS_REQUEST, b"\0\0\0\x08\x04\xd2\x16\x2f"], ids=["g", "s"])
def test_encryption_within_tls(request_: bytes) -> None:
    """A request for encryption within TLS is refused, whatever TLS it is."""
    direct = begin(tls_name="orders.internal")
    direct.down(request_)
    assert fatal(direct)["C"] == "08P01"
    asked = begin()
    asked.down(b"\0\0\0\x08\x04\xd2\x16\x2f")
    assert asked.to_loop == b"S"
    asked.down(request_)
    assert fatal(asked, 1)["C"] == "08P01"
    asked.check_ended()


def test_bytes_between_the_request_and_tls() -> None:
    """Clear bytes after SSLRequest was answered are never taken for what comes through TLS."""
    conductor = begin()
    commands = conductor.relay.handle(
        Data(Side.DOWNSTREAM, b"\0\0\0\x08\x04\xd2\x16\x2f"), conductor.now_ns
    )
    assert len(commands) == 2  # S, StartTls; TlsStarted has not come
    conductor.down(startup())
    conductor.check_ended()
    assert fatal(conductor)["C"] == "08P01"


@pytest.mark.parametrize("piece", [1, 5, 100])
def test_a_goodbye_before_a_word(piece: int) -> None:
    """A driver that is told to end while it connects says so first: nothing is answered."""
    conductor = begin()
    conductor.down(TERMINATE + b"\0\0\0\x08\x04\xd2\x16\x2f", piece)
    conductor.check_ended()
    assert not conductor.to_loop
    assert not conductor.denied
    assert conductor.finished is Reason.DOWNSTREAM_CLOSED
    other = begin()
    other.down(TERMINATE[:4] + b"\5")
    assert fatal(other)["C"] == "08P01"


def test_a_name_of_another_target() -> None:
    """TLS for another name is not this target's."""
    conductor = begin(tls_name="billing.internal")
    conductor.check_ended()
    assert fatal(conductor)["C"] == "08004"
    assert conductor.finished is Reason.DESTINATION_MISMATCH


def test_a_client_that_says_nothing() -> None:
    """A connection that ends before a packet is no operation; one that stays runs out of time."""
    gone = begin()
    gone.down_eof()
    gone.check_ended()
    assert not gone.denied
    assert not gone.to_loop
    slow = begin()
    slow.down(startup()[:-1])
    slow.wait(30)
    slow.check_ended()
    assert fatal(slow)["C"] == "08006"


def test_a_client_that_leaves_while_it_waits() -> None:
    """A client that ends while the login is under way: the intent is closed, nothing is told."""
    conductor = begin(Server(first=b""))
    conductor.down(startup())
    conductor.down_eof()
    conductor.check_ended()
    assert not conductor.to_loop
    assert conductor.outcomes[0].reason is Reason.DOWNSTREAM_CLOSED
