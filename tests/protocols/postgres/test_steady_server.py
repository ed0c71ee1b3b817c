"""Against a real server: the same bytes come back as without us, however they are cut."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.grant import PostgresOptions
from agent.model.reason import Reason
from agent.protocols.postgres.messages import message
from agent.wire.events import Data
from agent.wire.side import Side
from tests.protocols.postgres.pipelines import (
    BROKEN,
    REFUSED,
    TAIL,
    generate,
    play_direct,
    play_through,
    shape,
)
from tests.protocols.postgres.steady_rig import (
    DONE,
    FLUSH,
    READ_BYTES,
    SYNC,
    Answers,
    Play,
    Script,
    Wire,
    bind,
    close,
    copy_data,
    describe,
    direct,
    execute,
    keyed_session,
    messages_of,
    opened,
    parse,
    query,
    ready_session,
    whole,
)
from tests.servers.certificates import Authority
from tests.servers.postgres import postgres_server

PIPELINES = 120  # random ones of each kind; ten times as many found nothing more when written
MANY = ",".join(f"${number}" for number in range(1, 65_537))
SCRIPTS: dict[str, Script] = {
    "simple": [(query("SELECT 1"), 1), (query("SELECT 1; SELECT 2; bad"), 1), (query(""), 1)],
    "several at once": [(query("SELECT 1") + query("SELECT 2/0") + query("SELECT 3"), 3)],
    # the server keeps this spelling alone as it is, and tells it
    "the encoding's old name": [
        (query("SET client_encoding TO 'UNICODE'"), 1),
        (query("SELECT U&'\\00e9'; SET client_encoding TO utf8"), 1),
        (query("SELECT 1"), 1),
    ],
    "extended": [(whole("SELECT $1::text, $2::text", "a", None) + SYNC, 1)],
    "prepared": [
        (parse("SELECT $1::int + 1", "s") + describe("s", "S") + SYNC, 1),
        (bind("1", name="s") + execute() + SYNC, 1),
        (bind("2", name="s") + execute() + SYNC + close("s") + SYNC, 2),
        (bind("3", name="s") + execute() + SYNC, 1),
    ],
    "error in parse": [(whole("SELECT 1") + whole("bad") + whole("SELECT 3") + SYNC, 1)],
    "error in bind": [(whole("SELECT $1::int", "x") + whole("SELECT 3") + SYNC, 1)],
    "error in execute": [(whole("SELECT 1/0") + whole("SELECT 3") + SYNC + SYNC, 2)],
    "error in describe": [(describe("nobody", "S") + whole("SELECT 3") + SYNC, 1)],
    "error at sync": [
        (whole("INSERT INTO q VALUES (1)") + whole("INSERT INTO q VALUES (1)") + SYNC, 1),
        (query("SELECT count(*) FROM q"), 1),
    ],
    "portals": [
        (query("BEGIN"), 1),
        (parse("SELECT generate_series(1, 5)") + bind(portal="p") + execute("p", 2) + FLUSH, 0),
        (execute("p", 2) + execute("p", 2) + execute("p", 2) + SYNC, 1),
        (close("p", "P") + execute("p") + SYNC, 1),
        (query("ROLLBACK"), 1),
    ],
    "copy in": [
        (query("CREATE TEMP TABLE c (x int)"), 1),
        (query("COPY c FROM STDIN"), 0),
        (copy_data(b"1\n2") + copy_data(b"\n3\n") + DONE, 1),
        (query("COPY c FROM STDIN; SELECT count(*) FROM c"), 0),
        (copy_data(b"bad\n") + copy_data(b"4\n") + DONE, 1),
        (query("COPY c FROM STDIN"), 0),
        (copy_data(b"5\n") + message(b"f", b"enough\0"), 1),
        (query("SELECT sum(x) FROM c"), 1),
    ],
    "copy in, extended": [
        (query("CREATE TEMP TABLE c (x int)"), 1),
        (whole("COPY c FROM STDIN") + SYNC, 0),
        (copy_data(b"1\n") + DONE + SYNC, 1),
        (whole("COPY c FROM STDIN") + SYNC, 0),
        (copy_data(b"bad\n") + DONE + SYNC, 1),
    ],
    "copy in, blindly": [
        (query("CREATE TEMP TABLE c (x int)"), 1),
        (query("COPY c FROM STDIN") + copy_data(b"1\n") + DONE + query("SELECT 1"), 2),
        (query("COPY nobody FROM STDIN") + copy_data(b"1\n") + DONE + query("SELECT 1"), 2),
    ],
    "copy out": [(query("COPY (SELECT generate_series(1, 50)) TO STDOUT; SELECT 1"), 1)],
    "functions by id": [(message(b"F", b"\0\0\0\x59" + bytes(4) + b"\0\0"), 1)],
    "notices": [
        (query("DO $$BEGIN RAISE NOTICE 'a'; RAISE WARNING 'b'; END$$"), 1),
        (query("LISTEN here; SELECT 1"), 1),
        (query("SET timezone = 'Asia/Tokyo'; SET application_name = 'x'"), 1),
    ],
    "large rows": [(query("SELECT repeat('x', 300000) FROM generate_series(1, 3)"), 1)],
    "many rows": [(query("SELECT generate_series(1, 20000)"), 1)],
    # one more than Bind can have, and the count before their types says 0
    "many parameters": [(parse(f"SELECT 1 IN ({MANY})", "m") + describe("m", "S") + SYNC, 1)],
}
SMALL = sorted(set(SCRIPTS) - {"large rows", "many rows", "many parameters"})


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """Run a server for all tests here; its Unix socket."""
    with postgres_server(Authority(), address="") as running:
        running.ask("CREATE TABLE q (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        yield running.folder / ".s.PGSQL.5432"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_the_answers_are_those_of_the_server(server: Path, name: str) -> None:
    """Byte for byte, whether the bytes come at once or (small ones) one by one."""
    with ready_session(server) as sock:
        expected = direct(sock, SCRIPTS[name])
    for piece in (64 * 1024, 1) if name in SMALL else (64 * 1024, 1009):
        with ready_session(server) as sock:
            wire = Wire(sock, Answers(), piece)
            assert wire.run(SCRIPTS[name]) == expected
            wire.play.check()
            assert not wire.play.unsettled


@pytest.mark.parametrize("name", SMALL)
def test_every_cut_gives_the_same(server: Path, name: str) -> None:
    """A transcript, each of its chunks cut in two at every byte: the same bytes both ways."""
    with ready_session(server) as sock:
        wire = Wire(sock, Answers())
        chunks = _chunks_of(wire, SCRIPTS[name])
    whole_play = _replay(chunks, -1, 0)
    for number, (_, data) in enumerate(chunks):
        for at in range(1, len(data)):
            play = _replay(chunks, number, at)
            assert play.down == whole_play.down, (number, at)
            assert play.up.replace(FLUSH, b"") == whole_play.up.replace(FLUSH, b""), (number, at)
            assert [o.status for o in play.outcomes] == [o.status for o in whole_play.outcomes]
            assert play.intents == whole_play.intents
            assert not play.problems


def _chunks_of(wire: Wire, script: Script) -> list[tuple[Side, bytes]]:
    chunks: list[tuple[Side, bytes]] = []
    give = wire.play.give

    def note(event: object) -> None:
        if isinstance(event, Data):
            chunks.append((event.side, event.data))
        give(event)  # type: ignore[arg-type]

    wire.play.give = note  # type: ignore[method-assign]
    wire.run(script)
    return chunks


def _replay(chunks: list[tuple[Side, bytes]], number: int, at: int) -> Play:
    play = Play(Answers())
    for count, (side, data) in enumerate(chunks):
        pieces = (data[:at], data[at:]) if count == number else (data,)
        for piece in pieces:
            play.give(Data(side, piece))
    return play


@pytest.mark.parametrize("seed", range(PIPELINES))
def test_a_random_pipeline_is_answered_as_by_the_server(server: Path, seed: int) -> None:
    """Errors in any place, names made and dropped, transactions: the same bytes, in order."""
    rng = random.Random(seed)
    data = generate(rng, refused=False) + TAIL
    expected = play_direct(server, data)
    got, play = play_through(server, data, rng)
    assert got == expected
    play.check()
    assert not play.unsettled


@pytest.mark.parametrize("seed", range(PIPELINES))
def test_a_refusal_is_to_the_loop_what_an_error_is(server: Path, seed: int) -> None:
    """The same messages, transaction states and rows as when the refused text has a syntax error.

    So what the loop believes undone is undone, and what it believes done is done.
    """
    rng = random.Random(1_000_000 + seed)
    data = generate(rng, refused=True) + TAIL
    assert len(BROKEN) == len(REFUSED)
    expected = play_direct(server, data.replace(REFUSED.encode(), BROKEN.encode()))
    got, play = play_through(server, data, rng)
    assert shape(got) == shape(expected)
    assert REFUSED not in {intent.operation.resource for intent in play.intents}
    assert b"42501" not in got or play.denied
    play.check()


DRIFTS = {
    "standard_conforming_strings": ("on", "off"),
    "client_encoding": ("UTF8", "SJIS"),
    "default_transaction_read_only": ("on", "off"),
    "session_authorization": ("postgres", "app_trust"),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_pinned_setting_that_drifts_ends_the_session(server: Path, name: str) -> None:
    """A function that a rule allows sets it: FATAL, and what comes behind is never sent."""
    wanted, other = DRIFTS[name]
    body = f"BEGIN PERFORM set_config('{name}', '{other}', false); END"
    made = f"CREATE OR REPLACE FUNCTION drift() RETURNS void LANGUAGE plpgsql AS $${body}$$"
    with ready_session(server) as sock:
        direct(sock, [(query(made), 1)])
    with ready_session(server, default_transaction_read_only="on") as sock:
        wire = Wire(sock, Answers(opened=opened(pinned={name: wanted})))
        got = wire.run([(query("SELECT drift()"), 1), (query("SELECT 'behind'"), 1)])
        play = wire.play
    kind, payload = messages_of(got)[-1]
    assert kind == ord("E")
    assert b"SFATAL\0" in payload
    assert name.encode() in payload
    assert play.finished is Reason.POLICY_DENIED
    assert "behind" not in str([intent.operation.resource for intent in play.intents])
    play.check()


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN READ WRITE",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "RESET transaction_read_only",
        "SELECT 1; COMMIT; SET TRANSACTION READ WRITE",
        "PREPARE p AS SELECT set_config('default_transaction_read_only', $1, false)",
    ],
)
def test_a_read_only_target_stays_so(server: Path, text: str) -> None:
    """As Query and as Parse it is refused, and what comes behind is still read-only."""
    behind = query("SHOW transaction_read_only") + query("CREATE TABLE escaped (a int)")
    with ready_session(server, default_transaction_read_only="on") as sock:
        wire = Wire(sock, Answers(options=PostgresOptions(read_only=True)))
        got = wire.run([(query(text), 1), (whole(text) + SYNC, 1), (behind, 2)])
        wire.play.check()
    said = [payload for kind, payload in messages_of(got) if kind in b"DE"]
    assert said[2] == b"\0\1\0\0\0\2on"
    assert [b"C42501\0" in each for each in said] == [True, True, False, False]
    assert b"C25006\0" in said[3]
    with ready_session(server) as sock:  # where the target is not, it is a harmless setting
        wire = Wire(sock, Answers())
        assert b"C42501\0" not in wire.run([(query(text), 1)])


def test_a_row_limit_leaves_both_sides_in_agreement(server: Path) -> None:
    """Past it in a pipeline with a write: the write is undone, and the session is usable."""
    from agent.model.ids import RuleId
    from agent.model.verdict import Allow

    def limited(_: object) -> Allow:
        return Allow(RuleId("loop/0"), max_rows=3)

    script: Script = [
        (query("CREATE TEMP TABLE d (x int)"), 1),
        (whole("INSERT INTO d VALUES (1)") + whole("SELECT generate_series(1,9)") + SYNC, 1),
        (query("SELECT count(*) FROM d"), 1),
        (query("BEGIN"), 1),
        (query("SELECT generate_series(1,9)") + query("INSERT INTO d VALUES (1)"), 2),
        (whole("SELECT 1") + SYNC, 1),
        (query("ROLLBACK"), 1),
        (whole("SELECT generate_series(1,9)") + whole("SELECT 2") + SYNC, 1),
        (whole("SELECT generate_series(1,3)") + SYNC, 1),
    ]
    with ready_session(server) as sock:
        wire = Wire(sock, Answers(verdict=limited))
        got = wire.run(script)
        wire.play.check()
    kinds = "".join(chr(kind) for kind, _ in shape(got))
    assert kinds == ("CZ12nC12TDDDEZTDCZCZTDDDEZEZEZCZ12TDDDEZ12TDDDCZ")
    states = [payload for kind, payload in shape(got) if kind == ord("Z")]
    assert states == [b"I", b"I", b"I", b"T", b"E", b"E", b"E", b"I", b"I", b"I"]
    assert message(b"D", b"\0\1\0\0\0\x010") in got  # the write was undone
    assert [o.status for o in wire.play.outcomes].count("54000") == 3


def say_apart(path: Path, data: bytes) -> None:
    """Say something to the server on a connection of its own, and wait for its end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(path))
        sock.sendall(data)
        assert sock.recv(READ_BYTES) == b""


