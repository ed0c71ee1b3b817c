"""`loopwarden run` is transparent: exit codes, signals, streams and terminal are the command's."""

import fcntl
import os
import shlex
import signal
import socket
import struct
import sys
import termios
from pathlib import Path

import pytest

from agent.broker import control as c
from agent.ipc import messages as m
from agent.model.audit import RunStarted
from tests.unit.broker.harness import run_async
from tests.unit.cli.launcher import ROOT, cli, command, daemon, finish, run_words, start
from tests.unit.cli.terminal import Terminal

TIOCGPTN = 0x80045430  # Linux uapi asm-generic/ioctls.h: the number of a pseudo-terminal


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["sh", "-c", "kill -SEGV $$"], -signal.SIGSEGV),
        (["/nonexistent/command"], 127),
        (["no-such-command-anywhere"], 127),
        (["/etc/hostname"], 126),
        (["/"], 126),
    ],
)
def test_the_exit_is_the_commands(words: list[str], code: int) -> None:
    """A code is a code, a signal is a signal; 126 and 127 as env(1)."""

    async def main() -> None:
        async with daemon() as made:
            ended = await cli(made, *run_words(*words))
            assert ended.code == code, ended.err
            assert bool(ended.err) == (code in {126, 127})
            assert len(made.kernel.admitted) == 1

    run_async(main())


def test_streams_are_the_commands() -> None:
    """Every byte of stdin, stdout and stderr, in a pipe."""
    data = os.urandom(300_000).hex().encode()

    async def main() -> None:
        async with daemon() as made:
            line = command(made, *run_words("sh", "-c", "cat; echo err >&2"))
            ended = await finish(await start(line, stdin=-1), data)
            assert (ended.code, ended.out.encode(), ended.err) == (0, data, "err\n")

    run_async(main())


def test_arguments_are_not_touched() -> None:
    """Options, a second `--` and odd characters reach the command; the record is redacted."""

    async def main() -> None:
        async with daemon() as made:
            odd = ["--loop", "x", "--", "a b", "ü\n", "", "--password=hunter2"]
            ended = await cli(made, *run_words("printf", "%s|", *odd))
            assert ended.out == "".join(f"{word}|" for word in odd)
            [started] = made.reporter.of(RunStarted)
            assert started.run.argv[:2] == ("printf", "%s|")
            assert "hunter2" not in repr(started)

    run_async(main())


TRAP = "trap 'echo got; exit 7' {name}; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("name", ["TERM", "HUP", "USR1", "USR2", "INT", "QUIT", "WINCH", "ALRM"])
def test_a_signal_sent_to_us_reaches_the_command(name: str) -> None:
    """By kill(1) to the CLI's pid alone."""

    async def main() -> None:
        async with daemon() as made:
            script = TRAP.format(name=name)
            process = await start(command(made, *run_words("bash", "-c", script)))
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            process.send_signal(signal.Signals[f"SIG{name}"])
            ended = await finish(process)
            assert (ended.code, ended.out) == (7, "got\n")

    run_async(main())


def test_a_signal_that_ends_the_command_ends_us_alike() -> None:
    """SIGTERM to the CLI, no trap: both die of SIGTERM."""

    async def main() -> None:
        async with daemon() as made:
            line = command(made, *run_words("sh", "-c", "echo $$; exec sleep 60"))
            process = await start(line)
            assert process.stdout is not None
            pid = int(await process.stdout.readline())
            process.terminate()
            assert (await finish(process)).code == -signal.SIGTERM
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    run_async(main())


COUNT = (
    "trap 'echo CONT' CONT; n=0; "
    "trap 'n=$((n+1)); echo INT $n' INT; trap 'echo count=$n; exit 5' TERM; echo ready; "
    "while :; do sleep 0.05; done"
)


def test_an_interrupt_of_the_terminal_arrives_once() -> None:
    """^C goes to the whole group: the command has it, and we do not send it again."""

    async def main() -> None:
        async with daemon() as made:
            terminal = Terminal(command(made, *run_words("bash", "-c", COUNT)), ROOT)
            await terminal.until(b"ready")
            terminal.type(b"\x03")
            await terminal.until(b"INT 1")
            os.kill(terminal.pid, signal.SIGTERM)  # taken after any copy of the interrupt
            await terminal.until(b"count=1")
            assert await terminal.ended() == 5

    run_async(main())


