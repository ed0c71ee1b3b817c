"""Listings of kernel that may be longer than a frame, page by page."""

from collections.abc import AsyncIterator

from agent.ipc.endpoint import Endpoint
from agent.ipc.messages import ListRuns, Processes, Runs, RunTree
from agent.model.flow import Process
from agent.model.ids import RunId
from agent.model.loop import Run


async def all_runs(kernel: Endpoint) -> AsyncIterator[Run]:
    """Yield every run that the kernel maps hold, in the order of ids.

    Raises:
        RequestFailed, PeerGone, TimeoutError: see Endpoint.request.
    """
    after = ""
    while True:
        page = await kernel.request(ListRuns(after), Runs)
        for run in page.runs:
            yield run
        if not page.more:
            return
        after = page.runs[-1].run_id


async def all_processes(kernel: Endpoint, run_id: RunId) -> AsyncIterator[tuple[Process, int]]:
    """Yield every live process of a run with the pid of its parent, in the order of pids.

    Raises:
        RequestFailed, PeerGone, TimeoutError: see Endpoint.request.
    """
    after_pid = 0
    while True:
        page = await kernel.request(RunTree(run_id, after_pid), Processes)
        for process, parent in zip(page.processes, page.parents, strict=True):
            yield process, parent
        if not page.more:
            return
        after_pid = page.processes[-1].pid