@pytest.mark.parametrize(
    "endless",
    [
        query("SELECT generate_series(1, 1000000000)"),
        query("COPY (SELECT generate_series(1, 1000000000)) TO STDOUT"),
        whole("COPY (SELECT generate_series(1, 1000000000)) TO STDOUT") + SYNC,
        query("SELECT 1 FROM generate_series(1, 8)"),  # it is over before the word comes
    ],
)
def test_what_is_past_its_limit_ends_upstream_too(server: Path, endless: bytes) -> None:
    """Again and again: the server stops, and what follows is never hit by the word."""
    from agent.model.ids import RuleId
    from agent.model.verdict import Allow

    sock, key = keyed_session(server)
    answers = Answers(
        verdict=lambda _: Allow(RuleId("loop/0"), max_rows=3),
        apart=lambda data: say_apart(server, data),
        opened=opened(backend=key),
    )
    with sock:
        wire = Wire(sock, answers)
        ends = 0
        for _ in range(20):
            got = wire.run([(endless + query("SELECT 2"), ends + 2)])
            ends += 2
            told = [chr(kind) for kind, _ in messages_of(got) if kind not in b"GHTDd12ncs"]
            assert told[-4:] == ["E", "Z", "C", "Z"], told
        assert wire.play.apart
        wire.play.check()
