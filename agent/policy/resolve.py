"""Original destination → the target that a loop means by it, or why there is none.

A destination names a target when it is the target's synthetic address, its IP literal, or the
address that we dial for it, with the target's port. Loopback names the target `localhost`. An
https target on 443 is also reached on port 80, in clear text, for loops that cannot take a CA. The
nearest kind wins; two targets of the same kind are no answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.model.flow import Endpoint
from agent.model.grant import Target, UpstreamTls
from agent.model.ids import TargetName
from agent.model.reason import Reason
from agent.policy.compile import Synthetic, compile_target, targets_of
from agent.policy.schema import LoopPolicy, Policy


@dataclass(frozen=True, slots=True)
class Unlisted:
    """No target; the texts are safe to show to the loop."""

    reason: Reason
    explanation: str
    next_step: str


LOCALHOST = frozenset({"127.0.0.1", "::1"})  # no program asks a resolver for it (RFC 6761 6.3)


def resolve(
    policy: Policy, synthetic: Synthetic, loop: LoopPolicy, destination: Endpoint
) -> Target | Unlisted:
    """Return the target among those of the loop's rules, or why there is none."""
    mine = targets_of(loop)
    compiled = [compile_target(target, synthetic) for target in policy.targets.values()]
    found = best_match((target for target in compiled if target.name in mine), destination)
    match found:
        case [target]:
            return target
        case []:
            other = best_match(compiled, destination)
            names = tuple(target.name for target in other)
            host = _host_of(synthetic, destination)
            return _unlisted(loop, destination, names, host)
        case _:
            names_text = " and ".join(sorted(target.name for target in found))
            return Unlisted(
                Reason.DESTINATION_UNLISTED,
                f"{destination} could be any of the targets {names_text}",
                "Connect to the target's name: each name has an address of its own.",
            )


def best_match(targets: Iterable[Target], destination: Endpoint) -> list[Target]:
    """Return the targets of the nearest kind of match."""
    ranked: dict[int, list[Target]] = {}
    for target in targets:
        rank = _rank(target, destination)
        if rank is not None:
            ranked.setdefault(rank, []).append(target)
    return ranked[min(ranked)] if ranked else []


def _rank(target: Target, destination: Endpoint) -> int | None:
    """Return how near a match is (0 is nearest), None for no match."""
    if destination.address in (target.synthetic4, target.synthetic6, target.host) or (
        target.host == "localhost" and destination.address in LOCALHOST
    ):
        kind = 0
    elif destination.address == target.dial_host:
        kind = 2
    else:
        return None
    port = target.dial_port if kind == 2 else target.port
    if destination.port == port:
        return kind
    https = (target.protocol, target.tls, target.port) == ("http", UpstreamTls.VERIFY_FULL, 443)
    if https and destination.port == 80:
        return kind + 1
    return None


def _host_of(synthetic: Synthetic, destination: Endpoint) -> str:
    for host, pair in synthetic.items():
        if destination.address in pair:
            return host
    return ""


def _unlisted(
    loop: LoopPolicy, destination: Endpoint, others: tuple[TargetName, ...], host: str
) -> Unlisted:
    if others:
        return Unlisted(
            Reason.DESTINATION_UNLISTED,
            f"target {others[0]} is in no rule of loop {loop.name}",
            f"If the loop needs it, ask whoever keeps the policy to add a rule for target "
            f"{others[0]} to loop {loop.name}.",
        )
    if host:
        return Unlisted(
            Reason.DESTINATION_UNLISTED,
            f"no target is at port {destination.port} of {host}",
            "Use the port of the target's address in the policy.",
        )
    return Unlisted(
        Reason.DESTINATION_UNLISTED,
        f"{destination} is the address of no target of loop {loop.name}",
        "Connect by name, not by address; if the policy has no target for it, ask whoever keeps "
        "the policy to add one.",
    )
