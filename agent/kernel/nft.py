"""Our one nftables table: the redirect of marked flows and the fences, in one transaction.

Only the table named after the instance is touched. pyroute2 encodes; its `nft_socket` lacks the
level attribute, which is added here, and the cgroup id is passed as a number: nft(8) resolves
paths below /sys/fs/cgroup, which is wrong on hybrid hosts.
"""

import errno
import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    nft_chain_msg,
    nft_contains_expr,
    nft_regs,
    nft_rule_msg,
    nft_table_msg,
)

from agent.kernel import nft_timeouts
from agent.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    Message,
    dump,
    exchange,
    request,
)

FENCE_PRIORITY = 50  # behind every NAT of output (-100): the fence sees the final destination
REDIRECT_PRIORITY = -100
REDIRECT_CHAIN = "lw_redirect"
FENCE_CHAIN = "lw_fence"

_SUBSYSTEM = 10 << 8
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _GETCHAIN = 3, 4
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_GETGEN = 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_CREATE = 0x400
_APPEND = 0x800
_INET = 1  # NFPROTO_INET
_HOOK_OUTPUT = 3
_ACCEPT = 1
_META_MARK, _META_NFPROTO, _META_L4PROTO = 3, 15, 16
_REG = 1
_EQ, _NEQ = 0, 1
_PAYLOAD_NETWORK = 1
_SOCKET_CGROUPV2 = 3
_CT_DIRECTION = 1
_REJECT_ICMPX, _ADMIN_PROHIBITED = 2, 3
_MARK_MASK = 0xFFF00000


# pyroute2 has no types (misc), and finds an expression's attributes by the class's name (N801)
class _Expression(nft_contains_expr.nft_expr):  # type: ignore[misc]
    class nft_socket(nft_regs):  # type: ignore[misc] # noqa: N801
        nla_map = (
            ("NFTA_SOCKET_UNSPEC", "none"),
            ("NFTA_SOCKET_KEY", "be32"),
            ("NFTA_SOCKET_DREG", "regs"),
            ("NFTA_SOCKET_LEVEL", "be32"),
        )

    class nft_objref(nft_regs):  # type: ignore[misc] # noqa: N801
        nla_map = (
            ("NFTA_OBJREF_UNSPEC", "none"),
            ("NFTA_OBJREF_IMM_TYPE", "be32"),
            ("NFTA_OBJREF_IMM_NAME", "asciiz"),
        )


# as above
class _Rule(nft_rule_msg):  # type: ignore[misc]
    class nft_expr(_Expression):  # noqa: N801
        pass


Expr = dict[str, object]


