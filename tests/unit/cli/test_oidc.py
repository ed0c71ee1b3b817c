"""Identity tokens on the command line: where from, who gets them, and who never does."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli import loopwarden, oidc, run
from agent.cli.client import Client, DeniedByPolicy
from agent.cli.launch import LaunchError
from agent.model.audit import Alarmed, RunStarted
from tests.servers.issuer import SUBJECT, Issuer, running_issuer
from tests.servers.scripted import Script, answering, scripted_server
from tests.unit.broker.harness import Host, run_async
from tests.unit.cli.launcher import Ended, cli, daemon

TOKEN = "aaaa.bbbb.cccc"
SYS_SETRESUID = {"x86_64": 117, "aarch64": 147}[os.uname().machine]
POLICY = """
targets: {}
issuers:
  ci: {url: "URL", ca: "CA"}
loops:
  deploy:
    who: [{issuer: ci, claims: {repository: acme/orders}}]
    rules: []
  local: {who: [{user: nobody}], rules: []}
"""


def _find(*words: str, **environment: str) -> str:
    arguments = loopwarden._parse(["run", "--loop", "x", *words, "--", "true"])
    return oidc.find(arguments, environment)


def test_sources_of_a_token(tmp_path: Path) -> None:
    """A file, a variable by its name, the usual variable, or none."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert _find("--oidc-token-file", str(file)) == TOKEN
    assert _find("--oidc-token-env", "CI_TOKEN", CI_TOKEN=f" {TOKEN}") == TOKEN
    assert _find(LOOPWARDEN_OIDC_TOKEN=TOKEN) == TOKEN
    assert _find("--oidc", "none", LOOPWARDEN_OIDC_TOKEN=TOKEN) == ""
    assert _find() == ""


def test_a_pods_projected_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pod mounts it: taken when it is there, needed when it is asked for."""
    monkeypatch.setattr(oidc, "KUBERNETES", tmp_path / "token")
    assert _find() == ""
    with pytest.raises(LaunchError, match="No such file"):
        _find("--oidc", "kubernetes")
    (tmp_path / "token").write_text(TOKEN)
    assert _find() == TOKEN
    assert _find("--oidc", "kubernetes") == TOKEN


def test_a_source_that_has_none_is_trouble(tmp_path: Path) -> None:
    """Asked for by name, it must give one; the words hold nothing of it."""
    for words, said in (
        (("--oidc-token-file", str(tmp_path / "x")), "No such file"),
        (("--oidc-token-file", "/dev/null"), "no regular file"),
        (("--oidc-token-file", str(tmp_path)), f"{tmp_path} is no regular file"),
        (("--oidc-token-env", "NOT_SET"), "NOT_SET holds none"),
        (("--oidc", "github"), "not a job of GitHub Actions"),
    ):
        with pytest.raises(LaunchError, match=said):
            _find(*words)
    long = tmp_path / "long"
    long.write_text("a" * oidc.TOKEN_BYTES_MAX)
    assert len(_find("--oidc-token-file", str(long))) == oidc.TOKEN_BYTES_MAX
    long.write_text("a" * (oidc.TOKEN_BYTES_MAX + 1))
    with pytest.raises(LaunchError, match="more than 16384 bytes"):
        _find("--oidc-token-file", str(long))


def test_what_happens_to_be_there_and_fails_is_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run goes on without; the broker decides by the local user."""
    found = _find(
        ACTIONS_ID_TOKEN_REQUEST_URL="https://127.0.0.1:1/", ACTIONS_ID_TOKEN_REQUEST_TOKEN="c4n4ry"
    )
    assert found == ""
    said = capsys.readouterr().err
    assert "warning: no identity token: 127.0.0.1:1" in said
    assert "c4n4ry" not in said


MACHINES = [
    ("google", "product_name", "Google Compute Engine\n", b"a.b.c", "Metadata-Flavor: Google"),
    ("azure", "chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n",
     b'{"access_token": "a.b.c"}', "X: y"),
]  # fmt: skip


def _answer(body: bytes, field: str) -> Script:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{field}\r\n\r\n"
    return answering(head.encode() + body)


