"""Which processes the supervisor keeps, and which of them speak to each other."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """One child: its name ("proxy@0"), and the module that `python -m` runs."""

    name: str
    module: str

    @property
    def kind(self) -> str:
        """The name without its number: what the boundary table knows."""
        return self.name.split("@")[0]


# Kinds that share a pair besides their own with kernel.
PAIRS = (("broker", "reporter"), ("proxy", "reporter"), ("broker", "proxy"))


def roles(proxy_workers: int) -> tuple[RoleSpec, ...]:
    """Return the roles in starting order: who records first, who serves last."""
    workers = (RoleSpec(f"proxy@{number}", "agent.proxy") for number in range(proxy_workers))
    return (
        RoleSpec("reporter", "agent.reporter"),
        RoleSpec("broker", "agent.broker"),
        *workers,
    )


def peers_of(role: RoleSpec, every: tuple[RoleSpec, ...]) -> tuple[RoleSpec, ...]:
    """Return the other roles that this one shares a pair with."""
    kinds = {
        right if left == role.kind else left for left, right in PAIRS if role.kind in (left, right)
    }
    return tuple(other for other in every if other.kind in kinds and other is not role)
