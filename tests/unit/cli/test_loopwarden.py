"""The other commands, as a person and as a program use them."""

import json
import os
import socket
from pathlib import Path

import pytest

from agent.broker import control as c
from agent.cli import client
from agent.cli.loopwarden import main as loopwarden
from agent.ipc import messages as m
from tests.unit.broker.harness import expect, run_async
from tests.unit.cli.launcher import cli, daemon


def test_loops_for_people_and_programs() -> None:
    """Who started it, its processes, sessions and leases."""

    async def main() -> None:
        async with daemon() as made:
            assert (await cli(made, "loops")).out == "no live runs\n"
            caller = made.caller()
            opened = await expect(caller.ask(c.StartRun("job", ("make", "x"), "")), c.RunOpened)
            session = made.session(opened.run_id, made.synthetic["api.example.com"][0])
            await made.worker.ask(m.Authorize(session))
            text = (await cli(made, "loops")).out
            for words in (opened.run_id, "command make x", "4242 curl https://api", session, "api"):
                assert words in text
            [tree] = json.loads((await cli(made, "loops", "--json")).out)
            assert tree["run"]["run_id"] == opened.run_id
            assert tree["run"]["initiator"]["uid"] == os.getuid()
            assert tree["processes"][0]["process"]["pid"] == 4242
            assert tree["sessions"][0]["target"] == "api"
            assert tree["leases"] == []

    run_async(main())


def test_status_shows_what_is_wrong() -> None:
    """A rejected policy, why the collector is away, a missing reporter; JSON has the same."""

    async def main() -> None:
        async with daemon() as made:
            good = await cli(made, "status")
            assert "accepts runs" in good.out
            assert "egress guard" in good.out
            assert "4 at the collector (collector:1, not connected)" in good.out
            made.reporter.uplink = "unavailable: nobody\x1b answers"
            away = await cli(made, "status")
            assert "          unavailable: nobody\\x1b answers\n" in away.out
            made.write("loops: 5", "bad.yaml")
            refused = await cli(made, "policy", "reload")
            assert refused.code == 125
            assert "bad.yaml:1:8: loops must be a mapping" in refused.err
            assert made.reporter.endpoint is not None
            made.reporter.endpoint.close()
            bad = await cli(made, "status")
            for words in ("REFUSES RUNS", "REJECTED", "bad.yaml", "does NOT answer"):
                assert words in bad.out
            view = json.loads((await cli(made, "status", "--json")).out)
            assert view["accepting"] is False
            assert view["reporter"] is None

    run_async(main())


def test_doctor_fails_when_a_claimed_layer_is_absent() -> None:
    """1 then, with its name; 0 when all hold, also when an unclaimed one is absent."""

    async def main() -> None:
        async with daemon() as made:
            layers = [m.Layer("a", True, True, ""), m.Layer("b", False, False, "no kernel")]
            made.kernel.layers = tuple(layers)
            assert (await cli(made, "doctor")).code == 0
            made.kernel.layers = (*layers, m.Layer("c", True, False, "gone"))
            ended = await cli(made, "doctor")
            assert ended.code == 1
            assert "1 claimed layers are ABSENT" in ended.out
            view = json.loads((await cli(made, "doctor", "--json")).out)
            assert view["ok"] is False
            assert view["layers"][2] == {
                "name": "c", "claimed": True, "present": False, "detail": "gone",
            }  # fmt: skip

    run_async(main())


CREDENTIALS = """
targets:
  good: {{protocol: http, address: https://a.example, credential: {{{static}, file: {file}}}}}
  open: {{protocol: http, address: https://b.example}}
  gone: {{protocol: http, address: https://c.example, credential: {{{static}, file: {file}.not}}}}
"""


def test_doctor_asks_the_providers_when_it_is_told_to(tmp_path: Path) -> None:
    """Each credential by its target: that it could be issued, or why not; 1 if one could not."""
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("s3cr3t-canary")

    async def main() -> None:
        static = "provider: static, shape: bearer"
        async with daemon(CREDENTIALS.format(static=static, file=file)) as made:
            ended = await cli(made, "doctor", "--credentials")
            assert ended.code == 1
            assert "credential of good           static         could be issued\n" in ended.out
            assert f"credential of gone           static         FAILS: {file}.not" in ended.out
            assert "open" not in ended.out
            view = json.loads((await cli(made, "doctor", "--credentials", "--json")).out)
            assert view["ok"] is False
            assert [(row["target"], row["problem"] == "") for row in view["credentials"]] == [
                ("good", True),
                ("gone", False),
            ]
            assert "s3cr3t" not in ended.out + ended.err + json.dumps(view)
            assert len(made.broker.parts.leases) == 0

    run_async(main())


def test_register_unregister_and_revoke() -> None:
    """register prints the run's id; paths may be written in full."""

    async def main() -> None:
        async with daemon() as made:
            ended = await cli(made, "register", "--loop", "job", "--cgroup", "/a.slice/b.service/")
            run_id = ended.out.strip()
            [run] = made.kernel.runs.values()
            assert (run.run_id, run.cgroup_path) == (run_id, "/a.slice/b.service")
            assert (await cli(made, "unregister", "/a.slice/b.service")).code == 0
            assert not made.kernel.runs
            again = await cli(made, "unregister", run_id)
            assert again.code == 125
            assert "no live run" in again.err
            opened = await expect(made.caller().ask(c.StartRun("job", (), "")), c.RunOpened)
            assert "is revoked" in (await cli(made, "revoke", opened.run_id)).out

    run_async(main())


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["policy", "--help"], ["policy", "explain", "--help"],
     ["loops", "--help"], ["--version"]],
)  # fmt: skip
def test_help_is_there(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a daemon, a configuration or root."""
    with pytest.raises(SystemExit) as ended:
        loopwarden(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out


def test_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """In the help."""
    with pytest.raises(SystemExit):
        loopwarden(["--help"])
    text = capsys.readouterr().out
    assert all(code in text for code in ("125", "126", "127"))


def test_a_command_without_its_dashes_is_told_where_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its own options are no options of `run`."""
    with pytest.raises(SystemExit) as ended:
        loopwarden(["run", "--loop", "job", "curl", "-s", "https://a.example"])
    assert ended.value.code == 2
    assert "-s https://a.example (the command and its options stand behind --)" in (
        capsys.readouterr().err
    )


def test_words_behind_dashes_are_not_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """Only `run` has a command there; elsewhere they are words that begin with a dash."""
    for words in (["status", "--", "foo"], ["leases", "--", "--json"]):
        with pytest.raises(SystemExit) as ended:
            loopwarden(words)
        assert ended.value.code == 2
        assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize("backlog", [0, 8])
def test_a_daemon_that_hangs_is_not_waited_for_for_ever(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    backlog: int,
) -> None:
    """It neither accepts nor answers: the command ends with what to look at."""
    monkeypatch.setattr(client, "ANSWER_S", 1)
    path = tmp_path / "control.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first,
    ):
        listening.bind(str(path))
        listening.listen(backlog)
        first.connect(str(path))  # a backlog of 0 has room for this one
        assert loopwarden(["--socket", str(path), "status"]) == 125
    assert "the daemon does not answer within" in capsys.readouterr().err
