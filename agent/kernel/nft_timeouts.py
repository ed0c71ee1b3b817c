"""How long connection tracking remembers a run's connection that is over: nft's `ct timeout`.

The host's numbers (net.netfilter.nf_conntrack_tcp_timeout_*: 120 s in TIME_WAIT) are made for
networks that lose and delay packets. A run's connections are on loopback. Only states that end
one, or begin it, are shortened. Established and half-closed connections keep the host's numbers,
as they are when the table is made: NAT needs their entries, however long they are silent.

Two seconds are enough in TIME_WAIT and CLOSE: what both sides sent was acknowledged, or a reset
took both sockets. A lost last ACK has its FIN sent again after 0.2 s, which begins the time anew.
What comes later than that finds no socket, and is answered by a reset. A SYN is sent again after
1 s and 3 s; the record of a connection that waits for the proxy lives for 5 s. The same four-tuple
may be dialled again at any time, with an entry or without.

Kernels with CONFIG_NF_CONNTRACK_TIMEOUT (Debian's and Ubuntu's have it) know such an object.
"""

from pyroute2.netlink import nla
from pyroute2.netlink.nfnetlink import nfgen_msg

TIMES = "lw_times_1"  # the kernel keeps an object as it was made: other seconds take the next name
SYN_SENT_S, TIME_WAIT_S, CLOSE_S = 5, 2, 2
OBJECT_CT_TIMEOUT = 7  # NFT_OBJECT_CT_TIMEOUT
NEWOBJ, GETOBJ = 18, 19
USE = 5  # NFTA_OBJ_USE: how many rules name it
_TCP = 6


# pyroute2 has no types (misc), and finds what an attribute holds by the class's name (N801)
class ObjectMessage(nfgen_msg):  # type: ignore[misc]
    """NFT_MSG_NEWOBJ and NFT_MSG_GETOBJ with a `ct timeout` of TCP; pyroute2 has none."""

    prefix = "NFTA_OBJ_"
    nla_map = (
        ("NFTA_OBJ_UNSPEC", "none"),
        ("NFTA_OBJ_TABLE", "asciiz"),
        ("NFTA_OBJ_NAME", "asciiz"),
        ("NFTA_OBJ_TYPE", "be32"),
        ("NFTA_OBJ_DATA", "ct_timeout"),
    )

    class ct_timeout(nla):  # type: ignore[misc] # noqa: N801
        """NFTA_CT_TIMEOUT_*, in NFTA_OBJ_DATA."""

        nla_map = (
            ("NFTA_CT_TIMEOUT_UNSPEC", "none"),
            ("NFTA_CT_TIMEOUT_L3PROTO", "be16"),
            ("NFTA_CT_TIMEOUT_L4PROTO", "uint8"),
            ("NFTA_CT_TIMEOUT_DATA", "tcp_times"),
        )

        class tcp_times(nla):  # type: ignore[misc] # noqa: N801
            """CTA_TIMEOUT_TCP_*, in NFTA_CT_TIMEOUT_DATA; the kernel fills in what is left out."""

            nla_map = (
                ("CTA_TIMEOUT_TCP_UNSPEC", "none"),
                ("CTA_TIMEOUT_TCP_SYN_SENT", "be32"),
                ("CTA_TIMEOUT_TCP_SYN_RECV", "be32"),
                ("CTA_TIMEOUT_TCP_ESTABLISHED", "be32"),
                ("CTA_TIMEOUT_TCP_FIN_WAIT", "be32"),
                ("CTA_TIMEOUT_TCP_CLOSE_WAIT", "be32"),
                ("CTA_TIMEOUT_TCP_LAST_ACK", "be32"),
                ("CTA_TIMEOUT_TCP_TIME_WAIT", "be32"),
                ("CTA_TIMEOUT_TCP_CLOSE", "be32"),
            )


def made(table: str) -> list[object]:
    """Return the attributes of our object; without L3PROTO it serves IPv4 and IPv6."""
    times = [
        ("CTA_TIMEOUT_TCP_SYN_SENT", SYN_SENT_S),
        ("CTA_TIMEOUT_TCP_TIME_WAIT", TIME_WAIT_S),
        ("CTA_TIMEOUT_TCP_CLOSE", CLOSE_S),
    ]
    data = [
        ("NFTA_CT_TIMEOUT_L4PROTO", _TCP),
        ("NFTA_CT_TIMEOUT_DATA", {"attrs": times}),
    ]
    return [
        ("NFTA_OBJ_TABLE", table),
        ("NFTA_OBJ_NAME", TIMES),
        ("NFTA_OBJ_TYPE", OBJECT_CT_TIMEOUT),
        ("NFTA_OBJ_DATA", {"attrs": data}),
    ]
