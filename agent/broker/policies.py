"""The policy in force: loaded at start and on request; a bad load keeps the last good one."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from agent.broker.policy_files import load_policy
from agent.model.grant import UpstreamTls
from agent.model.ids import LoopName
from agent.policy.compile import assign_synthetic, permission_of
from agent.policy.errors import PolicyError
from agent.policy.parse import parse_policy
from agent.policy.schema import LoopPolicy, Policy
from agent.policy.synthetic import Pair

logger = logging.getLogger(__name__)


def _nothing() -> Policy:
    """A policy without loops or targets: everything is refused."""
    return parse_policy((), lambda _: "")


@dataclass(slots=True)
class Policies:
    """The policy in force and what follows from it."""

    directory: Path
    policy: Policy = field(default_factory=_nothing)
    synthetic: dict[str, Pair] = field(default_factory=dict)
    tls_names: frozenset[str] = frozenset()
    loaded_ms: int = 0
    problem: str = ""

    def reload(self, now_ms: int) -> tuple[LoopName, ...]:
        """Load the directory; return the loops whose permission changed or is gone.

        Raises:
            PolicyError: the last good policy stays in force, `problem` says why.
        """
        try:
            fresh = load_policy([], directory=self.directory)
        except PolicyError as error:
            self.problem = str(error)
            raise
        before = self.policy
        changed = tuple(
            name
            for name in before.loops
            if permission_of(before, name) != permission_of(fresh, name)
        )
        self.policy, self.problem, self.loaded_ms = fresh, "", now_ms
        self.synthetic = assign_synthetic(fresh, self.synthetic)
        self.tls_names = frozenset(
            target.host
            for target in fresh.targets.values()
            if target.tls is UpstreamTls.VERIFY_FULL
        )
        for warning in fresh.warnings:
            logger.warning("policy: %s", warning)
        return changed

    def loop(self, name: str) -> LoopPolicy | None:
        """Return a loop of the policy in force."""
        return self.policy.loops.get(LoopName(name))

    @property
    def names(self) -> tuple[tuple[str, str, str], ...]:
        """Name, IPv4 and IPv6 address for the resolver."""
        return tuple((name, *pair) for name, pair in sorted(self.synthetic.items()))
