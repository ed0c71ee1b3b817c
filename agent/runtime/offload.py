"""Blocking calls off the event loop: one worker thread, one call at a time, in order."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Offload:
    """A single worker thread. What it runs must not touch state of the event loop."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run the function in the worker and return (or raise) what it does.

        A cancelled caller does not stop the call: it runs to its end.
        """
        event_loop = asyncio.get_running_loop()
        future = event_loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
        return await future

    def close(self) -> None:
        """Wait for the running call and end the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)
