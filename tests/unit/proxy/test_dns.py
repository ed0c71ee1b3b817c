"""The answers of the loops' resolver: a table, and any bytes."""

import pytest
from dnslib import QTYPE, RCODE, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from agent.proxy.dns import QUERY_BYTES_MAX, Names, answer

NAMES = Names.of(
    [("api.example.com", "198.18.0.1", "fd4c:6f6f:7000::1"), ("Four.", "198.18.0.2", "")]
)


def ask(name: str, kind: str) -> DNSRecord:
    reply = answer(bytes(DNSRecord(q=DNSQuestion(name, getattr(QTYPE, kind))).pack()), NAMES)
    assert reply is not None
    return DNSRecord.parse(reply)


@pytest.mark.parametrize(
    ("name", "kind", "code", "data"),
    [
        ("api.example.com", "A", RCODE.NOERROR, ["198.18.0.1"]),
        ("API.Example.COM", "A", RCODE.NOERROR, ["198.18.0.1"]),
        ("api.example.com.", "AAAA", RCODE.NOERROR, ["fd4c:6f6f:7000::1"]),
        ("four", "A", RCODE.NOERROR, ["198.18.0.2"]),
        ("four", "AAAA", RCODE.NOERROR, []),
        ("api.example.com", "HTTPS", RCODE.NOERROR, []),
        ("api.example.com", "SVCB", RCODE.NOERROR, []),
        ("api.example.com", "TXT", RCODE.NOERROR, []),
        ("api.example.com", "ANY", RCODE.NOERROR, []),
        ("api.example.com.corp.internal", "A", RCODE.NXDOMAIN, []),
        ("elsewhere.example", "A", RCODE.NXDOMAIN, []),
        ("secret-in-a-label.elsewhere.example", "TXT", RCODE.NXDOMAIN, []),
        ("1.0.18.198.in-addr.arpa", "PTR", RCODE.NXDOMAIN, []),
        (".", "NS", RCODE.NXDOMAIN, []),
    ],
)
def test_names_are_answered_by_the_policy(name: str, kind: str, code: int, data: list[str]) -> None:
    """Policy names get their synthetic addresses, their other types no data, the rest NXDOMAIN."""
    reply = ask(name, kind)
    assert reply.header.rcode == code
    assert [str(record.rdata) for record in reply.rr] == data
    assert reply.header.aa == 1
    assert bool(reply.auth) == (not data)


def test_the_question_comes_back_as_it_was_asked() -> None:
    """Clients that vary the case of a name (0x20) find it again, and their id."""
    query = DNSRecord(q=DNSQuestion("aPi.eXample.com"))
    reply = DNSRecord.parse(answer(bytes(query.pack()), NAMES) or b"")
    assert (reply.header.id, str(reply.q.qname)) == (query.header.id, "aPi.eXample.com.")


def test_edns_is_tolerated() -> None:
    """An OPT record in the query changes nothing."""
    query = bytes.fromhex("123401000001000000000001") + b"\x03api\x07example\x03com\x00"
    query += bytes.fromhex("00010001") + bytes.fromhex("0000291000000080000000")
    reply = DNSRecord.parse(answer(query, NAMES) or b"")
    assert [str(record.rdata) for record in reply.rr] == ["198.18.0.1"]


@pytest.mark.parametrize(
    ("query", "reply"),
    [
        (b"", None),
        (b"\x00" * 11, None),
        (bytes.fromhex("123481800001000000000000"), None),  # an answer
        (bytes.fromhex("123401000000000000000000"), "123481010000000000000000"),  # no question
        (bytes.fromhex("123401000002000000000000"), "123481010000000000000000"),  # two
        (bytes.fromhex("12340100000100000000000003617069"), "123481010000000000000000"),  # cut
        (bytes.fromhex("123401000001000000000000c00c00010001"), "123481010000000000000000"),
        (bytes.fromhex("123411000001000000000000"), "123491040000000000000000"),  # STATUS
        (bytes.fromhex("1234010000010000000000000000100003"), "123481050000000000000000"),  # CHAOS
    ],
)
def test_what_is_no_query_gets_an_error_or_nothing(query: bytes, reply: str | None) -> None:
    """Answers are dropped; broken questions get FORMERR, other opcodes NOTIMP, classes REFUSED."""
    assert answer(query, NAMES) == (None if reply is None else bytes.fromhex(reply))


def test_a_query_is_bounded() -> None:
    """A query of QUERY_BYTES_MAX is answered, one byte more is dropped."""
    query = bytes(DNSRecord(q=DNSQuestion("api.example.com")).pack())
    assert answer(query.ljust(QUERY_BYTES_MAX, b"\0"), NAMES) is not None
    assert answer(query.ljust(QUERY_BYTES_MAX + 1, b"\0"), NAMES) is None


def test_a_name_is_bounded() -> None:
    """255 bytes of name are answered, 256 are FORMERR, as is a label of 64 (a pointer's mark)."""
    head, tail = bytes.fromhex("123401000001000000000000"), b"\x00\x00\x01\x00\x01"
    fits = b"\x3f" + b"a" * 63
    for last, code in ((61, RCODE.NXDOMAIN), (62, RCODE.FORMERR)):
        query = head + fits * 3 + bytes([last]) + b"a" * last + tail
        assert (answer(query, NAMES) or b"")[3] & 15 == code
    assert (answer(head + b"\x40" + b"a" * 64 + tail, NAMES) or b"")[3] & 15 == RCODE.FORMERR


@given(st.binary(max_size=600))
def test_any_bytes_are_answered_or_dropped(data: bytes) -> None:
    """No bytes raise; what is answered is an answer with the query's id."""
    reply = answer(data, NAMES)
    if reply is not None:
        assert reply[:2] == data[:2]
        assert reply[2] & 0x80
        DNSRecord.parse(reply)


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=6), st.integers(0, 65535))
def test_any_name_is_answered(labels: list[bytes], kind: int) -> None:
    """Any labels of any type: an answer whose name is the question's."""
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    query = bytes.fromhex("abcd01000001000000000000") + name + kind.to_bytes(2, "big") + b"\0\x01"
    reply = answer(query, NAMES)
    assert reply is not None
    if len(name) <= 255:
        assert name in reply
