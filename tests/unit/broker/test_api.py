"""The control API: identity from the kernel, a closed language, bounds, no leaks to others."""

import asyncio
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.broker import control as c
from agent.broker import loops, server
from agent.broker.api import RUNS_OPEN_MAX
from agent.broker.loops import PATH_BYTES_MAX
from agent.ipc import messages as m
from agent.model.flow import Tier
from agent.model.reason import Reason
from tests.unit.broker.harness import Caller, Host, expect, host, run_async

NOBODY = pwd.getpwnam("nobody").pw_uid


def test_loops_shows_runs_trees_sessions_and_leases(tmp_path: Path) -> None:
    """One row of views, closed by End."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            opened = await expect(caller.ask(c.StartRun("nightly", ("x",), "")), c.RunOpened)
            session = made.session(opened.run_id, made.synthetic["api.example.com"][0])
            await made.worker.ask(m.Authorize(session))
            await made.worker.ask(m.TakeLease(session))
            asked = made.caller()
            rows = [await asked.ask(c.ListLoops())]
            while not isinstance(rows[-1], c.End):
                rows.append(await asked.reply())
            kinds = [type(row) for row in rows]
            assert kinds == [c.RunView, c.ProcessView, c.SessionView, c.LeaseView, c.End]
            assert isinstance(rows[2], c.SessionView)
            assert rows[2].target == "api"
            assert b"canary" not in b"".join(map(c.encode, rows))

    run_async(main())


def test_status_and_doctor(tmp_path: Path) -> None:
    """Counts, the policy's revision, the reporter's state, the kernel's layers."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)
            view = await expect(caller.ask(c.GetStatus()), c.StatusView)
            assert (view.runs, view.loops, view.targets, view.accepting) == (1, 2, 2, True)
            assert view.workers == ("proxy@0",)
            assert view.reporter is not None
            assert view.counters["denied"] == 3
            probed = await expect(caller.ask(c.Diagnose()), c.DiagnosisView)
            assert probed.layers[0].name == "egress guard"

    run_async(main())


def test_a_cgroup_is_registered_and_unregistered(tmp_path: Path) -> None:
    """By path or id; a launched run is not unregistered."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            opened = await expect(caller.ask(c.RegisterLoop("nightly", "/x.service")), c.RunOpened)
            assert made.kernel.runs[opened.run_id].tier is Tier.REGISTERED
            await expect(caller.ask(c.Unregister("x.service")), c.Accepted)
            assert not made.kernel.runs
            launched = await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)
            refused = await expect(caller.ask(c.Unregister(launched.run_id)), c.Refused)
            assert "launched" in refused.detail

    run_async(main())


@pytest.mark.parametrize("adopts", [True, False])
def test_the_policy_says_whether_joiners_are_adopted(tmp_path: Path, *, adopts: bool) -> None:
    """Of a registered cgroup: kernel is told what the loop's policy says; by default it is no."""
    policy = "targets: {}\nloops:\n  theirs:\n    rules: []\n"
    policy += "    adopt_joiners: true\n" if adopts else ""

    async def main() -> None:
        async with host(tmp_path, policy) as made:
            request = c.RegisterLoop("theirs", "/x.service")
            opened = await expect(made.caller().ask(request), c.RunOpened)
            assert made.kernel.runs[opened.run_id].adopt_joiners is adopts

    run_async(main())


