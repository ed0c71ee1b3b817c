"""What goes down is complete messages where it can be, and the secret never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.masking.scrubber import Scrubber
from agent.model.secret import Secret
from agent.protocols.postgres.counting import BULK_BYTES_MAX, run
from agent.protocols.postgres.downflow import Downflow
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.gathering import Gathering
from agent.protocols.postgres.messages import message

SECRET = b"canary-secret-123"
ROW = message(b"D", b"\0\1\0\0\0\1x")


@given(st.integers(1, 40), st.binary(max_size=30))
def test_a_message_in_pieces_is_scrubbed_across_them(piece: int, noise: bytes) -> None:
    """However it is cut; nothing is held back at its end, and its length stays."""
    down = Downflow(Scrubber((Secret(SECRET),)))
    data = noise + SECRET + noise + SECRET
    out = down.begin(data[:piece], len(data) - len(data[:piece]))
    at = piece
    while down.left:
        out += down.go_on(data[at : at + piece][: down.left])
        at += piece
    assert SECRET not in out
    assert len(out) == len(data)
    assert down.whole


def test_a_run_ends_where_it_is_not_complete() -> None:
    """Only whole messages of the kind count, at most so many as asked."""
    data = ROW * 3 + ROW[:-1]
    assert run(data, 0, ord("D"), -1) == (3 * len(ROW), 3)
    assert run(data, 0, ord("D"), 2) == (2 * len(ROW), 2)
    assert run(data, 0, ord("D"), 0) == (0, 0)
    assert run(ROW + message(b"C", b"x\0"), 0, ord("D"), -1) == (len(ROW), 1)


@pytest.mark.parametrize("length", [3, -1, BULK_BYTES_MAX + 1])
def test_a_length_that_may_not_be_is_refused(length: int) -> None:
    """Shorter than itself, negative, or longer than a message can be."""
    with pytest.raises(Malformed):
        run(ROW + b"D" + length.to_bytes(4, "big", signed=True), 0, ord("D"), -1)
    at_most = ROW + b"D" + BULK_BYTES_MAX.to_bytes(4, "big")
    assert run(at_most, 0, ord("D"), -1) == (len(ROW), 1)


def test_a_message_is_gathered_once() -> None:
    """Nothing comes out before all is there, then all, with what is behind it."""
    gathering = Gathering()
    assert gathering.add(b"abc") == b"abc"
    gathering.keep(b"abc", 5)
    assert gathering.add(b"d") == b""
    assert gathering.size == 4
    assert gathering.add(b"ef") == b"abcdef"
    assert gathering.size == 0
    assert gathering.add(b"g") == b"g"