def test_job_control_sees_one_job() -> None:
    """^Z stops command and CLI, fg and bg go on; the shell's `wait` has the command's code."""

    async def main() -> None:
        async with daemon() as made:
            # a session leader's orphaned group ignores ^Z: a shell with job control is between
            line = shlex.join(command(made, *run_words("bash", "-c", COUNT)))
            terminal = Terminal(["/bin/bash", "--norc", "-i"], ROOT)
            terminal.type(f"stty -echo; PS1='>'; {line}\n".encode())
            await terminal.until(b"ready\r\n")
            terminal.type(b"\x1a")
            await terminal.until(b"Stopped")
            terminal.type(b"fg\n")
            await terminal.until(b"CONT\r\n")
            terminal.type(b"\x03")
            await terminal.until(b"INT 1")
            terminal.type(b"\x1a")
            await terminal.until(b"Stopped")
            terminal.type(b"bg\n")
            await terminal.until(b"CONT\r\n")
            terminal.type(b"kill -TERM %1; wait %1; echo code=$?\n")
            await terminal.until(b"count=1")
            await terminal.until(b"code=5")
            terminal.type(b"exit\n")
            assert await terminal.ended() == 0

    run_async(main())


def test_the_terminal_is_the_commands() -> None:
    """It has the terminal itself, with its size; the record says which terminal it was."""

    async def main() -> None:
        async with daemon() as made:
            words = run_words("sh", "-c", "tty; stty size")
            terminal = Terminal(command(made, *words), ROOT)
            termios.tcsetwinsize(terminal.fd, (33, 77))
            number = struct.unpack("I", fcntl.ioctl(terminal.fd, TIOCGPTN, bytes(4)))[0]
            await terminal.until(f"/dev/pts/{number}\r\n".encode())
            await terminal.until(b"33 77")
            assert await terminal.ended() == 0
            [started] = made.reporter.of(RunStarted)
            assert started.run.initiator.tty == f"pts/{number}"

    run_async(main())


def test_without_a_daemon_there_is_one_clear_line(tmp_path: Path) -> None:
    """125, cause and next step; no traceback."""

    async def main() -> None:
        async with daemon() as made:
            line = command(made, *run_words("true"))
            line[line.index("--socket") + 1] = str(tmp_path / "none")
            ended = await finish(await start(line))
            assert ended.code == 125
            assert ended.err.count("\n") == 1
            assert "systemctl start loopwarden" in ended.err

    run_async(main())


@pytest.mark.parametrize("refusal", [m.CreateRun, m.Admit])
def test_a_refusal_starts_nothing(tmp_path: Path, refusal: type[m.Message]) -> None:
    """The command never runs; 125 with the cause."""

    async def main() -> None:
        async with daemon() as made:
            made.kernel.refuse[refusal] = "no slot in the map"
            ended = await cli(made, *run_words("touch", str(tmp_path / "ran")))
            assert ended.code == 125
            assert "no slot in the map" in ended.err
            assert not (tmp_path / "ran").exists()
            await made.kernel.until(lambda: not made.kernel.runs)

    run_async(main())


def test_a_cli_killed_before_admission_starts_nothing(tmp_path: Path) -> None:
    """SIGKILL while the daemon has not answered: the waiting child leaves without running."""

    async def main() -> None:
        async with daemon() as made:
            made.reporter.confirms = False
            line = command(made, *run_words("touch", str(tmp_path / "ran")))
            process = await start(line)
            await made.reporter.until(lambda: bool(made.reporter.of(RunStarted)))
            process.kill()
            ended = await finish(process)  # the pipes' end: no process of it is left
            assert ended.code == -signal.SIGKILL
            assert not (tmp_path / "ran").exists()

    run_async(main())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_network_socket_as_a_stream_is_refused(family: socket.AddressFamily) -> None:
    """It was made outside the run: no hook would see its bytes."""

    async def main() -> None:
        async with daemon() as made:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                ended = await cli(made, *run_words("true"), stdin=sock.fileno())
            assert ended.code == 125
            assert "descriptor 0 is a network socket" in ended.err
            assert not made.kernel.runs

    run_async(main())


