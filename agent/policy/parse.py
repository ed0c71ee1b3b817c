"""Sources → Policy. Every problem of every source is found in one go, each with its place."""

from collections.abc import Callable, Iterable

from agent.model.ids import NAME, LoopName, TargetName
from agent.policy.compile import NAMES_BYTES_MAX, names_bytes, revision_of
from agent.policy.document import Node, Scalar, Source, read_document
from agent.policy.errors import Place, PolicyError, Problem
from agent.policy.parse_issuer import ISSUERS_MAX, default_issuer, read_issuer
from agent.policy.parse_loop import read_loop
from agent.policy.parse_target import read_target
from agent.policy.reading import Fields, Problems, entries, unknown
from agent.policy.schema import Issuer, LoopPolicy, Policy, TargetPolicy, Token
from agent.policy.synthetic import HOSTS_MAX

TARGETS_MAX = 1_024
LOOPS_MAX = 4_096
TOP_KEYS = ("targets", "loops", "issuers")

ReadCa = Callable[[str], str]
_Placed = tuple[Place, str]


def parse_policy(sources: Iterable[Source], read_ca: ReadCa) -> Policy:
    """Return the policy that these sources make together.

    read_ca returns the PEM text of a target's `ca` file; it raises OSError or ValueError.

    Raises:
        PolicyError: anything is wrong, in any source.
    """
    reader = _Reader(read_ca)
    for source in sources:
        try:
            root = read_document(source)
        except PolicyError as error:
            reader.problems.include(error)
            continue
        if root is not None:
            reader.take(root)
    return reader.finish()


class _Reader:
    """Gathers targets and loops of all sources."""

    def __init__(self, read_ca: ReadCa) -> None:
        self.problems = Problems()
        self._read_ca = read_ca
        self._warnings: list[Problem] = []
        self._targets: dict[TargetName, TargetPolicy] = {}
        self._loops: dict[LoopName, LoopPolicy] = {}
        self._places: dict[str, Place] = {}
        self._rule_places: dict[LoopName, tuple[Place, ...]] = {}
        self._issuers: dict[str, Issuer] = {}
        self._loop_nodes: list[tuple[LoopName, Node]] = []

    def take(self, root: Node) -> None:
        """Add one source."""
        if isinstance(root, Scalar) and root.plain and not root.text:
            return  # a file of comments
        fields = Fields(root, "a policy file", TOP_KEYS, self.problems)
        fields.optional("targets", self._take_targets, None)
        fields.optional("loops", self._take_loops, None)
        fields.optional("issuers", self._take_issuers, None)

    def _take_targets(self, node: Node, problems: Problems) -> None:
        for key, value in entries(node, "targets", problems):
            if self._is_new("target", key):
                name = TargetName(key.text)
                self._targets[name] = read_target(
                    name, value, problems, self._read_ca, self._warnings
                )

    def _take_loops(self, node: Node, problems: Problems) -> None:
        for key, value in entries(node, "loops", problems):
            if self._is_new("loop", key):
                self._loop_nodes.append((LoopName(key.text), value))

    def _take_issuers(self, node: Node, problems: Problems) -> None:
        for key, value in entries(node, "issuers", problems):
            if self._is_new("issuer", key):
                issuer = read_issuer(key.text, value, problems)
                self._check_issuer(issuer, value.place)
                self._issuers[key.text] = issuer

    def _check_issuer(self, issuer: Issuer, place: Place) -> None:
        if any(issuer.url == other.url != "" for other in self._issuers.values()):
            self.problems.add(place, f"two issuers have the URL {issuer.url}")
        if issuer.ca:
            try:
                self._read_ca(issuer.ca)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                self.problems.add(place, f"ca: {issuer.ca}: {why}")

    def _is_new(self, what: str, key: Scalar) -> bool:
        if not NAME.fullmatch(key.text):
            article = "an" if what == "issuer" else "a"
            form = "a-z, 0-9, '.', '_', '-' inside, at most 64 characters"
            self.problems.add(key.place, f"the name of {article} {what}: {form}")
            return False
        first = self._places.setdefault(f"{what} {key.text}", key.place)
        if first is not key.place:
            self.problems.add(key.place, f"{what} {key.text!r} is defined already, at {first}")
            return False
        return True

    def finish(self) -> Policy:
        """Read the loops, when all targets are known, and check what only the whole can show."""
        protocols = {target.name: target.protocol for target in self._targets.values()}
        for name, node in self._loop_nodes:
            loop, places = read_loop(name, node, self.problems, protocols, self._issuers)
            self._loops[name], self._rule_places[name] = loop, places
        self._check_counts()
        for loop in self._loops.values():
            self._check_rules(loop)
        issuers = {issuer.url: issuer for issuer in self._issuers.values()}
        for loop in self._loops.values():
            for who in loop.who:
                if isinstance(who, Token):
                    issuers.setdefault(who.issuer, default_issuer(who.issuer))
        self.problems.raise_any()
        revision = revision_of(self._targets, self._loops, issuers)
        return Policy(self._targets, self._loops, revision, tuple(self._warnings), issuers)

    def _check_counts(self) -> None:
        place = next(iter(self._places.values()), Place("policy", 1, 1))
        hosts = {target.host for target in self._targets.values()}
        for count, most, what in (
            (len(self._targets), TARGETS_MAX, "targets"),
            (len(self._loops), LOOPS_MAX, "loops"),
            (len(self._issuers), ISSUERS_MAX, "issuers"),
            (len(hosts), HOSTS_MAX, "target hosts"),
            (names_bytes(hosts), NAMES_BYTES_MAX, "bytes of target host names"),
        ):
            if count > most:
                self.problems.add(place, f"{count} {what}; at most {most} are supported")

    def _check_rules(self, loop: LoopPolicy) -> None:
        """Every target exists, and no two targets of a loop are one host and port."""
        endpoints: dict[tuple[str, int], TargetName] = {}
        for place, rule in zip(self._rule_places[loop.name], loop.rules, strict=True):
            if not rule.target:
                continue  # none could be read, which is a problem of its own
            target = self._targets.get(rule.target)
            if target is None:
                self.problems.add(place, _no_target(rule.target, self._targets))
                continue
            other = endpoints.setdefault((target.host, target.port), target.name)
            if other != target.name:
                text = (
                    f"the targets {other!r} and {target.name!r} are the same host and port: "
                    "a loop may use one of them, or a connection would have two meanings"
                )
                self.problems.add(place, text)


def _no_target(name: str, targets: Iterable[str]) -> str:
    known = tuple(sorted(targets))
    if not known:
        return f"there is no target {name!r}: define it under 'targets'"
    return unknown("target", name, known)