def test_revoke_cuts_and_kills(tmp_path: Path) -> None:
    """The workers cut at once, kernel ends the processes, new sessions are refused."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            opened = await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)
            await expect(caller.ask(c.Revoke(opened.run_id)), c.Accepted)
            assert made.kernel.killed == [opened.run_id]
            cut = await made.worker.until_notice(m.CutRun)
            assert cut.reason is Reason.RUN_REVOKED
            session = made.session(opened.run_id, made.synthetic["api.example.com"][0])
            answer = await made.worker.ask(m.Authorize(session))
            assert isinstance(answer, m.Authorized)
            assert answer.reason is Reason.RUN_REVOKED
            await expect(caller.reply(), c.End)
            refused = await expect(caller.ask(c.Revoke("01JD0000000000000000000000")), c.Refused)
            assert refused.reason is Reason.RUN_UNKNOWN

    run_async(main())


def test_another_connection_can_not_admit(tmp_path: Path) -> None:
    """Only the connection that made a run may bring its first process."""

    async def main() -> None:
        async with host(tmp_path) as made:
            opened = await expect(made.caller().ask(c.StartRun("nightly", (), "")), c.RunOpened)
            other = made.caller()  # which has one of its own: before, it may send no descriptor
            await expect(other.ask(c.StartRun("nightly", (), "")), c.RunOpened)
            pidfd = os.pidfd_open(os.getpid())
            refused = await other.ask(c.AdmitRun(opened.run_id), pidfd)
            os.close(pidfd)
            assert isinstance(refused, c.Refused)
            assert not made.kernel.admitted

    run_async(main())


def test_what_is_no_pidfd_is_not_taken(tmp_path: Path) -> None:
    """Refused, closed and hung up on, alone or beside one; kernel is not asked."""

    async def main() -> None:
        async with host(tmp_path) as made:
            for extra in (0, 1, 252):
                caller = made.caller()
                opened = await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)
                fds = [os.open("/dev/null", os.O_RDONLY)]
                fds += [os.pidfd_open(os.getpid()) for _ in range(extra)]
                refused = await caller.ask(c.AdmitRun(opened.run_id), *fds)
                for fd in fds:
                    os.close(fd)
                assert isinstance(refused, c.Refused)
                assert "pidfd" in refused.detail
                with pytest.raises(ConnectionError):
                    await caller.ask(c.GetStatus())
            assert not made.kernel.admitted

    run_async(main())


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that other users can reach."""
    with tempfile.TemporaryDirectory(prefix="lw-broker-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


AS_NOBODY = """
import os, socket, sys
os.setgid({gid}); os.setuid({uid})
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
for frame in sys.argv[2:]:
    if frame:
        sock.send(bytes.fromhex(frame))
    sys.stdout.write(sock.recv(65536).hex() + "\\n")
"""


async def _as_nobody(made: Host, *requests: c.Request) -> list[c.Reply]:
    """Ask as an unprivileged user, from a process of its own; ask nothing: wait to be told."""
    entry = pwd.getpwnam("nobody")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        AS_NOBODY.format(uid=entry.pw_uid, gid=entry.pw_gid),
        str(made.config.control_socket),
        *([c.encode(request).hex() for request in requests] or [""]),
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return [c.decode_reply(bytes.fromhex(line)) for line in out.decode().split()]


def test_an_unprivileged_caller_gets_what_the_policy_gives(public_path: Path) -> None:
    """Not a loop of others, not root's requests, not another's runs."""

    async def main() -> None:
        async with host(public_path) as made:
            mine = await expect(made.caller().ask(c.StartRun("nightly", (), "")), c.RunOpened)
            replies = await _as_nobody(
                made,
                c.StartRun("nightly", (), ""),
                c.StartRun("nightly", (), "root"),
                c.RegisterLoop("nightly", "/x"),
                c.ReloadPolicy(),
                c.Diagnose(),
                c.ProbeCredentials(),
                c.Revoke(mine.run_id),
                c.ListLoops(),
                c.GetStatus(),
            )
            assert [type(reply) for reply in replies] == [c.Refused] * 7 + [c.End, c.StatusView]
            first = replies[0]
            assert isinstance(first, c.Refused)
            assert "nobody may not start loop nightly" in first.detail
            assert list(made.kernel.runs) == [mine.run_id]

    run_async(main())


def test_a_user_of_the_policy_may_start(public_path: Path) -> None:
    """By uid, name or group; the initiator is who the kernel says."""
    text = """
targets: {{}}
loops:
  by-uid: {{who: [{{uid: NOBODY}}], rules: []}}
  by-name: {{who: [{{user: no-such-user}}, {{user: nobody}}], rules: []}}
  by-group: {{who: [{{group: no-such-group}}, {{group: nogroup}}], rules: []}}
  by-nobody: {{who: [], rules: []}}
"""
    policy = text.replace("NOBODY", str(NOBODY))

    async def main() -> None:
        async with host(public_path, policy) as made:
            names = ("by-uid", "by-name", "by-group", "by-nobody")
            replies = await _as_nobody(made, *(c.StartRun(name, (), "") for name in names))
            assert [type(reply) for reply in replies] == [c.RunOpened] * 3 + [c.Refused]
            initiators = {call.initiator.user for call in made.kernel.calls
                          if isinstance(call, m.CreateRun)}  # fmt: skip
            assert initiators == {"nobody"}

    run_async(main())


# a request whose loop name is not UTF-8
NO_TEXT = c.encode(c.StartRun("nightly", (), "")).replace(b"nightly", b"night\xff\xff")

# lists in lists, where msgspec gives up with RecursionError
TOO_DEEP = b"\x92" + msgspec.msgpack.encode("GetStatus") + b"\x91" * 60_000


@pytest.mark.parametrize(
    "frame", [b"\xc0", b"x" * 100, msgspec.msgpack.encode(["Nonsense", 1]), NO_TEXT, TOO_DEEP]
)
def test_another_language_is_refused_and_hung_up(tmp_path: Path, frame: bytes) -> None:
    """With words for a person, then the end."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            caller.send(frame)
            refused = await expect(caller.reply(), c.Refused)
            assert "differ in version" in refused.detail
            with pytest.raises(ConnectionError):
                await caller.reply()

    run_async(main())


def test_a_frame_has_a_size(tmp_path: Path) -> None:
    """At 64 KiB it is read (and is no request), one byte more ends the connection unread."""

    async def main() -> None:
        async with host(tmp_path) as made:
            for size, kind in ((c.FRAME_BYTES_MAX, c.Refused), (c.FRAME_BYTES_MAX + 1, None)):
                caller = made.caller()
                caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                caller.send(b"\x01" * size)
                if kind is not None:
                    await expect(caller.reply(), kind)
                else:
                    with pytest.raises(ConnectionError):
                        await caller.reply()

    run_async(main())


def test_a_second_request_before_the_answer_ends_the_connection(tmp_path: Path) -> None:
    """One at a time: nobody can queue work."""

    async def main() -> None:
        async with host(tmp_path) as made:
            made.reporter.confirms = False
            caller = made.caller()
            caller.send(c.encode(c.StartRun("nightly", (), "")))
            caller.send(c.encode(c.GetStatus()))
            with pytest.raises(ConnectionError):
                await caller.reply()

    run_async(main())


@pytest.mark.parametrize("limit", ["CONNECTIONS_MAX", "CONNECTIONS_A_USER_MAX"])
def test_connections_are_bounded_but_roots(
    public_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """At the limit a caller is served, one past it is told to come back; root always is served."""

    async def main() -> None:
        async with host(public_path) as made:
            held = [made.caller() for _ in range(2)]
            for caller in held:
                await expect(caller.ask(c.GetStatus()), c.StatusView)
            others = 0 if limit == "CONNECTIONS_A_USER_MAX" else 2
            monkeypatch.setattr(server, limit, others + 1)
            [reply] = await _as_nobody(made, c.GetStatus())
            assert isinstance(reply, c.StatusView)
            monkeypatch.setattr(server, limit, others)
            [refused] = await _as_nobody(made)
            assert isinstance(refused, c.Refused)
            assert refused.reason is Reason.OVERLOADED
            await expect(made.caller().ask(c.GetStatus()), c.StatusView)

    run_async(main())


def test_a_connection_opens_few_runs_at_a_time(tmp_path: Path) -> None:
    """Runs without a process cost kernel memory: four of a connection, then it must admit one."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            for _ in range(RUNS_OPEN_MAX):
                await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)
            refused = await expect(caller.ask(c.StartRun("nightly", (), "")), c.Refused)
            assert refused.reason is Reason.LIMIT_EXCEEDED
            assert len(made.kernel.runs) == RUNS_OPEN_MAX

    run_async(main())


