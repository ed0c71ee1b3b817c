"""What the loops' resolver answers: names of the policy, and nothing that would leave the host.

- A and AAAA of a policy's name: its synthetic addresses. Any other type of it (HTTPS and SVCB too,
  so that no client learns of ECH or HTTP/3): no data.
- Every other name: NXDOMAIN. REFUSED would be as true, but resolvers take it for a server in
  trouble, ask again and again, and report "temporary failure"; NXDOMAIN ends at once with "not
  known". That also settles search lists: `api.example.com.corp.internal` is not known, and the
  client goes on to `api.example.com`.
- What is no query is not answered; a broken one gets FORMERR, another opcode NOTIMP.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dnslib import (
    AAAA,
    CLASS,
    QTYPE,
    RCODE,
    RR,
    SOA,
    A,
    DNSHeader,
    DNSLabel,
    DNSQuestion,
    DNSRecord,
)

QUERY_BYTES_MAX = 4_096  # a longer one is dropped
TTL_S = 30
NEGATIVE_TTL_S = 5  # a name that the policy gets is found this soon
NAME_BYTES_MAX = 255  # RFC 1035 section 2.3.4
LABEL_BYTES_MAX = 63
_HEADER = struct.Struct("!HHHHHH")
_QR, _RD, _OPCODE = 0x8000, 0x0100, 0x7800
_ANY_CLASS = 255


@dataclass(frozen=True, slots=True)
class Names:
    """Name, lower case without the last dot → (IPv4, IPv6); "" where there is none."""

    addresses: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @staticmethod
    def of(names: Iterable[tuple[str, str, str]]) -> "Names":
        """Return the names of a PolicyNames notice."""
        return Names({name.lower().rstrip("."): (four, six) for name, four, six in names})


def answer(query: bytes, names: Names) -> bytes | None:
    """Return the answer to a query, None when there is none to give. Never raises."""
    if not _HEADER.size <= len(query) <= QUERY_BYTES_MAX:
        return None
    identity, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & _QR:
        return None
    if flags & _OPCODE:
        return _bare(identity, flags, RCODE.NOTIMP)
    question = _question(query) if questions == 1 else None
    if question is None:
        return _bare(identity, flags, RCODE.FORMERR)
    labels, kind, class_ = question
    if class_ not in {CLASS.IN, _ANY_CLASS}:
        return _bare(identity, flags, RCODE.REFUSED)
    return _reply(identity, flags, labels, kind, names)


def _question(query: bytes) -> tuple[list[bytes], int, int] | None:
    """Return labels, type and class of the one question; None when it is broken.

    A question's name is never compressed: there is nothing before it to point to.
    """
    labels: list[bytes] = []
    at, size = _HEADER.size, 1
    while at < len(query) and query[at]:
        length = query[at]
        label = query[at + 1 : at + 1 + length]
        size += length + 1
        if length > LABEL_BYTES_MAX or len(label) != length or size > NAME_BYTES_MAX:
            return None
        labels.append(label)
        at += 1 + length
    if len(query) < at + 5:
        return None
    kind, class_ = struct.unpack_from("!HH", query, at + 1)
    return labels, kind, class_


def _reply(identity: int, flags: int, labels: list[bytes], kind: int, names: Names) -> bytes:
    label = DNSLabel(labels)
    found = names.addresses.get(b".".join(labels).decode("latin-1").lower())
    header = DNSHeader(
        id=identity,
        qr=1,
        aa=1,
        ra=1,
        rd=int(bool(flags & _RD)),
        rcode=RCODE.NXDOMAIN if found is None else RCODE.NOERROR,
    )
    record = DNSRecord(header, q=DNSQuestion(label, kind, CLASS.IN))
    four, six = found or ("", "")
    if kind == QTYPE.A and four:
        record.add_answer(RR(label, QTYPE.A, CLASS.IN, TTL_S, A(four)))
    elif kind == QTYPE.AAAA and six:
        record.add_answer(RR(label, QTYPE.AAAA, CLASS.IN, TTL_S, AAAA(six)))
    else:
        times = (1, 3600, 600, 86400, NEGATIVE_TTL_S)
        start = SOA("loopwarden.invalid.", "policy.loopwarden.invalid.", times)
        record.add_auth(RR(label, QTYPE.SOA, CLASS.IN, NEGATIVE_TTL_S, start))
    return bytes(record.pack())


def _bare(identity: int, flags: int, code: int) -> bytes:
    """Return an answer that repeats no question: the question could not be read."""
    return _HEADER.pack(identity, _QR | flags & (_OPCODE | _RD) | code, 0, 0, 0, 0)
