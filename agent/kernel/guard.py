"""The watchdog: is all of ours still there? What is not is put back, and told."""

import ctypes
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from agent.kernel import abi, claims, nft, objects, routes, sysctls
from agent.kernel.cgroups import CgroupTree
from agent.kernel.config import PlaneConfig
from agent.kernel.maps import Maps


@dataclass(frozen=True, slots=True)
class Repair:
    """Something of ours was gone and was put back (or could not be: repaired is False)."""

    part: str  # "nft" | "routes" | "sysctl" | "link <name>" | "slice" | "cfg"
    repaired: bool
    detail: str


class Guard:
    """Compares the host with what this instance needs. One pass takes about a millisecond."""

    def __init__(self, config: PlaneConfig, tree: CgroupTree, maps: Maps) -> None:
        self._config = config
        self._tree = tree
        self._maps = maps
        self._fences: tuple[nft.Fence, ...] = ()
        self._generation = -1
        self._fingerprint = ""
        self._slice_id = 0
        self.networks = (
            ipaddress.ip_network(config.synthetic4),
            ipaddress.ip_network(config.synthetic6),
        )

    def ruleset(self) -> nft.Ruleset:
        """Return the table that we want now."""
        config = self._config
        own = nft.Fence(self._slice_id, self._tree.level(config.slice_path))
        fences = (own, *self._fences)
        return nft.Ruleset(config.instance, config.mark_base, config.proxy_port, fences)

    def set_fences(self, fences: tuple[nft.Fence, ...]) -> None:
        """Fence these registered cgroups besides the slice, and install. Raises OSError."""
        self._fences = fences
        self.install_table()

    def install_table(self) -> None:
        """Put our table in place, atomically. Raises OSError."""
        nft.install(self.ruleset())
        self._remember_table()

    def _remember_table(self) -> None:
        self._fingerprint = nft.fingerprint(self._config.instance)
        self._generation = nft.generation()

    def install_host(self) -> None:
        """Make the slice, routes and sysctl. Raises OSError."""
        self._slice_id = self._tree.create(self._config.slice_path)
        with claims.turn():
            claims.claim(self._config.instance)
            for network in self.networks:
                routes.ensure(network)
            sysctls.ensure()

    def verify(self, programs: tuple[str, ...]) -> tuple[Repair, ...]:
        """Return what was missing. Links are not put back here: detail says to restart."""
        found: list[Repair] = []
        for name, step in (
            ("slice", self._verify_slice),
            ("nft", self._verify_table),
            ("sysctl", self._verify_sysctl),
            ("routes", self._verify_routes),
        ):
            found += _guarded(name, step)
        top = objects.version_dir(self._config.pin_dir)
        for name in objects.missing_links(top, programs):
            found.append(Repair(f"link {name}", False, "the program is not attached any more"))
        return tuple(found)

    def _verify_slice(self) -> list[Repair]:
        path = self._config.slice_path
        if self._tree.exists(path) and self._tree.id(path) == self._slice_id:
            return []
        self._slice_id = self._tree.create(path)
        self.install_table()
        return [Repair("slice", True, "the slice was removed or made anew by somebody else")]

    def _verify_table(self) -> list[Repair]:
        generation = nft.generation()
        if generation == self._generation:
            return []
        now = nft.fingerprint(self._config.instance)
        if now == self._fingerprint:
            self._generation = generation
            return []
        nft.replace(self.ruleset())
        self._remember_table()
        detail = "was changed" if now else "was removed"
        return [Repair("nft", True, f"our table {detail} by somebody else")]

    def _verify_sysctl(self) -> list[Repair]:
        if sysctls.value() == "1":
            return []
        sysctls.ensure()
        return [Repair("sysctl", True, "net.ipv4.tcp_fwmark_accept was reset")]

    def _verify_routes(self) -> list[Repair]:
        return [
            Repair("routes", True, f"the local route of {network} was removed")
            for network in self.networks
            if routes.ensure(network)
        ]

    def write_cfg(self, netns_cookie: int, pidns_inum: int) -> None:
        """Write the configuration that the programs read. Raises OSError."""
        value = abi.Cfg(
            abi=abi.ABI,
            mark_base=self._config.mark_base,
            proxy_port=self._config.proxy_port,
            dns_port=self._config.dns_port,
            pidns_inum=pidns_inum,
            netns_cookie=netns_cookie,
        )
        self._maps.cfg.put(ctypes.c_uint32(0), value)


def _guarded(name: str, step: Callable[[], list[Repair]]) -> list[Repair]:
    try:
        return step()
    except OSError as error:
        return [Repair(name, False, str(error))]