@pytest.mark.parametrize(("cloud", "file", "said", "body", "field"), MACHINES)
def test_a_clouds_machine_has_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    cloud: str, file: str, said: str, body: bytes, field: str,
) -> None:  # fmt: skip
    """By its firmware; not where a source was named, nor on any other machine."""
    monkeypatch.setattr(oidc, "DMI", tmp_path)
    with scripted_server(_answer(body, field)) as server:
        environment = {
            "GCE_METADATA_HOST": f"127.0.0.1:{server.port}",
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{server.port}/token",
        }

        def ask(*words: str) -> str:
            line = ["run", "--loop", "x", *words, "--", "true"]
            return oidc.of_machine(loopwarden._parse(line), environment)

        assert ask() == ""
        (tmp_path / file).write_text("Standard PC (Q35 + ICH9, 2009)\n")
        assert ask() == ""
        (tmp_path / file).write_text(said)
        for words in (("--oidc", "none"), ("--oidc-token-env", "X"), ("--oidc", cloud)):
            assert ask(*words) == ""
        assert not server.conversations
        assert ask("--oidc-audience", "hosts") == "a.b.c"
        asked = server.received.decode()
    assert "=hosts" in asked


def test_a_machine_without_a_metadata_server_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal of the local user stands."""
    monkeypatch.setattr(oidc, "DMI", tmp_path)
    (tmp_path / "product_name").write_text("Google Compute Engine\n")
    arguments = loopwarden._parse(["run", "--loop", "x", "--", "true"])
    assert oidc.of_machine(arguments, {"GCE_METADATA_HOST": "127.0.0.1:1"}) == ""
    assert "warning: no identity token: 127.0.0.1:1" in capsys.readouterr().err


def test_a_refused_user_is_tried_as_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token first; the metadata server is asked where that is denied, and only there."""

    def start(made: Host, loop: str) -> str:
        """Ask as nobody, whom the policy lets start `local` alone."""
        arguments = loopwarden._parse(["run", "--loop", loop, "--", "true"])
        with Client(Path(made.config.control_socket)) as client:
            return run._open(client, arguments, ["true"], "")[1]

    async def main(issuer: Issuer) -> None:
        token = issuer.mint()
        answer = _answer(token.encode(), "Metadata-Flavor: Google")
        async with daemon(_policy(issuer)) as made:
            monkeypatch.setattr(oidc, "DMI", made.base)
            await asyncio.to_thread(_google, made.base)
            with scripted_server(answer) as server:
                monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.port}")
                assert await _as_nobody(start, made, "local") == ""
                assert not server.conversations
                assert await _as_nobody(start, made, "deploy") == token
                assert len(server.conversations) == 1
            _, started = made.reporter.of(RunStarted)
            assert started.run.initiator.token is not None
            assert started.run.initiator.token.subject == SUBJECT
            with pytest.raises(DeniedByPolicy, match="nobody may not start loop deploy"):
                await _as_nobody(start, made, "deploy")  # the server is gone

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def _google(folder: Path) -> None:
    (folder / "product_name").write_text("Google Compute Engine\n")


async def _as_nobody(start: Callable[[Host, str], str], made: Host, loop: str) -> str:
    """Call from a thread of its own whose effective user is nobody; the process stays root."""
    return await asyncio.to_thread(_switched, start, made, loop)


def _switched(start: Callable[[Host, str], str], made: Host, loop: str) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(SYS_SETRESUID, -1, 65534, -1) == 0  # of this thread alone
    try:
        return start(made, loop)
    finally:
        assert libc.syscall(SYS_SETRESUID, -1, 0, -1) == 0


def test_a_loop_gets_no_variable_with_a_token() -> None:
    """Neither the usual ones nor the named one, nor any that has the same text inside."""
    variables = dict.fromkeys(oidc.SECRET_VARIABLES, "x") | {
        "PATH": "/bin", "MINE": "y", "COPY": f"Bearer {TOKEN}", "LOOPWARDEN_RUN": "r",
    }  # fmt: skip
    left = oidc.without_tokens(variables, TOKEN, "MINE")
    assert left == {"PATH": "/bin", "LOOPWARDEN_RUN": "r"}
    assert oidc.without_tokens({"A": "b"}, "", None) == {"A": "b"}


