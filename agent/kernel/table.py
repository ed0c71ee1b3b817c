"""What the other roles may ask of root, and nothing else.

Which message may cross at all is the boundary table of agent/ipc/messages.py; here each request
has one method of the plane. A request that the plane refuses is answered Failed with its reason.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agent.ipc.endpoint import Received
from agent.ipc.messages import (
    FRAME_BYTES_MAX,
    Admit,
    Attribute,
    Attributed,
    CreateRun,
    Done,
    Failed,
    KernelStatus,
    ListRuns,
    Message,
    Probe,
    Processes,
    RegisterCgroup,
    RemoveRun,
    RevokeRun,
    RunCreated,
    Runs,
    RunTree,
    SessionBegan,
)
from agent.kernel.errors import RunRefused
from agent.kernel.plane import Plane
from agent.kernel.processes import read_stat, uids
from agent.model.flow import Attribution, Endpoint, Unattributed
from agent.model.ids import RunId
from agent.model.loop import Initiator, Parent
from agent.model.reason import Reason

EXE_CHARACTERS_MAX, PARENT_EXE_CHARACTERS_MAX, COMM_CHARACTERS_MAX = 512, 96, 16
PAGE_BYTES = FRAME_BYTES_MAX // 2  # of a listing; a run or process is far smaller than the rest
logger = logging.getLogger(__name__)
_encoder = msgspec.msgpack.Encoder()


class Table:
    """Requests by type. `notify_broker` carries SessionBegan before a worker is answered."""

    def __init__(self, plane: Plane, notify_broker: Callable[[Message], None]) -> None:
        self._plane = plane
        self._notify_broker = notify_broker
        self._probing = asyncio.Lock()  # one at a time: each may stand in on the proxy's port

    def receive(self, sender: str, received: Received) -> Awaitable[None] | None:
        """Do one request and answer it; a probe takes seconds, and is answered when it is done."""
        if isinstance(received.message, Probe):
            return self._probe(received)
        try:
            reply = self._answer(sender, received)
        except RunRefused as error:
            reply = Failed(error.reason, error.detail)
        except OSError as error:
            logger.warning("%s: %s", type(received.message).__name__, error)
            reply = Failed(Reason.INTERNAL, f"{type(received.message).__name__}: {error}")
        except ValueError as error:  # an address, id or path that is none
            reply = Failed(Reason.PROTOCOL_ERROR, f"{type(received.message).__name__}: {error}")
        finally:
            received.close_fds()
        received.reply(reply)
        return None

    async def _probe(self, received: Received) -> None:
        async with self._probing:
            received.reply(await self._plane.probe())

    def _answer(self, sender: str, received: Received) -> Message:
        plane = self._plane
        match received.message:
            case Attribute(mark, address, port):
                return self._attribute(sender, mark, Endpoint(address, port))
            case CreateRun(run_id, loop, initiator, argv, started_ms):
                return RunCreated(
                    plane.create_run(run_id, loop, _seen(initiator), argv, started_ms)
                )
            case RegisterCgroup(run_id, loop, initiator, path, adopt, started_ms):
                run = plane.register_cgroup(run_id, loop, _seen(initiator), path, adopt, started_ms)
                return RunCreated(run)
            case Admit(run_id):
                plane.admit(run_id, _one(received.fds))
            case RevokeRun(run_id, kill):
                plane.revoke(run_id, kill=kill)
            case RemoveRun(run_id):
                plane.remove(run_id)
            case ListRuns(after):
                later = sorted(
                    (run for run in plane.runs() if run.run_id > after), key=lambda run: run.run_id
                )
                return Runs(tuple(later[: (fits := _fitting(later))]), more=fits < len(later))
            case RunTree(run_id, after_pid):
                return self._tree(run_id, after_pid)
            case KernelStatus():
                return plane.status()
            case other:
                return Failed(Reason.INTERNAL, f"{type(other).__name__} is not a request")
        return Done()

    def _tree(self, run_id: RunId, after_pid: int) -> Message:
        pairs = zip(*self._plane.tree_of(run_id), strict=True)
        later = sorted(
            (pair for pair in pairs if pair[0].pid > after_pid), key=lambda pair: pair[0].pid
        )
        fits = _fitting(later)
        processes = tuple(process for process, _ in later[:fits])
        parents = tuple(parent for _, parent in later[:fits])
        return Processes(processes, parents, more=fits < len(later))

    def _attribute(self, sender: str, mark: int, destination: Endpoint) -> Message:
        match self._plane.attribute(mark, destination):
            case Attribution() as attribution:
                self._notify_broker(SessionBegan(sender, attribution))
                return Attributed(attribution, None)
            case Unattributed() as unattributed:
                return Attributed(None, unattributed)


def _seen(initiator: Initiator) -> Initiator:
    """Add the programs that ask, which only root may look up; the caller waits for our answer."""
    parents = tuple(_parent_seen(parent) for parent in initiator.parents)
    exe = initiator.exe
    if not exe:
        with contextlib.suppress(OSError):  # gone, or a kernel thread: the rest still tells who
            exe = os.readlink(f"/proc/{initiator.pid}/exe")
    return dataclasses.replace(initiator, exe=_text(exe)[:EXE_CHARACTERS_MAX], parents=parents)


def _parent_seen(parent: Parent) -> Parent:
    """Add a parent's program, if what has its number looks the same before and after."""
    if parent.exe:
        return parent
    exe = ""
    with contextlib.suppress(OSError):
        before = _look(parent.pid)
        exe = os.readlink(f"/proc/{parent.pid}/exe")
        if before != (parent.comm, parent.uid) or _look(parent.pid) != before:
            exe = ""
    return dataclasses.replace(parent, exe=_text(exe)[:PARENT_EXE_CHARACTERS_MAX])


def _text(path: str) -> str:
    """Return a path whose bytes are no UTF-8 as text that can be recorded."""
    return os.fsencode(path).decode("utf-8", "replace")


def _look(pid: int) -> tuple[str, int] | None:
    stat = read_stat(pid)
    return None if stat is None else (stat.comm[:COMM_CHARACTERS_MAX], uids(pid)[0])


def _fitting(items: Sequence[object]) -> int:
    """Return how many of the items, from the first, fit a frame; one always does."""
    left = PAGE_BYTES
    for count, item in enumerate(items):
        left -= len(_encoder.encode(item))
        if left < 0 and count:
            return count
    return len(items)


def _one(fds: tuple[int, ...]) -> int:
    if len(fds) != 1:
        raise RunRefused(Reason.INTERNAL, f"needs one descriptor, got {len(fds)}")
    return fds[0]
