"""loopwarden-collector as people use it: answers, tables, exit codes."""

import json
import os
import pwd
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from agent.cli.collector import main
from agent.cli.collector_text import Cell, Paint, clean, duration, size, table
from agent.cli.collector_time import parse_moment_ms, parse_span_s
from agent.collector import ingest, schema
from agent.collector.store import FILE_NAME, open_for_reading
from tests.unit.collector.chains import NOW_MS, Chain, authority, store
from tests.unit.reporter.events import (
    denied,
    finished,
    intended,
    run_started,
    session_closed,
    session_opened,
    ulid,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    engine = store(tmp_path)
    chain = Chain()
    chain.add(run_started(), session_opened(11), intended(21, 11), finished(21, 11))
    chain.add(denied(22, 11), session_closed(11, 2), session_opened(12), at_ms=NOW_MS + 60_000)
    ingest.append(engine, authority(), "a", chain.batch(1, len(chain.records)), NOW_MS)
    engine.dispose()
    return tmp_path


def ask(state: Path, capsys: Capture, *words: str, code: int = 0) -> str:
    assert main([*words, "--state-dir", str(state)]) == code
    return capsys.readouterr().out


def rows(state: Path, capsys: Capture, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ask(state, capsys, *words, "--json").splitlines()]


def test_a_session_is_shown_to_a_person(state: Path, capsys: Capture) -> None:
    """Who, which process of which tree, each call with rule, verdict, status, sizes and lease."""
    text = ask(state, capsys, "sessions", "show", ulid(11))
    for fact in (
        "alice (/usr/bin/loopwarden[4000] on pts/0)",
        "python job.py",
        "github at 198.18.0.1:443",
        "4001  uid 1000  /usr/bin/python3",
        "    └─ 4002",
        "      └─ 4003",
        "GET /v1/21  200 answered",
        "rule nightly/0, verdict allow, 0 B up, 1.0 KiB down, 1.2 ms",
        "DELETE /v1/secret  denied 403 policy-denied by default-deny",
        "no rule allows DELETE /v1/secret",
    ):
        assert fact in text
    assert "\x1b" not in text


def test_lists_are_tables_or_json(state: Path, capsys: Capture) -> None:
    """The same rows both ways; filters select; nothing found is not an error."""
    text = ask(state, capsys, "sessions", "list")
    assert len(text.splitlines()) == 3
    assert "curl[4003]" in text
    assert [row["session_id"] for row in rows(state, capsys, "sessions", "list")] == [
        ulid(12),
        ulid(11),
    ]
    assert len(rows(state, capsys, "sessions", "list", "--verdict", "deny")) == 1
    assert rows(state, capsys, "sessions", "list", "--loop", "none") == []
    assert rows(state, capsys, "sessions", "list", "--since", "2h") == []
    assert rows(state, capsys, "hosts")[0]["name"] == "host-a"
    assert rows(state, capsys, "runs", "--loop", "nightly")[0]["operations"] == 2


def test_tail_shows_the_last_calls(state: Path, capsys: Capture) -> None:
    """Finished and denied calls, oldest first, at most as many as asked for."""
    lines = ask(state, capsys, "sessions", "tail").splitlines()
    assert ["GET /v1/21" in lines[0], "DELETE /v1/secret" in lines[1]] == [True, True]
    assert len(ask(state, capsys, "sessions", "tail", "-n", "1").splitlines()) == 1


def test_who_takes_a_moment(state: Path, capsys: Capture) -> None:
    """`who --at` takes ISO 8601 and spans; the open session is live now."""
    at = "2023-11-14T22:13:30+00:00"
    (then,) = rows(state, capsys, "who", "--target", "github", "--at", at)
    (now,) = rows(state, capsys, "who", "--target", "github")
    assert (then["session_id"], now["session_id"]) == (ulid(11), ulid(12))
    assert "alice" in ask(state, capsys, "who", "--target", "github")


def test_verify_exits_with_1_and_names_the_record(state: Path, capsys: Capture) -> None:
    """0 when intact, 1 and the number when not."""
    assert "intact" in ask(state, capsys, "verify")
    engine = open_for_reading(state)
    with engine.begin() as connection:
        connection.execute(update(schema.records).where(schema.records.c.seq == 3).values(body=b""))
    engine.dispose()
    assert "BAD at 3" in ask(state, capsys, "verify", code=1)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sessions", "show", "nothing"), 1),
        (("who", "--target", "x", "--at", "yesterday"), 2),
        (("token", "create", "--host", "", "--ttl", "10m"), 2),
        (("token", "create", "--host", "x"), 3),
        (("hosts", "--config", "/nonexistent.toml"), 0),
    ],
)
def test_exit_codes(state: Path, capsys: Capture, words: tuple[str, ...], code: int) -> None:
    """1 not found, 2 wrong use, 3 state that can't be used; the reason is on stderr."""
    assert main([*words, "--state-dir", str(state)]) == code
    assert bool(capsys.readouterr().err) is (code != 0)


def test_init_makes_a_ca_and_tokens_need_it(tmp_path: Path, capsys: Capture) -> None:
    """`init` prints the fingerprint, then `token create` prints a token."""
    assert main(["init", "--state-dir", str(tmp_path / "new")]) == 0
    assert "ca sha256" in capsys.readouterr().out
    token = ask(tmp_path / "new", capsys, "token", "create", "--host", "web1").strip()
    assert token.count(".") == 2
    assert main(["token", "create", "--host", "x", "--ttl", "2d"]) != 0


