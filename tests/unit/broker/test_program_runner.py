"""Programs as providers ask for them: some at a time, and what a keeper that is gone means."""

import asyncio

import pytest

from agent.broker.program_runner import RUNS_MAX, ProgramRunner
from agent.credentials.spec import CredentialError, Program
from agent.runtime.programs import REQUEST_BYTES_MAX
from tests.servers.programs import folder, keeper

CANARY = "c4n4ry"


def test_some_at_a_time() -> None:
    """Three times RUNS_MAX are asked for, RUNS_MAX run at once, and all answer."""
    with folder() as place, keeper() as programs:
        path = place.program(
            "count",
            f"cd {place.scratch}; touch run.$$; ls run.* | wc -l; sleep 0.2; rm run.$$",
        )
        runner = ProgramRunner(programs)

        async def main() -> list[int]:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(runner.run(Program((path,)))) for _ in range(3 * RUNS_MAX)
                ]
            return [int(task.result().reveal()) for task in tasks]

        found = asyncio.run(main())
    assert len(found) == 3 * RUNS_MAX
    assert max(found) <= RUNS_MAX


def test_failures() -> None:
    """Of the program: something may have been made. Before it: nothing was."""
    with folder() as place, keeper() as programs:
        path = place.program("fail", f"echo {CANARY}; exit 1")
        runner = ProgramRunner(programs)
        with pytest.raises(CredentialError, match="status 1") as caught:
            asyncio.run(runner.run(Program((path,))))
        assert not caught.value.nothing_made
        assert CANARY not in str(caught.value)
        with pytest.raises(CredentialError) as caught:
            asyncio.run(runner.run(Program((path, "x" * REQUEST_BYTES_MAX))))
        assert caught.value.nothing_made
        programs.close()
        with pytest.raises(CredentialError) as caught:
            asyncio.run(runner.run(Program((path,))))
        assert caught.value.nothing_made


def test_who_is_cut_off_ends_the_program() -> None:
    """A call that is cancelled leaves its place to the next, and no program."""
    with folder() as place, keeper() as programs:
        slow = place.program("slow", "sleep 306")
        runner = ProgramRunner(programs)

        async def main() -> bytes:
            tasks = [asyncio.create_task(runner.run(Program((slow,)))) for _ in range(RUNS_MAX)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return (await runner.run(Program(("/bin/echo", "ok")))).reveal()

        assert asyncio.run(main()) == b"ok\n"
