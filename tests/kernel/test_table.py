"""What a hostile role may say to root: refused in words, whatever it says."""

import asyncio
import os
from pathlib import Path

import pytest

from agent.ipc.endpoint import Endpoint, pair
from agent.ipc.messages import (
    Attribute,
    Attributed,
    CreateRun,
    Done,
    Failed,
    Message,
    Probe,
    RegisterCgroup,
    RunTree,
)
from agent.kernel import probe
from agent.kernel.plane import Plane
from agent.kernel.table import Table
from agent.model.ids import LoopName, RunId
from agent.model.loop import Initiator
from agent.model.reason import Reason

ROOT = Initiator(0, "root", 1, "", "", "")


def ask(plane: Plane, peer: str, *messages: Message) -> list[Message]:
    """Send requests as this role over a real pair; return the answers, and the peer's end."""
    told: list[Message] = []

    async def scenario() -> list[Message]:
        left, right = pair()
        table = Table(plane, told.append)
        closed: list[str] = []
        kernel = Endpoint(
            left,
            own="kernel",
            peer=peer,
            receive=lambda one: table.receive(peer, one),
            on_closed=closed.append,
        )
        role = Endpoint(
            right, own=peer, peer="kernel", receive=lambda _: None, on_closed=closed.append
        )
        answers = [await _answer(role, message) for message in messages]
        role.close()
        kernel.close()
        return answers

    answers = asyncio.run(scenario())
    assert not told
    return answers


async def _answer(role: Endpoint, message: Message) -> Message:
    future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    role._waiting[1] = future  # any answer, Failed too
    role.send_frame(1, is_reply=False, message=message, fds=())
    async with asyncio.timeout(120):
        return await future


@pytest.mark.parametrize("address", ["", "nowhere", "1.2.3.4.5", "127.0.0.1\n", "::1%" + "x" * 999])
def test_an_address_that_is_none(plane: Plane, address: str) -> None:
    """A worker's garbage is answered, not raised in the root daemon."""
    (answer,) = ask(plane, "proxy@0", Attribute(plane.config.mark_base, address, 80))
    match answer:
        case Failed(reason):
            assert reason is Reason.PROTOCOL_ERROR
        case Attributed(attribution):
            assert attribution is None
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("run_id", ["", "..", "../../escape", "x/y", "é", "0" * 26 + "/.."])
def test_a_run_id_that_is_none(plane: Plane, run_id: str) -> None:
    """No cgroup is made or left outside the slice's runs, whatever the id says."""
    before = sorted(plane.tree.subtree("/" + plane.config.attach_cgroup.strip("/")))
    message = CreateRun(RunId(run_id), LoopName("job"), ROOT, (), 0)
    (answer, tree) = ask(plane, "broker", message, RunTree(RunId(run_id)))
    assert isinstance(answer, Failed)
    assert isinstance(tree, Failed)
    assert sorted(plane.tree.subtree("/" + plane.config.attach_cgroup.strip("/"))) == before


@pytest.mark.parametrize("path", ["/", "", "..", "/..", "/x\0y", "/proc", "//", "/./"])
def test_a_cgroup_that_is_none(plane: Plane, path: str) -> None:
    """The root, what is no cgroup, and what leads out of the tree are refused."""
    message = RegisterCgroup(RunId("0" * 26), LoopName("job"), ROOT, path, True, 0)
    (answer,) = ask(plane, "broker", message)
    assert isinstance(answer, Failed)
    assert plane.runs() == ()


def test_the_daemon_answers_while_it_probes(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While the doctor's probe waits for its child, another role's question is answered.

    The child waits for a word that comes only after that answer.
    """
    fifo = tmp_path / "word"
    os.mkfifo(fifo)
    monkeypatch.setattr(probe, "_CHILD", f"open({str(fifo)!r}).read()\n{probe._CHILD}")

    async def scenario() -> None:
        table = Table(plane, lambda _: None)
        (broker, one), (worker, other) = _ends(table, "broker"), _ends(table, "proxy@0")
        probing = asyncio.ensure_future(_answer(broker, Probe()))
        while (word := _opened(fifo)) is None:  # until the child is there
            assert not probing.done()
            await asyncio.sleep(0.01)
        answer = await _answer(worker, Attribute(plane.config.mark_base, "127.0.0.1", 80))
        assert isinstance(answer, Attributed)
        assert not probing.done()
        os.close(word)
        assert not isinstance(await probing, (Failed, Done))
        for end in (broker, one, worker, other):
            end.close()

    asyncio.run(scenario())


def _ends(table: Table, peer: str) -> tuple[Endpoint, Endpoint]:
    """Return the ends of a boundary: the role's, and the kernel's."""
    left, right = pair()
    kernel = Endpoint(
        left,
        own="kernel",
        peer=peer,
        receive=lambda one: table.receive(peer, one),
        on_closed=lambda _: None,
    )
    role = Endpoint(
        right, own=peer, peer="kernel", receive=lambda _: None, on_closed=lambda _: None
    )
    return role, kernel


def _opened(fifo: Path) -> int | None:
    """Return the writing end, None while nobody reads."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