@dataclass(frozen=True, slots=True)
class Fence:
    """A cgroup whose sockets may send to loopback only; level counts from the cgroup2 mount."""

    cgroup_id: int
    level: int


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What the table of one instance must hold."""

    table: str
    mark_base: int
    proxy_port: int
    fences: tuple[Fence, ...]


def _expr(name: str, **attributes: object) -> Expr:
    body = [(f"NFTA_{name.upper()}_{key.upper()}", value) for key, value in attributes.items()]
    data = ("NFTA_EXPR_DATA", {"attrs": body})
    return {"attrs": [("NFTA_EXPR_NAME", name), data]}


def _value(raw: bytes) -> Expr:
    return {"attrs": [("NFTA_DATA_VALUE", raw)]}


def _equals(raw: bytes, op: int = _EQ) -> Expr:
    return _expr("cmp", sreg=_REG, op=op, data=_value(raw))


def _is_marked(base: int) -> list[Expr]:
    mask, zero = _value(struct.pack("=I", _MARK_MASK)), _value(bytes(4))
    return [
        _expr("meta", key=_META_MARK, dreg=_REG),
        _expr("bitwise", sreg=_REG, dreg=_REG, len=4, mask=mask, xor=zero),
        _equals(struct.pack("=I", base)),
    ]


def _in_cgroup(fence: Fence) -> list[Expr]:
    return [
        _expr("socket", key=_SOCKET_CGROUPV2, dreg=_REG, level=fence.level),
        _equals(struct.pack("=Q", fence.cgroup_id)),
    ]


def _not_loopback() -> list[list[Expr]]:
    """Return, per address family, the expressions that reject what leaves loopback."""
    reject = _expr("reject", type=_REJECT_ICMPX, icmp_code=_ADMIN_PROHIBITED)
    version = _expr("meta", key=_META_NFPROTO, dreg=_REG)
    daddr4 = _expr("payload", dreg=_REG, base=_PAYLOAD_NETWORK, offset=16, len=1)
    daddr6 = _expr("payload", dreg=_REG, base=_PAYLOAD_NETWORK, offset=24, len=16)
    localhost6 = bytes(15) + b"\x01"
    return [
        [version, _equals(b"\x02"), daddr4, _equals(b"\x7f", _NEQ), reject],
        [version, _equals(b"\x0a"), daddr6, _equals(localhost6, _NEQ), reject],
    ]


def _rules(wanted: Ruleset, *, timed: bool) -> Iterable[tuple[str, list[Expr]]]:
    port = _value(struct.pack("!H", wanted.proxy_port))
    tcp = [_expr("meta", key=_META_L4PROTO, dreg=_REG), _equals(b"\x06")]
    kind, name = nft_timeouts.OBJECT_CT_TIMEOUT, nft_timeouts.TIMES
    times = [_expr("objref", imm_type=kind, imm_name=name)] if timed else []
    yield (
        REDIRECT_CHAIN,
        [
            *_is_marked(wanted.mark_base),
            *tcp,
            *times,
            _expr("immediate", dreg=_REG, data=port),
            _expr("redir", reg_proto_min=_REG),
        ],
    )
    if timed:  # NAT's chain meets first packets only: nobody's other packets pay for these
        for fence in wanted.fences:
            yield REDIRECT_CHAIN, [*tcp, *_in_cgroup(fence), *times]
    original = [_expr("ct", key=_CT_DIRECTION, dreg=_REG), _equals(b"\0")]
    for tail in _not_loopback():
        # The proxy's accepted sockets inherit the mark: their replies are not what is fenced.
        yield FENCE_CHAIN, [*_is_marked(wanted.mark_base), *original, *tail]
        for fence in wanted.fences:
            yield FENCE_CHAIN, [*_in_cgroup(fence), *tail]


def _encode(message: nfgen_msg, kind: int, flags: int, number: int, attrs: list[object]) -> bytes:
    message["attrs"] = attrs
    message["nfgen_family"] = _INET
    message["header"]["type"] = _SUBSYSTEM | kind
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message["header"]["sequence_number"] = number
    message.encode()
    return bytes(message.data)


def _batch(steps: "list[Step]") -> None:
    """Send all steps as one transaction. Raises OSError; then nothing has changed."""
    mark = struct.pack("!BBH", 0, 0, 10)  # res_id: the nftables subsystem
    frames = [request(_BATCH_BEGIN, NLM_F_REQUEST, mark, 1)]
    last = len(steps) + 1
    for number, (message, kind, flags, attrs) in enumerate(steps, start=2):
        ack = NLM_F_ACK if number == last else 0
        frames.append(_encode(message, kind, flags | ack, number, attrs))
    frames.append(request(_BATCH_END, NLM_F_REQUEST, mark, last + 1))
    exchange(NETLINK_NETFILTER, b"".join(frames), last)


def _chain(table: str, name: str, kind: str, priority: int) -> list[object]:
    hook = [("NFTA_HOOK_HOOKNUM", _HOOK_OUTPUT), ("NFTA_HOOK_PRIORITY", priority)]
    return [
        ("NFTA_CHAIN_TABLE", table),
        ("NFTA_CHAIN_NAME", name),
        ("NFTA_CHAIN_HOOK", {"attrs": hook}),
        ("NFTA_CHAIN_POLICY", _ACCEPT),
        ("NFTA_CHAIN_TYPE", kind),
    ]


Step = tuple[nfgen_msg, int, int, list[object]]
Making = Callable[[Ruleset, bool], list[Step]]


def install(wanted: Ruleset) -> None:
    """Make our table hold exactly these rules, in one transaction. Raises OSError.

    Where the chains are there, only their rules are exchanged: each packet then meets the old
    or the new rules of a chain. Making chains anew is atomic too, but a packet between the two
    generations can pass the new NAT chain (not yet active) and the old one (no more active):
    the fence would refuse it.
    """
    if chains(wanted.table) == {REDIRECT_CHAIN, FENCE_CHAIN}:
        try:
            _transact(_exchanging, wanted)
        except OSError:
            replace(wanted)  # a chain of that name is hooked elsewhere
    else:
        replace(wanted)


def replace(wanted: Ruleset) -> None:
    """Put our table in place of whatever has its name, in one transaction. Raises OSError."""
    _transact(_replacing, wanted)


def _transact(making: "Making", wanted: Ruleset) -> None:
    """Have the fences in any case: a kernel without `ct timeout` refuses what names one."""
    try:
        _batch(making(wanted, True))
    except OSError:
        _batch(making(wanted, False))


def _exchanging(wanted: Ruleset, timed: bool) -> "list[Step]":  # noqa: FBT001 - Making
    made = _object_steps(wanted) if timed and not has_times(wanted.table) else []
    return [
        *made,
        *_chain_steps(wanted),
        *_empty_steps(wanted),
        *_rule_steps(wanted, timed=timed),
    ]


def _replacing(wanted: Ruleset, timed: bool) -> "list[Step]":  # noqa: FBT001 - Making
    table: list[object] = [("NFTA_TABLE_NAME", wanted.table)]
    return [
        (nft_table_msg(), _NEWTABLE, _CREATE, list(table)),  # so that the next cannot fail
        (nft_table_msg(), _DELTABLE, 0, list(table)),
        (nft_table_msg(), _NEWTABLE, _CREATE, list(table)),
        *(_object_steps(wanted) if timed else []),
        *_chain_steps(wanted),
        *_rule_steps(wanted, timed=timed),
    ]


def has_times(table: str) -> bool:
    """Return whether ended connections leave connection tracking early (see nft_timeouts)."""
    found = _dump(nft_timeouts.ObjectMessage(), nft_timeouts.GETOBJ, [])
    return any(
        (_text(one, 1), _text(one, 2)) == (table, nft_timeouts.TIMES)
        and int.from_bytes(_attribute(one, nft_timeouts.USE) or b"", "big") > 0
        for one in found
    )


def _object_steps(wanted: Ruleset) -> "list[Step]":
    made = nft_timeouts.made(wanted.table)
    return [(nft_timeouts.ObjectMessage(), nft_timeouts.NEWOBJ, _CREATE, made)]


def _chain_steps(wanted: Ruleset) -> list[Step]:
    return [
        (nft_chain_msg(), _NEWCHAIN, _CREATE, _chain(wanted.table, name, kind, priority))
        for name, kind, priority in (
            (REDIRECT_CHAIN, "nat", REDIRECT_PRIORITY),
            (FENCE_CHAIN, "filter", FENCE_PRIORITY),
        )
    ]


def _empty_steps(wanted: Ruleset) -> list[Step]:
    return [
        (_Rule(), _DELRULE, 0, [("NFTA_RULE_TABLE", wanted.table), ("NFTA_RULE_CHAIN", name)])
        for name in (REDIRECT_CHAIN, FENCE_CHAIN)
    ]


def _rule_steps(wanted: Ruleset, *, timed: bool = True) -> list[Step]:
    steps: list[Step] = []
    for chain, expressions in _rules(wanted, timed=timed):
        attrs: list[object] = [
            ("NFTA_RULE_TABLE", wanted.table),
            ("NFTA_RULE_CHAIN", chain),
            ("NFTA_RULE_EXPRESSIONS", expressions),
        ]
        steps.append((_Rule(), _NEWRULE, _CREATE | _APPEND, attrs))
    return steps


def chains(table: str) -> set[str]:
    """Return the names of the chains of a table."""
    found = _dump(nft_chain_msg(), _GETCHAIN, [])
    return {_text(one, 3) for one in found if _text(one, 1) == table}


def remove(table: str) -> bool:
    """Delete our table; return whether it was there. Raises OSError."""
    if table not in tables():
        return False
    _batch([(nft_table_msg(), _DELTABLE, 0, [("NFTA_TABLE_NAME", table)])])
    return True


def _dump(message: nfgen_msg, kind: int, attrs: list[object]) -> list[bytes]:
    frame = _encode(message, kind, NLM_F_DUMP, 1, attrs)
    return [answer.payload for answer in dump(NETLINK_NETFILTER, frame)]


def _attribute(payload: bytes, number: int) -> bytes | None:
    offset = 4
    while offset + 4 <= len(payload):
        size, kind = struct.unpack_from("=HH", payload, offset)
        if size < 4:
            return None
        if kind & 0x3FFF == number:
            return payload[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return None


def _text(payload: bytes, number: int) -> str:
    return (_attribute(payload, number) or b"").rstrip(b"\0").decode(errors="replace")


def tables() -> set[str]:
    """Return the names of the inet tables."""
    return {_text(one, 1) for one in _dump(nft_table_msg(), _GETTABLE, [])}


def instances() -> set[str]:
    """Return the tables that are ours: those that have our redirect chain."""
    found = _dump(nft_chain_msg(), _GETCHAIN, [])
    return {_text(one, 1) for one in found if _text(one, 3) == REDIRECT_CHAIN}


def generation() -> int:
    """Return the generation of the whole ruleset: any change by anyone makes a new one.

    Raises:
        OSError: of the kernel, or EBADMSG when its answer has none.
    """
    frame = _encode(nfgen_msg(), _GETGEN, 0, 1, [])
    return parse_generation(exchange(NETLINK_NETFILTER, frame, 1))


def parse_generation(answers: Sequence[Message]) -> int:
    """Return the generation in the kernel's answer.

    Raises:
        OSError: EBADMSG, it has none: 0 would pass for "nothing has changed".
    """
    raw = _attribute(answers[0].payload, 1) if answers else None
    if raw is None or len(raw) != 4:
        raise OSError(errno.EBADMSG, "nftables did not say its generation")
    return int.from_bytes(raw, "big")


def fingerprint(table: str) -> str:
    """Return a digest of chains and rules of our table; "" when there is no rule."""
    hooked = [one for one in _dump(nft_chain_msg(), _GETCHAIN, []) if _text(one, 1) == table]
    rules = _dump(_Rule(), _GETRULE, [("NFTA_RULE_TABLE", table)])
    rules = [one for one in rules if _text(one, 1) == table]
    if not rules:
        return ""
    digest = hashlib.sha256()
    for payload in hooked + rules:
        digest.update(payload[4:])  # without the header, which has the generation
    return digest.hexdigest()
