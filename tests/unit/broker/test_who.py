"""Who may start, by unit and container."""

from agent.broker.origin import Inside
from agent.broker.peer import Peer
from agent.broker.who import may_start, tokens_of
from agent.model.ids import LoopName
from agent.model.loop import Initiator
from agent.policy.schema import Claim, Container, LoopPolicy, Token, Unit, Who

ID = "0123456789abcdef" * 4
POD = "f" * 32
TOKEN = Token("https://ci.example", "loopwarden", (Claim("sub", ("*",)),))


def _loop(*who: Who) -> LoopPolicy:
    return LoopPolicy(LoopName("a"), who, 0, False, ())


def _peer(
    service: str = "", invocation: str = "", inside: Inside | None = None, uid: int = 1000
) -> Peer:
    by = Initiator(uid, "ada", 7, "", "", "", service, invocation)
    return Peer(uid, uid, frozenset(), by, inside)


def test_a_unit_is_its_name_with_an_invocation() -> None:
    """A cgroup that looks like a unit of which systemd knows nothing is none."""
    loop = _loop(Unit("backup.service"))
    assert may_start(loop, _peer("backup.service", "0" * 32))
    assert not may_start(loop, _peer("backup.service"))
    assert not may_start(loop, _peer("backup2.service", "0" * 32))
    assert not may_start(loop, _peer())


def test_a_container_is_by_runtime_and_what_else_is_named() -> None:
    """Id or its beginning, the cgroup above, the pod: all that are written must fit."""
    peer = _peer(inside=Inside("docker", ID, "/ci.slice", POD))
    for good in (
        Container("docker", "", "", ""),
        Container("docker", ID[:12], "", ""),
        Container("docker", ID, "/ci.slice", POD),
    ):
        assert may_start(_loop(good), peer)
        assert not may_start(_loop(good), _peer())
    for bad in (
        Container("podman", "", "", ""),
        Container("docker", ID[1:13], "", ""),
        Container("docker", "", "/ci", ""),
        Container("docker", ID, "/ci.slice", "0" * 32),
    ):
        assert not may_start(_loop(bad), peer)


def test_a_token_entry_lets_no_local_caller_in() -> None:
    """Whoever it is; root needs no entry."""
    assert not may_start(_loop(TOKEN), _peer())
    assert may_start(_loop(TOKEN), _peer(uid=0))
    assert tokens_of(_loop(Unit("a.service"), TOKEN)) == (TOKEN,)
