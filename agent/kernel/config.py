"""What the kernel plane is told at start: frozen, and nothing read from files here."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MARK_PREFIX_BITS = 12
MARK_NONCE_BITS = 20  # 1,048,576 connections before a nonce is used again


@dataclass(frozen=True, slots=True)
class PlaneConfig:
    """One instance of the plane. Two instances on one host must differ in every number and name.

    attach_cgroup is a path below the cgroup v2 mount ("/" is its root). Every hook is attached
    there, so a process outside it is not seen at all: production uses the root. The slice of
    launched runs is attach_cgroup/slice_name. procs_identity keeps tags in the procs map even
    where the kernel has task storage (weaker; for tests).

    Raises:
        ValueError: a name or number is out of its range.
    """

    instance: str = "loopwarden"
    bpffs: Path = Path("/sys/fs/bpf")
    attach_cgroup: str = "/"
    slice_name: str = "loopwarden.slice"
    proxy_port: int = 15001
    dns_port: int = 15053
    mark_prefix: int = 0x4C5
    synthetic4: str = "198.18.0.0/15"
    synthetic6: str = "fd4c:5700::/64"
    procs_identity: bool = False

    def __post_init__(self) -> None:
        if not self.instance.replace("-", "").replace("_", "").isalnum() or len(self.instance) > 24:
            raise ValueError("an instance is named by 1 to 24 letters, digits, '-' and '_'")
        if not 0 < self.mark_prefix < 1 << MARK_PREFIX_BITS:
            raise ValueError("the mark prefix is a 12 bit number above 0")
        for port in (self.proxy_port, self.dns_port):
            if not 0 < port < 1 << 16:
                raise ValueError(f"not a port: {port}")
        if self.proxy_port == self.dns_port:
            raise ValueError("the proxy and the resolver need two ports")
        if not self.attach_cgroup.startswith("/") or "/" in self.slice_name:
            raise ValueError("attach_cgroup is absolute, slice_name is one name")

    @property
    def slice_path(self) -> str:
        """Return the slice of launched runs, below the cgroup v2 mount."""
        return str(PurePosixPath(self.attach_cgroup) / self.slice_name)

    @property
    def pin_dir(self) -> Path:
        """Return the directory of this instance in bpffs."""
        return self.bpffs / self.instance

    @property
    def mark_base(self) -> int:
        """Return the fixed upper bits of every mark of ours."""
        return self.mark_prefix << MARK_NONCE_BITS