def _policy(issuer: Issuer) -> str:
    return POLICY.replace("URL", issuer.url).replace("CA", str(issuer.ca))


NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}


async def _run(made: Host, token: str, *words: str, loop: str = "deploy", shell: str) -> Ended:
    environment = {"PATH": os.environ["PATH"], "LOOPWARDEN_OIDC_TOKEN": token}
    line = ["run", "--loop", loop, *words, "--", "sh", "-c", shell]
    return await cli(made, *line, env=environment, **NOBODY)


def test_a_token_lets_a_run_start_and_stays_behind(tmp_path: Path) -> None:
    """Matching claims: the record names issuer and subject. The loop can read it nowhere."""
    tmp_path.chmod(0o755)

    async def main(issuer: Issuer) -> None:
        async with daemon(_policy(issuer)) as made:
            token = issuer.mint()
            shell = "cat /proc/self/environ; cat /proc/$PPID/environ || echo closed"
            ended = await _run(made, token, shell=shell)
            assert ended.code == 0, ended.err
            assert "LOOPWARDEN_RUN=" in ended.out
            assert "closed" in ended.out
            assert "OIDC" not in ended.out
            assert token not in ended.out + ended.err
            [started] = made.reporter.of(RunStarted)
            identity = started.run.initiator.token
            assert identity is not None
            assert (identity.issuer, identity.subject) == (issuer.url, SUBJECT)
            assert identity.claims == (("repository", "acme/orders"),)
            assert started.run.initiator.user == "nobody"
            assert token not in repr(made.reporter.events)

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_every_bad_token_gets_the_same_answer(tmp_path: Path) -> None:
    """No run; the caller learns nothing of the cause, the operator's alarm names the check."""
    tmp_path.chmod(0o755)

    async def main(issuer: Issuer) -> None:
        async with daemon(_policy(issuer)) as made:
            used = issuer.mint()
            assert (await _run(made, used, shell="true")).code == 0
            bad = {
                "replayed": used,
                "claims": issuer.mint(repository="acme/evil"),
                "expired": issuer.mint(iat=1_700_000_000, nbf=1_700_000_000, exp=1_700_000_300),
                "audience": issuer.mint(aud="other"),
                "signature": issuer.mint()[:-8] + "AAAAAAAA",
                "form": "no token",
                "key-unknown": issuer.mint(header={"kid": "x"}),
                "issuer": issuer.mint(iss="https://evil.example"),
            }
            answers = set()
            for token in bad.values():
                ended = await _run(made, token, shell="true")
                assert ended.code == 125
                answers.add(ended.err.split("journal: ")[0])
            [answer] = answers
            assert answer.startswith("loopwarden: this token does not let you start loop deploy\n")
            alarms = [event.detail for event in made.reporter.of(Alarmed)]
            assert [detail.split(": ")[1] for detail in alarms] == list(bad)
            assert all("loop deploy, nobody (uid 65534" in detail for detail in alarms)
            assert not any(token in detail for token in bad.values() for detail in alarms)
            assert len(made.reporter.of(RunStarted)) == 1

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))


def test_a_token_counts_only_where_the_loop_names_an_issuer(tmp_path: Path) -> None:
    """Elsewhere it is as if it was not there: not asked about, not recorded, and not used up."""
    tmp_path.chmod(0o755)

    async def main(issuer: Issuer) -> None:
        async with daemon(_policy(issuer)) as made:
            token = issuer.mint()
            assert (await _run(made, token, loop="local", shell="true")).code == 0
            assert issuer.asked == []
            assert made.reporter.of(RunStarted)[0].run.initiator.token is None
            ended = await _run(made, token, "--oidc", "none", shell="true")
            assert "nobody may not start loop deploy" in ended.err
            assert (await _run(made, token, shell="true")).code == 0

    with running_issuer(tmp_path) as issuer:
        run_async(main(issuer))