def test_other_descriptors_are_closed() -> None:
    """A socket that the caller left open does not get into the run."""

    async def main() -> None:
        async with daemon() as made:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                os.set_inheritable(sock.fileno(), True)
                listed = ["sh", "-c", "ls -l /proc/self/fd"]
                ended = await cli(made, *run_words(*listed), pass_fds=(sock.fileno(),))
            assert ended.code == 0
            assert "socket:" not in ended.out

    run_async(main())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--loop", "job"], "no command"),
        (["run", "--loop", "none", "--", "true"], "the policy has no loop 'none'"),
        (["run", "--loop", "job", "--user", "no-such", "--", "true"], "there is no user"),
    ],
)
def test_wrong_use_is_explained(words: list[str], said: str) -> None:
    """125 and what to do; no run is made."""

    async def main() -> None:
        async with daemon() as made:
            ended = await cli(made, *words)
            assert ended.code == 125
            assert said in ended.err
            assert not made.kernel.runs

    run_async(main())


def test_a_long_command_line_is_run_whole_and_recorded_in_part() -> None:
    """100 KB of arguments are no trouble for the request."""

    async def main() -> None:
        async with daemon() as made:
            words = run_words("sh", "-c", 'printf %s "$#"', "x", *["y" * 1000] * 100)
            ended = await cli(made, *words)
            assert (ended.code, ended.out) == (0, "100")
            [started] = made.reporter.of(RunStarted)
            assert started.run.argv[-1] == "…"
            assert sum(map(len, started.run.argv)) <= c.ARGV_BYTES_MAX

    run_async(main())


@pytest.mark.parametrize("family", [socket.AF_VSOCK, socket.AF_PACKET, socket.AF_NETLINK])
def test_a_socket_that_no_hook_sees_is_refused_as_a_stream(family: socket.AddressFamily) -> None:
    """Whatever is no unix socket leads past the hooks."""

    async def main() -> None:
        async with daemon() as made:
            kind = socket.SOCK_STREAM if family == socket.AF_VSOCK else socket.SOCK_RAW
            with socket.socket(family, kind) as sock:
                ended = await cli(made, *run_words("true"), stdin=sock.fileno())
            assert ended.code == 125
            assert "descriptor 0 is a network socket" in ended.err

    run_async(main())


def test_a_descriptor_above_the_limit_is_closed() -> None:
    """A limit that was lowered after opening says nothing of what is open."""

    async def main() -> None:
        async with daemon() as made:
            reader, writer = os.pipe()
            high = fcntl.fcntl(writer, fcntl.F_DUPFD, 900)
            lower = (
                "import os,resource,sys;resource.setrlimit(resource.RLIMIT_NOFILE,(256,256));"
                "os.execv(sys.argv[1],sys.argv[1:])"
            )
            line = command(made, *run_words("sh", "-c", "ls -l /proc/self/fd"))
            line = [sys.executable, "-c", lower, *line]
            ended = await finish(await start(line, pass_fds=(high,)))
            for fd in (reader, writer, high):
                os.close(fd)
            assert ended.code == 0, ended.err
            assert f"{high} ->" not in ended.out

    run_async(main())


def test_what_a_run_is_called_does_not_steer_the_terminal() -> None:
    """Escape codes and newlines in argv are shown, not obeyed, by `loops`."""

    async def main() -> None:
        async with daemon() as made:
            evil = "\x1b]0;owned\x07\x1b[2J\nfake run\r\x9b1m\u202e"
            words = run_words("sh", "-c", "exec sleep 30", evil)
            process = await start(command(made, *words))
            await made.kernel.until(lambda: bool(made.kernel.admitted))
            ended = await cli(made, "loops")
            process.terminate()
            await finish(process)
            assert "owned" in ended.out
            assert "\nfake" not in ended.out
            assert not set("\x1b\x07\r\x9b\u202e") & set(ended.out)

    run_async(main())
