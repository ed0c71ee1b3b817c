"""Messages are cut from a stream in one way, and read to their last byte."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.reason import Reason
from agent.protocols.postgres.frames import (
    Bulk,
    Fields,
    Frame,
    Malformed,
    Splitter,
    report_fields,
    strict_text,
)
from agent.protocols.postgres.limits import BACKEND, FRONTEND, STREAMED, STREAMED_UP
from agent.protocols.postgres.messages import message

KINDS = st.sampled_from([b"D", b"d", b"C", b"E", b"N"])
MESSAGES = st.lists(st.tuples(KINDS, st.binary(max_size=60)), max_size=20)
TABLES = [(FRONTEND, kind) for kind in FRONTEND] + [(BACKEND, kind) for kind in BACKEND]


def _header(kind: int, length: int) -> bytes:
    return bytes((kind,)) + length.to_bytes(4, "big", signed=True)


def _split(splitter: Splitter, pieces: list[bytes], most: int = 0) -> list[Frame | Bulk]:
    found: list[Frame | Bulk] = []
    for piece in pieces:
        splitter.feed(piece)
        while (each := splitter.next(most)) is not None:
            found.append(each)
    return found


def _joined(found: list[Frame | Bulk]) -> tuple[bytes, int, int]:
    raw = b"".join(
        each.raw if isinstance(each, Bulk) else message(bytes((each.kind,)), each.payload)
        for each in found
    )
    bulks = [each for each in found if isinstance(each, Bulk)]
    return raw, sum(each.begun for each in bulks), sum(each.ended for each in bulks)


@given(messages=MESSAGES, piece=st.integers(1, 70), most=st.integers(0, 3))
def test_pieces_do_not_matter(messages: list[tuple[bytes, bytes]], piece: int, most: int) -> None:
    """However it is cut: the same bytes and messages, no more than asked for at once."""
    stream = b"".join(message(kind, payload) for kind, payload in messages)
    splitter = Splitter(BACKEND, STREAMED)
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    found = _split(splitter, pieces, most)
    count = sum(kind in b"Dd" for kind, _ in messages)
    assert _joined(found) == (stream, count, count)
    assert not splitter.held
    whole = [(each.kind, each.payload) for each in found if isinstance(each, Frame)]
    assert whole == [(kind[0], payload) for kind, payload in messages if kind not in {b"D", b"d"}]
    if most:
        assert all(each.ended <= most for each in found if isinstance(each, Bulk))


@given(data=st.binary(max_size=400), piece=st.integers(1, 50))
def test_any_bytes(data: bytes, piece: int) -> None:
    """Any bytes are messages or Malformed, and what is refused does not depend on the pieces."""
    outcomes = []
    for size in (piece, 1000):
        splitter = Splitter(BACKEND, STREAMED)
        found: list[Frame | Bulk] = []
        refused = ""
        try:
            for at in range(0, len(data), size):
                splitter.feed(data[at : at + size])
                while (each := splitter.next()) is not None:
                    found.append(each)
        except Malformed as error:
            refused = error.detail
        outcomes.append((_joined(found), refused))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(("table", "kind"), TABLES, ids=lambda value: str(value)[:4])
def test_every_length_at_its_bound(table: dict[int, int], kind: int) -> None:
    """Each type's payload may be as long as its number says, and not a byte longer."""
    splitter = Splitter(table)
    splitter.feed(_header(kind, table[kind] + 4))
    found = splitter.next()
    assert found is None or isinstance(found, Frame)
    with pytest.raises(Malformed) as caught:
        _split(Splitter(table), [_header(kind, table[kind] + 5)])
    assert caught.value.reason is Reason.LIMIT_EXCEEDED


@pytest.mark.parametrize("length", [3, 2, 1, 0, -1, -(2**31)])
def test_lengths_below_their_own(length: int) -> None:
    """A length that does not even count itself is refused, streamed or not."""
    for kind in b"DC":
        with pytest.raises(Malformed) as caught:
            _split(Splitter(BACKEND, STREAMED), [_header(kind, length)])
        assert caught.value.reason is Reason.PROTOCOL_ERROR


def test_a_bad_header_behind_good_rows() -> None:
    """Rows before a bad header come out; the header is refused when it is asked for."""
    splitter = Splitter(BACKEND, STREAMED)
    splitter.feed(message(b"D", b"ab") + _header(ord("D"), 3))
    assert splitter.next() == Bulk(ord("D"), message(b"D", b"ab"), 1, 1)
    with pytest.raises(Malformed):
        splitter.next()


def test_a_type_that_may_not_come_is_not_waited_for() -> None:
    """The first byte of an unknown type is enough to refuse it."""
    for table, byte in ((BACKEND, b"Q"), (FRONTEND, b"Z"), (FRONTEND, b"\0")):
        with pytest.raises(Malformed):
            _split(Splitter(table), [byte])


def test_large_messages_are_not_copied_for_each_piece() -> None:
    """A message of a mebibyte in pieces of 16 bytes is gathered once, and rows are not at all."""
    payload = bytes(1 << 20)
    stream = message(b"Q", payload)
    splitter = Splitter(FRONTEND, STREAMED_UP)
    found = _split(splitter, [stream[at : at + 16] for at in range(0, len(stream), 16)])
    assert [(each.kind, each.payload) for each in found if isinstance(each, Frame)] == [
        (ord("Q"), payload)
    ]
    rows = Splitter(BACKEND, STREAMED)
    for at in range(0, 1 << 16, 64):
        rows.feed((message(b"D", payload))[at : at + 64])
        while rows.next() is not None:
            pass
        assert rows.held < 64


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
    assert "secret" not in repr(Bulk(ord("D"), b"secret", 1, 1))
