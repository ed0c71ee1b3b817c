"""Cancel keys are mapped back by the run's own key, and by nothing else."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocols.postgres import limits
from agent.protocols.postgres.cancel import CancelKeys

PID = st.binary(min_size=4, max_size=4)
KEYS = st.binary(min_size=limits.BACKEND_KEY_BYTES_MIN, max_size=limits.BACKEND_KEY_BYTES_MAX)
RUN = st.binary(min_size=32, max_size=32)


@given(run=RUN, pid=PID, key=KEYS)
def test_back_and_forth(run: bytes, pid: bytes, key: bytes) -> None:
    """What is mapped down is mapped back up, by any worker that has the run's key."""
    told = CancelKeys(run).downstream(pid, key)
    assert len(told) == len(key)
    assert CancelKeys(run).upstream(pid, told) == key
    assert CancelKeys(run).downstream(pid, CancelKeys(run).upstream(pid, key)) == key


@pytest.mark.parametrize("size", [4, 5, 7, 32, 256])
def test_every_bit_counts(size: int) -> None:
    """One other bit of the key, the process id or the run's key gives quite another key."""
    run, pid, key = bytes(32), b"\0\0\0\1", bytes(size)
    told = CancelKeys(run).downstream(pid, key)
    others = [
        CancelKeys(run).downstream(pid, bytes(size - 1) + b"\1"),
        CancelKeys(run).downstream(pid, b"\x80" + bytes(size - 1)),
        CancelKeys(run).downstream(b"\0\0\0\2", key),
        CancelKeys(bytes(31) + b"\1").downstream(pid, key),
    ]
    for other in others:
        differing = sum((a ^ b).bit_count() for a, b in zip(told, other, strict=True))
        assert differing > size  # of 8 * size bits, half are expected
    assert len({told, *others}) == 5


def test_another_run_s_key_means_nothing() -> None:
    """A key told to one run, mapped by another run's key, is not the server's."""
    pid = b"\0\0\0\1"
    for number in range(200):
        key = number.to_bytes(4, "big")
        told = CancelKeys(b"a" * 32).downstream(pid, key)
        assert CancelKeys(b"b" * 32).upstream(pid, told) != key


def test_it_is_a_permutation() -> None:
    """No two keys of a server are told as the same."""
    keys = CancelKeys(bytes(32))
    told = Counter(keys.downstream(b"pid1", n.to_bytes(4, "big")) for n in range(4096))
    assert max(told.values()) == 1
