"""Random pipelines of the loop, and how to play them to a server with and without us."""

import random
import socket
from pathlib import Path

from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.verdict import Allow, Deny, Verdict
from agent.protocols.postgres.messages import message
from tests.protocols.postgres.steady_rig import (
    FLUSH,
    READ_BYTES,
    SYNC,
    UP,
    Answers,
    Play,
    bind,
    close,
    describe,
    direct,
    execute,
    messages_of,
    parse,
    query,
    ready_session,
)

REFUSED = "SELECT 'refused'"  # what the rule of `verdict` denies
BROKEN = "loopwardenbroken"  # as long, and a syntax error: what a refusal has to look like
TEXTS = (
    "SELECT 1", "SELECT $1::text", "SELECT 1/0", "bad syntax", "BEGIN", "COMMIT", "ROLLBACK",
    "INSERT INTO d VALUES (1)", "SELECT count(*) FROM d", "SELECT generate_series(1,3)", "",
    "PREPARE a AS SELECT 11", "EXECUTE a", "DEALLOCATE a", "DEALLOCATE ALL", "SAVEPOINT s",
    "ROLLBACK TO s", "COPY (SELECT 5) TO STDOUT", "INSERT INTO d VALUES (2) RETURNING x + 0",
    "PREPARE b AS INSERT INTO d VALUES (3)", "EXECUTE b",
    "DECLARE c CURSOR FOR SELECT generate_series(1,5)", "FETCH 2 FROM c", "FETCH 2 FROM p",
)  # fmt: skip
QUERIES = (
    "SELECT 1; SELECT 2", "SELECT 1; SELECT 1/0; SELECT 3", "BEGIN; INSERT INTO d VALUES (9)",
    "COMMIT; BEGIN", "INSERT INTO d VALUES (7); SELECT 1/0", ";", "DISCARD ALL",
)  # fmt: skip
# back to where every session can be compared, and a mark at which to stop reading
TAIL = (
    message(b"f", b"no\0") + SYNC + query("ROLLBACK") + query("SELECT count(*) FROM d")
    + query("SELECT 'the end'")
)  # fmt: skip
_MARK = b"the end"


def generate(rng: random.Random, *, refused: bool) -> bytes:
    """Return a few messages in any order. refused: some have the text REFUSED."""
    extra = (REFUSED,) * 3 if refused else ()
    return b"".join(_one(rng, extra) for _ in range(rng.randint(1, 12)))


def _one(rng: random.Random, extra: tuple[str, ...]) -> bytes:
    text = rng.choice(TEXTS + extra)
    name, portal = rng.choice(("", "a", "b")), rng.choice(("", "p"))
    values = ("x",) if "$1" in text else ()
    match rng.randrange(12):
        case 0 | 1:
            return parse(text, name)
        case 2 | 3:
            bound = parse(text, name) + bind(*values, name=name, portal=portal)
            return bound + execute(portal, rng.choice((0, 0, 1, 2)))
        case 4:
            return bind(name=name, portal=portal)
        case 5:
            return describe(name, "S") if rng.random() < 0.5 else describe(portal)
        case 6:
            return execute(portal, rng.choice((0, 1)))
        case 7:
            return close(name) if rng.random() < 0.5 else close(portal, "P")
        case 8:
            return FLUSH
        case 9 | 10:
            return SYNC
        case _:
            return query(rng.choice(QUERIES + TEXTS + extra))


def verdict(operation: Operation) -> Verdict:
    """Deny what has the text REFUSED."""
    if operation.resource == REFUSED:
        return Deny(RuleId("loop/1"), Reason.POLICY_DENIED, "No.", "Ask.")
    return Allow(RuleId("loop/0"))


def session(path: Path) -> socket.socket:
    """Return a session with the table that pipelines write to."""
    sock = ready_session(path)
    direct(sock, [(query("CREATE TEMP TABLE d (x int)"), 1)])
    return sock


def has_ended(got: bytes) -> bool:
    """Whether the answer to TAIL is complete."""
    found = messages_of(got) if _MARK in got else []
    return len(found) > 2 and found[-1][0] == ord("Z") and found[-3][1].endswith(_MARK)


def play_direct(path: Path, data: bytes) -> bytes:
    """Return what a server answers."""
    got = b""
    with session(path) as sock:
        sock.sendall(data)
        while not has_ended(got) and (piece := sock.recv(READ_BYTES)):
            got += piece
    return got


def play_through(path: Path, data: bytes, rng: random.Random) -> tuple[bytes, Play]:
    """Return what the loop gets through us, in pieces of any size."""
    play = Play(Answers(verdict=verdict))
    with session(path) as sock:
        at = 0
        while at < len(data):
            size = rng.choice((1, 5, 30, 1000))
            play.loop(data[at : at + size])
            at += size
            sock.sendall(play.take_up())
        while play.finished is None and not has_ended(bytes(play.down)):
            piece = sock.recv(READ_BYTES)
            if not piece:
                play.eof(UP)
                break
            play.server(piece, rng.choice((1, 7, READ_BYTES)))
            if play.finished is None:
                sock.sendall(play.take_up())
    return bytes(play.down), play


def shape(data: bytes) -> list[tuple[int, bytes]]:
    """Return what has to be the same when a refusal stands for a syntax error."""
    return [(kind, payload if kind in b"ZCD" else b"") for kind, payload in messages_of(data)]
