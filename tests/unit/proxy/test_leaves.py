"""Leaf certificates in a worker: one a name, made once, bounded in number and by the minute."""

import asyncio
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from agent.broker.ca import HostCa, load_or_make
from agent.ipc.messages import LeafSigned, Message, SignLeaf
from agent.model.ids import RunId
from agent.proxy import leaves
from agent.proxy.leaves import MINTED_A_MINUTE_MAX, Leaves, NoLeaf
from agent.proxy.peers import Peers
from agent.runtime.clock import monotonic_ns

HTTP = ("http/1.1",)
RUN, OTHER = RunId("01J00000000000000000000001"), RunId("01J00000000000000000000002")


@dataclass
class Broker:
    """Signs, as the broker does, and keeps what it was asked for."""

    ca: HostCa
    age: dt.timedelta = dt.timedelta()
    asked: list[str] = field(default_factory=list)

    def require_broker(self) -> "Broker":
        """It is never away."""
        return self

    async def request(self, message: Message, _kind: type, *, timeout_s: float) -> LeafSigned:
        """Sign after a turn of the event loop, so that others can ask meanwhile."""
        assert isinstance(message, SignLeaf)
        assert timeout_s > 0
        self.asked.append(message.name)
        await asyncio.sleep(0)
        moment = dt.datetime.now(dt.UTC) - self.age
        names = frozenset({message.name})
        return LeafSigned(*self.ca.sign(message.name, message.public_key_der, names, moment))


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    """A broker with a new CA."""
    return Broker(load_or_make(tmp_path, "host", dt.datetime.now(dt.UTC)))


def kept(broker: Broker) -> Leaves:
    """Return a worker's leaves."""
    return Leaves(cast("Peers", broker))


def test_a_name_is_signed_once_for_all_who_ask(broker: Broker) -> None:
    """Two at once and one later share a context; other protocols of a name have their own."""

    async def claim() -> None:
        made = kept(broker)
        assert made.ready("a.test", HTTP) is None
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(made.mint("a.test", HTTP, run)) for run in (RUN, OTHER)]
        first, second = (task.result() for task in asked)
        assert first is second is made.ready("a.test", HTTP)
        assert broker.asked == ["a.test"]
        assert made.ready("a.test", ()) is None
        assert await made.mint("a.test", (), RUN) is not first

    asyncio.run(claim())


def test_a_leaf_near_its_end_is_replaced(broker: Broker) -> None:
    """With less than an hour left it is not used for another connection."""

    async def claim() -> None:
        made = kept(broker)
        broker.age = dt.timedelta(hours=45)
        await made.mint("a.test", HTTP, RUN)
        assert made.ready("a.test", HTTP) is not None
        broker.age = dt.timedelta(hours=47)
        await made.mint("b.test", HTTP, RUN)
        assert made.ready("b.test", HTTP) is None

    asyncio.run(claim())


def test_a_run_gets_so_many_names_in_a_minute(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MINTED_A_MINUTE_MAX are signed, one more is not; another run's are, and later its own too."""
    now_ns = monotonic_ns()
    monkeypatch.setattr(leaves, "monotonic_ns", lambda: now_ns)

    async def claim() -> None:
        made = kept(broker)
        for number in range(MINTED_A_MINUTE_MAX):
            await made.mint(f"{number}.test", HTTP, RUN)
        with pytest.raises(NoLeaf, match=str(MINTED_A_MINUTE_MAX)):
            await made.mint("more.test", HTTP, RUN)
        assert len(broker.asked) == MINTED_A_MINUTE_MAX
        await made.mint("more.test", HTTP, OTHER)
        monkeypatch.setattr(leaves, "monotonic_ns", lambda: now_ns + leaves.MINUTE_NS)
        await made.mint("last.test", HTTP, RUN)

    asyncio.run(claim())


def test_so_many_leaves_are_kept(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound all; one past it the one that was not used for longest goes."""
    monkeypatch.setattr(leaves, "LEAVES_MAX", 3)

    async def claim() -> None:
        made = kept(broker)
        for name in ("a", "b", "c"):
            await made.mint(name, HTTP, RUN)
        assert all(made.ready(name, HTTP) for name in ("b", "c", "a"))
        await made.mint("d", HTTP, RUN)
        assert [name for name in "abcd" if made.ready(name, HTTP)] == ["a", "c", "d"]

    asyncio.run(claim())