def test_a_wrong_settings_file_is_wrong_use(tmp_path: Path, capsys: Capture) -> None:
    """An unknown key is named."""
    path = tmp_path / "collector.toml"
    path.write_text('listten = "x"\n')
    assert main(["hosts", "--config", str(path)]) == 2
    assert "listten" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["foo", ":7443", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "h:٣"]
)
def test_an_address_is_a_host_and_a_port(tmp_path: Path, capsys: Capture, address: str) -> None:
    """gRPC would take 99999 for another port, and bind it."""
    for words in (["serve", "--listen", address], ["serve", "--enroll-listen", address]):
        assert main([*words, "--state-dir", str(tmp_path)]) == 2
        assert "is not HOST:PORT" in capsys.readouterr().err
    enroll = ["enroll", "--token", "x", "--out", str(tmp_path), "--collector", address]
    assert main(enroll) == 2
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """By its address, not by the words of a library.

    A process of its own: gRPC's threads, once there, break what other tests fork.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ["--state-dir", str(tmp_path), "--enroll-listen", "127.0.0.1:0"]
        command = [sys.executable, "-m", "agent.cli.collector", "serve", "--listen", address]
        ended = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    said = f"loopwarden-collector: can't listen on {address}: is it an address of this host"
    assert said in ended.stderr


def test_numbers_of_rows_are_numbers(state: Path, capsys: Capture) -> None:
    """0 lines to begin with is a wish, --limit 0 or -5 is none."""
    for words in (("--limit", "-5"), ("--limit", "0"), ("--limit", "x"), ("--limit", "9" * 19)):
        with pytest.raises(SystemExit) as ended:
            main(["sessions", "list", *words, "--state-dir", str(state)])
        assert ended.value.code == 2
    assert ask(state, capsys, "sessions", "tail", "-n", "0") == ""
    assert ask(state, capsys, "sessions", "list", "--limit", "9" * 18)


def test_a_damaged_store_is_one_line(state: Path, capsys: Capture) -> None:
    """Not a traceback."""
    (state / FILE_NAME).write_bytes(b"not a database" * 100)
    for words in (["hosts"], ["verify"], ["kill", "x"]):
        assert main([*words, "--state-dir", str(state)]) == 3
        err = capsys.readouterr().err
        assert err.startswith("loopwarden-collector: the store can't be used: ")
        assert err.count("\n") == 1


def test_errors_name_the_file_once(state: Path, capsys: Capture) -> None:
    """And no number of Python's."""
    passwd = "/etc/passwd"
    for words, code, said in (
        (["verify", "--ca", "/x"], 3, "no CA certificate in /x: No such file or directory"),
        (["verify", "--ca", passwd], 3, f"no CA certificate in {passwd}: it is no PEM of one"),
        (["hosts", "--config", "/x"], 2, "/x: No such file or directory"),
    ):
        where = [] if "--config" in words else ["--state-dir", str(state)]
        assert main([*words, *where]) == code
        assert capsys.readouterr().err == f"loopwarden-collector: {said}\n"


def test_an_auditor_reads_a_copy_that_is_roots(state: Path, capsys: Capture) -> None:
    """As README.md says it: any folder, any user that may read; nothing of it is changed."""
    auditor = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="lw audit?") as folder:
        copy = Path(folder, FILE_NAME)
        with (
            closing(sqlite3.connect(state / FILE_NAME)) as kept,
            closing(sqlite3.connect(copy)) as copied,
        ):
            kept.backup(copied)
        copy.chmod(0o644)
        Path(folder).chmod(0o755)
        before = copy.read_bytes()
        os.seteuid(auditor.pw_uid)
        try:
            [found] = rows(Path(folder), capsys, "hosts")
            assert main(["kill", ulid(11), "--host", "host-a", "--state-dir", folder]) == 3
        finally:
            os.seteuid(0)
        assert found["name"] == "host-a"
        assert "readonly" in capsys.readouterr().err
        assert copy.read_bytes() == before
        assert os.listdir(folder) == [FILE_NAME]
        copy.chmod(0o600)
        os.seteuid(auditor.pw_uid)
        try:
            assert main(["hosts", "--state-dir", folder]) == 3
        finally:
            os.seteuid(0)
        assert capsys.readouterr().err.endswith(f"{copy}: Permission denied\n")


def test_text_of_hosts_cannot_steer_a_terminal() -> None:
    """Control characters in what a loop sent are shown, not obeyed."""
    assert clean("a\x1b[2Jb\r\nc") == "a\\x1b[2Jb\\x0d\\x0ac"
    text = table(("A",), [[Cell("\x1b]0;x\x07", "red")]], Paint(enabled=False))
    assert "\x1b" not in text


def test_numbers_are_readable() -> None:
    """Sizes and durations, at the edges of their units."""
    assert [size(0), size(1023), size(1024), size(1 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 TiB",
    ]
    assert [duration(999), duration(1_500_000), duration(90 * 10**9)] == [
        "1 µs",
        "1.5 ms",
        "1 m 30 s",
    ]
    assert (parse_span_s("90s"), parse_span_s("1d")) == (90, 86_400)
    assert parse_moment_ms("10m", 1_000_000) == 400_000
    for wrong in ("", "1w", "-1h", "soon"):
        with pytest.raises(ValueError, match="not a time"):
            parse_span_s(wrong)