def test_one_user_can_not_use_up_all_runs(
    public_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the user's limit a run starts, one past it is refused; root's still start."""
    monkeypatch.setattr(loops, "RUNS_A_USER_MAX", 2)
    policy = "targets: {{}}\nloops:\n  job: {{who: [{{user: nobody}}], rules: []}}\n"

    async def main() -> None:
        async with host(public_path, policy) as made:
            replies = await _as_nobody(made, *[c.StartRun("job", (), "")] * 3)
            assert [type(reply) for reply in replies] == [c.RunOpened] * 2 + [c.Refused]
            caller = made.caller()
            for _ in range(3):
                await expect(caller.ask(c.StartRun("job", (), "")), c.RunOpened)

    run_async(main())


def test_a_request_that_is_too_much_is_answered(tmp_path: Path) -> None:
    """Arguments that fill a frame are recorded in part; a path that does is refused, no hang."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            argv = ("token=a " * 125,) * 60
            await expect(caller.ask(c.StartRun("nightly", argv, "")), c.RunOpened)
            longest = "/" + "x" * (PATH_BYTES_MAX - 1)
            await expect(caller.ask(c.RegisterLoop("nightly", longest)), c.RunOpened)
            refused = await caller.ask(c.RegisterLoop("nightly", longest + "x"))
            assert isinstance(refused, c.Refused)
            assert refused.reason is Reason.LIMIT_EXCEEDED

    run_async(main())


def _of_the_dead(path: Path) -> Caller:
    """Return a connection whose process is gone, and reaped, before anybody accepts it."""
    mine, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(path))
        socket.send_fds(theirs, [b"x"], [sock.fileno()])
        os._exit(0)
    os.waitpid(pid, 0)
    _, [fd], _, _ = socket.recv_fds(mine, 1, 1)
    mine.close()
    theirs.close()
    caller = Caller.__new__(Caller)
    caller.sock = socket.socket(fileno=fd)
    caller.sock.setblocking(False)
    return caller


