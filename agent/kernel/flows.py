"""Attribution: from the mark of an accepted socket to the run, process and destination."""

import ctypes
import ipaddress
from dataclasses import dataclass

from agent.kernel import abi
from agent.kernel.config import MARK_NONCE_BITS
from agent.kernel.maps import Maps
from agent.kernel.processes import ProcessBook
from agent.kernel.runs import RunTable
from agent.model.flow import Attribution, Endpoint, Evidence, Process, Unattributed
from agent.model.ids import CgroupId, SessionId, Tag
from agent.runtime.clock import boot_ns, fresh_ulid

RECORD_AGE_MAX_S = 5.0  # an older record is refused: its connection should be long accepted

EVIDENCE = {
    abi.EvidenceCode.BOTH: Evidence.TAG_AND_CGROUP,
    abi.EvidenceCode.TAG: Evidence.TAG_ONLY,
    abi.EvidenceCode.CGROUP: Evidence.CGROUP_ONLY,
}


def canonical_address(raw: bytes) -> str:
    """Return 16 bytes as text: v4-mapped as IPv4, and "any" as what the kernel dials for it."""
    address = ipaddress.IPv6Address(raw)
    if address.ipv4_mapped is not None:
        mapped = address.ipv4_mapped
        return "127.0.0.1" if mapped.is_unspecified else str(mapped)
    return "::1" if address.is_unspecified else str(address)


def canonical_text(text: str) -> str:
    """Return an address as canonical_address writes it.

    Raises:
        ValueError: not an address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if address.version == 4:
        return canonical_address(b"\0" * 10 + b"\xff\xff" + address.packed)
    return canonical_address(address.packed)


@dataclass(frozen=True, slots=True)
class Attributor:
    """Takes flow records out of the kernel, each once."""

    maps: Maps
    runs: RunTable
    mark_base: int
    book: ProcessBook

    def attribute(self, mark: int, destination: Endpoint) -> Attribution | Unattributed:
        """Return whose flow this is, or why that is not known. Raises OSError (kernel error)."""
        session = SessionId(fresh_ulid())
        mark &= 0xFFFFFFFF  # getsockopt gives a signed number
        if mark >> MARK_NONCE_BITS != self.mark_base >> MARK_NONCE_BITS:
            return Unattributed(session, "the connection carries no mark of ours")
        flow = self.maps.mflows.take(ctypes.c_uint32(mark))
        if flow is None:
            return Unattributed(session, "the kernel has no record of this flow")
        age_s = (boot_ns() - flow.connect_ns) / 1e9
        if age_s > RECORD_AGE_MAX_S:
            return Unattributed(session, f"the flow record is {age_s:.1f} s old")
        recorded = Endpoint(canonical_address(bytes(flow.daddr)), flow.dport)
        asked = Endpoint(canonical_text(destination.address), destination.port)
        if recorded != asked:
            return Unattributed(session, f"the loop dialled {recorded}, not {asked}")
        entry = self.maps.runs.get(ctypes.c_uint64(flow.tag))
        run = self.runs.by_tag(Tag(flow.tag))
        if entry is None or run is None:
            return Unattributed(session, "the run of this flow is not known any more")
        if entry.flags & abi.RunFlag.REVOKED:
            return Unattributed(session, "the run of this flow is revoked")
        chain = self._chain(flow)
        return Attribution(
            session_id=session,
            run_id=run.run_id,
            tag=Tag(flow.tag),
            cgroup_id=CgroupId(flow.cgid),
            evidence=EVIDENCE[abi.EvidenceCode(flow.evidence)],
            tier=run.tier,
            destination=recorded,
            socket_cookie=flow.cookie,
            netns_cookie=flow.netns_cookie,
            connect_ns=flow.connect_ns,
            process=chain[0],
            ancestors=chain[1:],
        )

    def _chain(self, flow: abi.Flow) -> tuple[Process, ...]:
        links = flow.chain[: max(1, min(flow.nchain, abi.CHAIN_MAX))]
        return tuple(
            self.book.describe(
                link.tgid, link.start_ns, link.uid, link.comm.decode(errors="replace")
            )
            for link in links
        )
