"""Messages are cut from a stream in one way, and read to their last byte."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.reason import Reason
from agent.protocols.postgres.frames import (
    Fields,
    Frame,
    Malformed,
    Splitter,
    report_fields,
    strict_text,
)
from agent.protocols.postgres.limits import BACKEND, FRONTEND
from agent.protocols.postgres.messages import message

KINDS = st.sampled_from([b"D", b"d", b"C", b"E", b"N"])
MESSAGES = st.lists(st.tuples(KINDS, st.binary(max_size=60)), max_size=20)
TABLES = [(FRONTEND, kind) for kind in FRONTEND] + [(BACKEND, kind) for kind in BACKEND]


def _header(kind: int, length: int) -> bytes:
    return bytes((kind,)) + length.to_bytes(4, "big", signed=True)


def _split(splitter: Splitter, pieces: list[bytes]) -> list[Frame]:
    found: list[Frame] = []
    for piece in pieces:
        splitter.feed(piece)
        while (each := splitter.next()) is not None:
            found.append(each)
    return found


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(messages=MESSAGES, piece=st.integers(1, 70))
def test_pieces_do_not_matter(messages: list[tuple[bytes, bytes]], piece: int) -> None:
    """However a stream is cut into pieces, the same messages come out, whole and in order."""
    stream = b"".join(message(kind, payload) for kind, payload in messages)
    splitter = Splitter(BACKEND)
    found = _split(splitter, _cut(stream, piece))
    assert found == [Frame(kind[0], payload) for kind, payload in messages]
    assert not splitter.held


@given(data=st.binary(max_size=400), piece=st.integers(1, 50))
def test_any_bytes(data: bytes, piece: int) -> None:
    """Any bytes are messages or Malformed, and what is refused does not depend on the pieces."""
    outcomes = []
    for size in (piece, 1000):
        splitter = Splitter(BACKEND)
        found: list[Frame] = []
        refused = ""
        try:
            for part in _cut(data, size):
                splitter.feed(part)
                while (each := splitter.next()) is not None:
                    found.append(each)
        except Malformed as error:
            refused = error.detail
        outcomes.append((found, refused))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(("table", "kind"), TABLES, ids=lambda value: str(value)[:4])
def test_every_length_at_its_bound(table: dict[int, int], kind: int) -> None:
    """Each type's payload may be as long as its number says, and not a byte longer."""
    splitter = Splitter(table)
    splitter.feed(_header(kind, table[kind] + 4))
    found = splitter.next()
    assert (found is None) == (table[kind] > 0)
    with pytest.raises(Malformed) as caught:
        _split(Splitter(table), [_header(kind, table[kind] + 5)])
    assert caught.value.reason is Reason.LIMIT_EXCEEDED


@pytest.mark.parametrize("length", [3, 2, 1, 0, -1, -(2**31)])
def test_lengths_below_their_own(length: int) -> None:
    """A length that does not even count itself is refused."""
    for kind in b"DC":
        with pytest.raises(Malformed) as caught:
            _split(Splitter(BACKEND), [_header(kind, length)])
        assert caught.value.reason is Reason.PROTOCOL_ERROR


def test_a_bad_header_behind_a_good_message() -> None:
    """A message before a bad header comes out; the header is refused when it is asked for."""
    splitter = Splitter(BACKEND)
    splitter.feed(message(b"D", b"ab") + _header(ord("D"), 3))
    assert splitter.next() == Frame(ord("D"), b"ab")
    with pytest.raises(Malformed):
        splitter.next()


def test_a_type_that_may_not_come_is_not_waited_for() -> None:
    """The first byte of an unknown type is enough to refuse it."""
    for table, byte in ((BACKEND, b"Q"), (FRONTEND, b"Z"), (FRONTEND, b"\0")):
        with pytest.raises(Malformed):
            _split(Splitter(table), [byte])


def test_large_messages_are_gathered_once() -> None:
    """A message of a mebibyte in pieces of 16 bytes comes out whole, its cost linear in them."""
    payload = bytes(1 << 20)
    found = _split(Splitter(FRONTEND), _cut(message(b"Q", payload), 16))
    assert found == [Frame(ord("Q"), payload)]


def test_the_rest_is_given_once() -> None:
    """What is in no message yet can be taken out, wherever it is held."""
    for data in (b"C\0\0", message(b"C", b"abc")[:-1], message(b"N", bytes(100))[:50]):
        splitter = Splitter(BACKEND)
        splitter.feed(data)
        assert splitter.next() is None
        assert splitter.held == len(data)
        assert splitter.take_rest() == data
        assert splitter.take_rest() == b""
        splitter.feed(message(b"C", b"x"))
        assert splitter.next() == Frame(ord("C"), b"x")


def test_fields_are_read_exactly() -> None:
    """Each reader takes its bytes, refuses what is not there, and `end` what is left."""
    fields = Fields(b"\xff\xff\xfe\xff\xff\xff\xfd\0\0\0\1ab\0\xc3\xa9\0\xff\xff\xff\xffrest")
    assert fields.byte() == 255
    assert fields.int16() == -2
    assert fields.int32() == -3
    assert fields.uint32() == 1
    assert fields.cstring() == b"ab"
    assert fields.text() == "é"
    assert fields.value() is None
    with pytest.raises(Malformed):
        fields.end()
    assert fields.rest() == b"rest"
    fields.end()
    assert Fields(b"\xff\xff").count() == 65_535
    assert Fields(b"\0\0\0\2ab").value() == b"ab"
    short: list[Callable[[], object]] = [
        lambda: Fields(b"").byte(),
        lambda: Fields(b"a").int16(),
        lambda: Fields(b"abc").int32(),
        lambda: Fields(b"no end").cstring(),
        lambda: Fields(b"\xff\0").text(),
        lambda: Fields(b"\0\0\0\3ab").value(),
        lambda: Fields(b"\xff\xff\xff\xfeab").value(),
        lambda: Fields(b"ab").take(-1),
    ]
    for read in short:
        with pytest.raises(Malformed):
            read()


def test_reports() -> None:
    """An error's fields are read to their end, each once."""
    assert report_fields(b"C42501\0Mno\0\0") == {ord("C"): b"42501", ord("M"): b"no"}
    for payload in (b"", b"C42501", b"C42501\0", b"C1\0C2\0\0", b"C1\0\0x"):
        with pytest.raises(Malformed):
            report_fields(payload)
    with pytest.raises(Malformed):
        strict_text(b"\xed\xa0\x80")


def test_a_repr_shows_no_bytes() -> None:
    """What passes is never in a repr."""
    assert "secret" not in repr(Frame(ord("Q"), b"secret"))