def test_who_can_not_be_placed_changes_nothing(tmp_path: Path) -> None:
    """A run's process that connects, hands the socket on and ends could be told from nobody's."""

    async def main() -> None:
        async with host(tmp_path) as made:
            opened = await expect(made.caller().ask(c.StartRun("nightly", (), "")), c.RunOpened)
            for request in (c.StartRun("nightly", (), ""), c.Revoke(opened.run_id, False)):
                caller = _of_the_dead(made.config.control_socket)
                refused = await expect(caller.ask(request), c.Refused)
                assert refused.reason is Reason.POLICY_DENIED
                assert "the process that connected is gone" in refused.detail
                caller.close()
            assert list(made.kernel.runs) == [opened.run_id]
            caller = _of_the_dead(made.config.control_socket)
            await expect(caller.ask(c.GetStatus()), c.StatusView)
            caller.close()

    run_async(main())


def test_a_run_is_not_rotated(tmp_path: Path) -> None:
    """Whoever means to rotate its leases must not end it."""

    async def main() -> None:
        async with host(tmp_path) as made:
            caller = made.caller()
            opened = await expect(caller.ask(c.StartRun("nightly", (), "")), c.RunOpened)
            refused = await expect(made.caller().ask(c.Revoke(opened.run_id, True)), c.Refused)
            assert "one lease is rotated, a run is not" in refused.detail
            assert made.broker.parts.loops.live[opened.run_id].ended_because is Reason.RUN_ENDED
            assert not made.kernel.killed

    run_async(main())


def test_a_failure_of_ours_is_answered_and_hung_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one request: its caller is told, others are served."""

    async def main() -> None:
        async with host(tmp_path) as made:

            def fail() -> tuple[str, ...]:
                raise ZeroDivisionError

            assert made.broker._server is not None
            api = getattr(made.broker._server.answer, "__self__", None)
            monkeypatch.setattr(api, "_reload_policy", fail)
            caller = made.caller()
            refused = await expect(caller.ask(c.ReloadPolicy()), c.Refused)
            assert refused.reason is Reason.INTERNAL
            with pytest.raises(ConnectionError):
                await caller.reply()
            await expect(made.caller().ask(c.GetStatus()), c.StatusView)

    run_async(main())
