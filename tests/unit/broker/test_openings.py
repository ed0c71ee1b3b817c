"""The first record of a session: the broker's, made before its worker may begin."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from agent.broker import control as c
from agent.broker import recorder as recording
from agent.broker.openings import EVENT_BYTES_MAX, fitting
from agent.ipc import messages as m
from agent.ipc.endpoint import PeerGone
from agent.ipc.messages import FRAME_BYTES_MAX
from agent.ipc.records import pack_event
from agent.model.audit import RunStarted, SessionClosed, SessionOpened
from agent.model.flow import Process
from agent.model.ids import RunId, SessionId
from agent.model.reason import Reason
from tests.unit.broker.harness import PROCESS, Host, expect, host, run_async


async def _session(made: Host, name: str = "api.example.com") -> tuple[RunId, SessionId]:
    caller = made.caller()
    run_id = (await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)).run_id
    return run_id, made.session(run_id, made.synthetic[name][0])


async def _turns() -> None:
    """Let everything that is under way without the reporter get where it waits."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_a_session_is_recorded_as_kernel_said_before_the_worker_may_begin(tmp_path: Path) -> None:
    """Attribution, loop, target and worker; the answer comes only when the reporter has it."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id, session = await _session(made)
            made.reporter.confirms = False
            asking = asyncio.ensure_future(made.worker.ask(m.Authorize(session)))
            await made.reporter.until(lambda: bool(made.reporter.of(SessionOpened)))
            await _turns()
            assert not asking.done()
            [opened] = made.reporter.of(SessionOpened)
            attribution = opened.attribution
            assert (attribution.session_id, attribution.run_id) == (session, run_id)
            assert attribution.process == PROCESS
            assert (opened.loop, opened.target, opened.worker) == ("nightly", "api", "proxy@0")
            assert made.reporter.levels[-1] == "process"  # no flush is waited for
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.notify(m.Durable(made.reporter.numbers[-1]))
            assert isinstance(await asking, m.Authorized)

    run_async(main())


def test_a_session_that_names_no_target_is_recorded_too(tmp_path: Path) -> None:
    """The refusal is shown to the loop in its session, whose record has no target."""

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id, _ = await _session(made)
            unlisted = made.session(run_id, "203.0.113.9")
            answer = await made.worker.ask(m.Authorize(unlisted))
            assert isinstance(answer, m.Authorized)
            assert answer.grant is None
            [opened] = made.reporter.of(SessionOpened)
            assert (opened.attribution.session_id, opened.target) == (unlisted, None)

    run_async(main())


def test_a_session_is_opened_once(tmp_path: Path) -> None:
    """A worker that asks again gets no second record, and no second grant."""

    async def main() -> None:
        async with host(tmp_path) as made:
            _, session = await _session(made)
            assert isinstance(await made.worker.ask(m.Authorize(session)), m.Authorized)
            assert isinstance(await made.worker.ask(m.Authorize(session)), m.Failed)
            assert len(made.reporter.of(SessionOpened)) == 1

    run_async(main())


def test_a_full_spool_does_not_keep_a_session_from_its_reasons(tmp_path: Path) -> None:
    """Operations are refused then, one by one, with the reason; so the session opens."""

    async def main() -> None:
        async with host(tmp_path) as made:
            _, session = await _session(made)
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.notify(m.SpoolState(accepting=False, detail="full"))
            assert isinstance(await made.worker.ask(m.Authorize(session)), m.Authorized)

    run_async(main())


def test_what_can_not_be_recorded_in_time_is_refused_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record may still be made later: its end is, behind it."""
    monkeypatch.setattr(recording, "OPEN_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with host(tmp_path) as made:
            _, session = await _session(made)
            made.reporter.confirms = False
            answer = await made.worker.ask(m.Authorize(session))
            assert isinstance(answer, m.Failed)
            assert answer.reason is Reason.RECORD_FAILED
            await made.reporter.until(lambda: bool(made.reporter.of(SessionClosed)))
            kinds = [type(event) for event in made.reporter.events]
            assert kinds == [RunStarted, SessionOpened, SessionClosed]
            assert isinstance(await made.worker.ask(m.TakeLease(session)), m.Failed)

    run_async(main())


def test_a_connection_waits_for_a_reporter_that_comes_back(tmp_path: Path) -> None:
    """The reporter dies unconfirmed; its successor gets the record, and the worker its answer."""

    async def main() -> None:
        async with host(tmp_path) as made:
            _, session = await _session(made)
            made.reporter.confirms = False
            asking = asyncio.ensure_future(made.worker.ask(m.Authorize(session)))
            await made.reporter.until(lambda: bool(made.reporter.of(SessionOpened)))
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.close()
            await _turns()
            assert not asking.done()
            made.reporter.confirms = True
            made.wire_reporter()
            assert isinstance(await asking, m.Authorized)
            assert len(made.reporter.of(SessionOpened)) == 2

    run_async(main())


def test_openings_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At OPENINGS_MAX (lowered) one more is refused at once, and is not recorded."""
    monkeypatch.setattr(recording, "OPENINGS_MAX", 2)

    async def main() -> None:
        async with host(tmp_path) as made:
            run_id, first = await _session(made)
            address = made.synthetic["api.example.com"][0]
            made.reporter.confirms = False
            asking = [
                asyncio.ensure_future(made.worker.ask(m.Authorize(one)))
                for one in (first, made.session(run_id, address))
            ]
            await made.reporter.until(lambda: len(made.reporter.of(SessionOpened)) == 2)
            refused = await made.worker.ask(m.Authorize(made.session(run_id, address)))
            assert isinstance(refused, m.Failed)
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.notify(m.Durable(made.reporter.numbers[-1]))
            assert [type(await one) for one in asking] == [m.Authorized] * 2
            made.reporter.confirms = True
            again = await made.worker.ask(m.Authorize(made.session(run_id, address)))
            assert isinstance(again, m.Authorized)
            assert made.reporter.of(SessionClosed) == []

    run_async(main())


def test_a_worker_that_died_meanwhile_leaves_no_open_session(tmp_path: Path) -> None:
    """Replaced while its session was recorded: the broker closes what nobody else can."""

    async def main() -> None:
        async with host(tmp_path) as made:
            _, session = await _session(made)
            made.reporter.confirms = False
            assert made.worker.endpoint is not None
            asking = asyncio.ensure_future(made.worker.ask(m.Authorize(session)))
            await made.reporter.until(lambda: bool(made.reporter.of(SessionOpened)))
            made.worker.endpoint.close()
            made.wire_worker()
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.notify(m.Durable(made.reporter.numbers[-1]))
            await made.reporter.until(lambda: bool(made.reporter.of(SessionClosed)))
            [closed] = made.reporter.of(SessionClosed)
            assert closed.session_id == session
            with pytest.raises(PeerGone):
                await asking

    run_async(main())


def test_a_confirmation_without_a_flush_is_none_for_what_asked_for_one(tmp_path: Path) -> None:
    """An opening is confirmed as written: what was sent before for the disk still waits."""

    async def main() -> None:
        async with host(tmp_path) as made:
            _, session = await _session(made)
            recorder = made.broker.parts.recorder
            made.reporter.confirms = False
            number = recorder.note(SessionClosed(session, Reason.DONE, 0, 0, 0, 0))
            asking = asyncio.ensure_future(made.worker.ask(m.Authorize(session)))
            await made.reporter.until(lambda: bool(made.reporter.of(SessionOpened)))
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.notify(m.Durable(made.reporter.numbers[-1]))
            assert isinstance(await asking, m.Authorized)
            assert list(recorder._unconfirmed) == [number]
            made.reporter.endpoint.notify(m.Durable(number))
            made.reporter.confirms = True
            await recorder.record(SessionClosed(session, Reason.DONE, 0, 0, 0, 0))
            assert not recorder._unconfirmed

    run_async(main())


@pytest.mark.parametrize("extra", [0, 1])
def test_long_arguments_are_left_out_of_the_record(tmp_path: Path, extra: int) -> None:
    """At EVENT_BYTES_MAX all is recorded; one byte more, and processes are without arguments."""

    async def main() -> None:
        async with host(tmp_path) as made:
            _, session = await _session(made)
            await made.worker.ask(m.Authorize(session))
            [opened] = made.reporter.of(SessionOpened)
        large = dataclasses.replace(PROCESS, argv=("curl", "x" * 40_000))
        event = _with(opened, large)
        missing = EVENT_BYTES_MAX - len(pack_event(event)[1])
        event = _with(
            opened, dataclasses.replace(large, argv=("curl", "x" * (40_000 + missing + extra)))
        )
        assert len(pack_event(event)[1]) == EVENT_BYTES_MAX + extra < FRAME_BYTES_MAX
        kept = fitting(event).attribution.process
        assert (kept == event.attribution.process) is (extra == 0)
        assert kept.argv[0] == "curl"
        assert kept.argv_truncated is (extra == 1)

    run_async(main())


def _with(opened: SessionOpened, process: Process) -> SessionOpened:
    attribution = dataclasses.replace(opened.attribution, process=process)
    return dataclasses.replace(opened, attribution=attribution)
