"""What comes downstream: the upstream's answer, framed anew and scrubbed, or one of ours."""

import base64
import json
from urllib.parse import quote

import pytest

from agent.model.audit import Outcome
from agent.model.credential import Basic, Header, QueryParameter, type_of
from agent.model.grant import UpstreamTls
from agent.model.ids import RuleId
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.model.verdict import Deny
from agent.protocols.http1 import SPEC
from agent.protocols.http1.limits import HEAD_BYTES_MAX, INTERIM_MAX
from agent.wire.commands import CloseUpstream, OpenUpstream
from agent.wire.events import UpstreamFailed
from tests.conformance.conductor import CANARY, Conductor, World, lease, silent, target
from tests.protocols.http1.server import Server, read_answers

HOST = b"Host: api.example.com\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD_ANSWERS: tuple[tuple[str, bytes], ...] = (
    ("not HTTP", b"SSH-2.0-OpenSSH\r\n\r\n"),
    ("HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n"),
    ("two spaces", b"HTTP/1.1  200 OK\r\n\r\n"),
    ("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("status 600", b"HTTP/1.1 600 OK\r\n\r\n"),
    ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\r\n\r\n"),
    ("bare CR in a field", b"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c\r\n\r\n"),
    ("NUL in a field", b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n"),
    ("folded field", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"),
    ("space before colon", b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
    ("no colon", b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"),
    ("length and chunked", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + CHUNKED + b"\r\n"),
    ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("length list", b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc"),
    ("length negative", b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
    ("length 2^53", b"HTTP/1.1 200 OK\r\nContent-Length: 9007199254740992\r\n\r\n"),
    ("gzip, chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("chunked in 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("switching protocols", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    ("interim with body", b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\nhello"),
    ("too many interims", b"HTTP/1.1 102 Processing\r\n\r\n" * (INTERIM_MAX + 1) + OK),
    ("too many fields", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n"),
    ("head too long", b"HTTP/1.1 200 OK\r\nA: " + b"b" * HEAD_BYTES_MAX),
    ("two locations", b"HTTP/1.1 302 F\r\nLocation: /a\r\nLocation: /b\r\n\r\n"),
)  # fmt: skip


def _play(answer: bytes, request: bytes = GET, piece: int = 65536, **world: object) -> Conductor:
    server = Server((answer,))
    conductor = Conductor(SPEC, World(server=server, server_piece=piece, **world))  # type: ignore[arg-type]
    conductor.down(request)
    return conductor


@pytest.mark.parametrize(("name", "answer"), BAD_ANSWERS, ids=[row[0] for row in BAD_ANSWERS])
@pytest.mark.parametrize("piece", [1, 65536])
def test_a_bad_answer_is_502(name: str, answer: bytes, piece: int) -> None:
    """An answer with no one meaning is not passed on: 502, ABORTED, both sides closed."""
    conductor = _play(answer, piece=piece)
    conductor.check_ended()
    last = conductor.to_loop.replace(b"HTTP/1.1 102 Processing\r\n\r\n", b"")
    assert last.startswith(b"HTTP/1.1 502 "), name
    assert [finished.outcome for finished in conductor.outcomes] == [Outcome.ABORTED]
    assert [finished.status for finished in conductor.outcomes] == ["502"]
    assert CloseUpstream(reusable=False) in conductor.commands


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\x12\x04\0\0\0\0\0",
        b"HTTP/2",
    ],
)
def test_what_can_be_no_answer_is_not_waited_for(begun: bytes) -> None:
    """A server that ends lines with LF, or speaks something else, is refused at once."""
    conductor = _play(begun)
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("piece", [1, 3, 65536])
def test_the_secret_is_removed_in_all_forms(piece: int) -> None:
    """Verbatim, base64 and percent-encoded, in the head and in the body, at every cut."""
    percent = "".join(f"%{byte:02x}" for byte in CANARY).encode()
    encoded = base64.b64encode(b"user:" + CANARY)
    body = b"|".join((CANARY, encoded, percent, quote(CANARY).encode(), CANARY.hex().encode()))
    head = b"HTTP/1.1 200 OK\r\nX-Auth: Bearer %b\r\nSet-Cookie: t=%b\r\n" % (CANARY, percent)
    for framing in (b"Content-Length: %d\r\n\r\n%b" % (len(body), body), b"\r\n" + body):
        conductor = _play(head + framing, piece=piece)
        conductor.up_eof()
        conductor.down_eof()
        conductor.check_ended()
        [(status, headers, read)] = read_answers(conductor.to_loop, [b"GET"], eof=True)
        assert (status, len(read)) == (200, len(body))
        for form in (CANARY, encoded[8:-4], percent, CANARY.hex().encode()):
            assert form not in read
            assert form not in b"".join(value for _, value in headers)
        assert conductor.outcomes[0].response_bytes == len(body)


@pytest.mark.parametrize(
    ("credential", "said"),
    [
        (Basic("robot", Secret(b"pa?ss>wo~rd>>?")), b'"Basic cm9ib3Q6cGE\\/c3M+d29+cmQ+Pj8="'),
        (
            Basic("robot", Secret(b"pa?ss>wo~rd>>?")),
            b"?a=Basic%20cm9ib3Q6cGE%2Fc3M%2Bd29%2BcmQ%2BPj8%3D",
        ),
        (Header("Authorization", Secret(b"Token a1b2c3d4e5")), b"Invalid token: a1b2c3d4e5"),
        (
            Header("Cookie", Secret(b"sid=0123456789abcdef; b=c")),
            b"Session 0123456789abcdef is over",
        ),
        (
            QueryParameter("key", Secret(b"k/+=y-0123")),
            b"redirect?to=%2Fa%3Fkey%3Dk%252F%252B%253Dy-0123",
        ),
    ],
)
def test_what_a_server_read_in_the_credential_is_removed(
    credential: Basic | Header | QueryParameter, said: bytes
) -> None:
    """A part of the injected field that a server repeats, as encoders write it, is not told."""
    shape = next(shape for shape, kind in type_of.items() if isinstance(credential, kind))
    answer = b"HTTP/1.1 400 Bad\r\nX-Error: %b\r\nContent-Length: %d\r\n\r\n%b"
    conductor = _play(
        answer % (said, len(said), said), target=target(shape=shape), lease=lease(credential)
    )
    [(status, headers, body)] = read_answers(conductor.to_loop, [b"GET"], eof=False)
    assert status == 400
    for text in (body, dict(headers)[b"x-error"]):
        assert len(text) == len(said)
        assert text.count(b"*") >= 9
        assert not any(said[at : at + 7] in text for at in range(len(said) - 9, len(said) - 16, -1))


def test_what_can_not_be_scanned_is_refused() -> None:
    """A coded or partial body while a credential was used: 502 UNSCANNABLE, not a byte of it."""
    for field in (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: br\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: identity, zstd\r\n",
        b"HTTP/1.1 200 OK\r\nIM: gzip\r\n",
        b"HTTP/1.1 206 Partial\r\n",
        b"HTTP/1.1 226 IM Used\r\n",
    ):
        conductor = _play(field + b"Content-Length: 6\r\n\r\nsecret")
        conductor.check_ended()
        assert conductor.to_loop.startswith(b"HTTP/1.1 502 ")
        assert b"secret" not in conductor.to_loop
        assert conductor.outcomes[0].reason is Reason.UNSCANNABLE


def test_fields_that_end_here() -> None:
    """Hop-by-hop fields, Alt-Svc, and fields that only we may say are dropped; cookies pass."""
    conductor = _play(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        b'Alt-Svc: h3=":443"\r\nUpgrade: h2c\r\nLoopwarden-Rule: forged\r\nSet-Cookie: a=1\r\n'
        b"Set-Cookie: b=2\r\nETag: x\r\nContent-Length: 0\r\n\r\n"
    )
    [(_, headers, _)] = read_answers(conductor.to_loop, [b"GET"], eof=False)
    assert sorted(headers) == [
        (b"content-length", b"0"), (b"etag", b"x"),
        (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"),
    ]  # fmt: skip


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_the_loops_to_follow(status: int) -> None:
    """It goes down as it came; the credential goes nowhere else, for nothing else is opened."""
    fields = b"Location: https://b.test/\r\nContent-Length: 0\r\n"
    server = Server((b"HTTP/1.1 %d Go\r\n%b\r\n" % (status, fields),))
    conductor = Conductor(SPEC, World(server=server))
    conductor.down(GET)
    assert conductor.to_loop.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nLocation: https://b.test/\r\n" in conductor.to_loop
    assert len(server.requests) == 1
    assert len([one for one in conductor.commands if isinstance(one, OpenUpstream)]) == 1


def test_a_body_until_close_becomes_chunked() -> None:
    """A body that ends with the upstream's connection ends visibly for the loop, which goes on."""
    conductor = _play(b"HTTP/1.1 200 OK\r\n\r\nhello")
    conductor.up(b" world")
    conductor.up_eof()
    [(_, headers, body)] = read_answers(conductor.to_loop, [b"GET"], eof=False)
    assert (b"transfer-encoding", b"chunked") in headers
    assert body == b"hello world"
    assert conductor.finished is None
    conductor.down(GET)
    assert len(conductor.judged) == 2
    assert sum(isinstance(one, OpenUpstream) for one in conductor.commands) == 2
    conductor.up_eof()
    assert [one.outcome for one in conductor.outcomes] == [Outcome.ANSWERED] * 2


def test_a_body_until_close_for_http_1_0() -> None:
    """HTTP/1.0 knows no chunks: the loop's connection ends with the body."""
    conductor = _play(b"HTTP/1.1 200 OK\r\n\r\nhello", GET.replace(b"1.1", b"1.0"))
    conductor.up_eof()
    conductor.check_ended()
    assert conductor.to_loop == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"


def test_http_1_0_may_be_kept_alive() -> None:
    """With Connection: keep-alive and a length an HTTP/1.0 connection goes on."""
    request = GET.replace(b"1.1", b"1.0")[:-2] + b"Connection: Keep-Alive\r\n\r\n"
    conductor = _play(OK, request)
    assert b"Connection: keep-alive\r\n" in conductor.to_loop
    assert conductor.finished is None


@pytest.mark.parametrize("reset", [False, True])
def test_a_truncated_answer_is_not_made_whole(*, reset: bool) -> None:
    """A length or chunked body that ends early ends the session: ABORTED, no last chunk."""
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ):
        conductor = _play(answer)
        if reset:
            conductor.give(UpstreamFailed(Reason.UPSTREAM_CLOSED, "reset"))
        else:
            conductor.up_eof()
        conductor.check_ended()
        assert not conductor.to_loop.endswith(b"0\r\n\r\n")
        assert conductor.outcomes[0].outcome is Outcome.ABORTED
        assert conductor.finished is Reason.UPSTREAM_CLOSED


def test_a_reset_does_not_end_a_body_until_close() -> None:
    """Only a clean end makes a body until close complete: a cut TLS connection does not."""
    conductor = _play(b"HTTP/1.1 200 OK\r\n\r\nhello")
    conductor.give(UpstreamFailed(Reason.UPSTREAM_CLOSED, "reset"))
    conductor.check_ended()
    assert not conductor.to_loop.endswith(b"0\r\n\r\n")
    assert conductor.outcomes[0].outcome is Outcome.ABORTED


def test_bytes_behind_an_answer_close_the_upstream() -> None:
    """What nobody asked for is not taken for the next answer."""
    conductor = _play(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert CloseUpstream(reusable=False) in conductor.commands
    assert b"evil" not in conductor.to_loop
    conductor = _play(OK)
    conductor.up(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert CloseUpstream(reusable=False) in conductor.commands
    assert b"evil" not in conductor.to_loop


@pytest.mark.parametrize("field", [b"Transfer-Encoding: chunked", b"Content-Length: 5"])
def test_a_body_that_can_not_be_is_nobodys_answer(field: bytes) -> None:
    """A 204 that says it has a body leaves no connection: what follows would be the next answer."""
    conductor = _play(b"HTTP/1.1 204 No Content\r\n" + field + b"\r\n\r\n")
    assert CloseUpstream(reusable=False) in conductor.commands
    assert conductor.finished is None


def test_a_denial_is_in_our_words() -> None:
    """403 with rule, reason, explanation, next step and session; the connection goes on."""
    verdict = Deny(RuleId("nightly/2"), Reason.POLICY_DENIED, "Only GET here.", "Use GET.")
    conductor = Conductor(SPEC, World(verdict=lambda _: verdict))
    conductor.down(b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello" + GET)
    assert conductor.finished is None
    answers = read_answers(conductor.to_loop, [b"POST", b"GET"], eof=False)
    assert [status for status, _, _ in answers] == [403, 403]
    _, headers, body = answers[0]
    assert (b"loopwarden-rule", b"nightly/2") in headers
    assert (b"content-type", b"application/json") in headers
    assert json.loads(body) == {
        "error": "denied",
        "rule": "nightly/2",
        "reason": "policy-denied",
        "explanation": "Only GET here.",
        "next_step": "Use GET.",
        "session": "S" * 26,
    }
    assert [record.rule for record in conductor.denied] == ["nightly/2", "nightly/2"]


def test_a_denied_head_has_no_body() -> None:
    """The answer to HEAD has no body, so that the next answer is found."""
    verdict = Deny(RuleId("a/0"), Reason.POLICY_DENIED, "No.", "Ask.")
    conductor = Conductor(SPEC, World(verdict=lambda _: verdict))
    conductor.down(GET.replace(b"GET", b"HEAD") + GET)
    answers = read_answers(conductor.to_loop, [b"HEAD", b"GET"], eof=False)
    assert [status for status, _, _ in answers] == [403, 403]


@pytest.mark.parametrize(
    ("world", "status", "reason"),
    [
        ({"lease": "the vault said no"}, 503, Reason.LEASE_REFUSED),
        ({"recorded": False}, 503, Reason.RECORD_FAILED),
        ({"opened": UpstreamFailed(Reason.UPSTREAM_UNREACHABLE, "refused")}, 502, None),
        ({"opened": UpstreamFailed(Reason.UPSTREAM_UNTRUSTED, "expired")}, 502, None),
        ({"opened": UpstreamFailed(Reason.TIMED_OUT, "no answer")}, 504, None),
        ({"target": target(tls=UpstreamTls.NONE), "tls_name": None}, 502, Reason.CLEARTEXT_REFUSED),
    ],
)
def test_what_is_missing_is_not_a_policy_denial(
    world: dict[str, object], status: int, reason: Reason | None
) -> None:
    """A missing lease, record or upstream has its own status, reason and next step; once each."""
    conductor = Conductor(SPEC, World(server=silent, **world))  # type: ignore[arg-type]
    conductor.down(GET)
    opened = world.get("opened")
    wanted = opened.reason if isinstance(opened, UpstreamFailed) else reason
    assert conductor.to_loop.startswith(b"HTTP/1.1 %d " % status)
    answer = json.loads(conductor.to_loop.partition(b"\r\n\r\n")[2])
    assert answer["error"] == wanted
    assert answer["next_step"]
    assert [record.reason for record in conductor.denied] == [wanted]
    assert not conductor.to_server
    conductor.down_eof()
    conductor.check_ended()


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (GET.replace(b"GET", b"TRACE"), 405, Reason.METHOD_REFUSED),
        (
            GET[:-2] + UPGRADE,
            501,
            Reason.UPGRADE_REFUSED,
        ),
        (b"CONNECT * HTTP/1.1\r\n" + HOST + b"\r\n", 400, Reason.PROTOCOL_ERROR),
        (b"CONNECT api.example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405, Reason.METHOD_REFUSED),
        (b"CONNECT /a HTTP/1.1\r\n" + HOST + b"\r\n", 405, Reason.METHOD_REFUSED),
    ],
)
def test_never_forwarded(request_bytes: bytes, status: int, reason: Reason) -> None:
    """TRACE, CONNECT and upgrades are refused without asking the policy, and recorded."""
    conductor = Conductor(SPEC, World())
    conductor.down(request_bytes)
    conductor.down_eof()
    conductor.check_ended()
    assert conductor.to_loop.startswith(b"HTTP/1.1 %d " % status)
    assert not conductor.judged
    assert [record.reason for record in conductor.denied] == [reason]


def test_many_refusals_in_one_piece() -> None:
    """A thousand pipelined requests that we answer ourselves are answered, without recursion."""
    conductor = Conductor(SPEC, World())
    conductor.down(GET.replace(b"GET", b"TRACE") * 1000)
    conductor.down_eof()
    conductor.check_ended()
    assert conductor.to_loop.count(b"HTTP/1.1 405 ") == 1000


def test_nothing_is_asked_for_that_can_not_be_scanned() -> None:
    """Codings, deltas and ranges are not asked for while a credential is used."""
    server = Server((OK,))
    conductor = Conductor(SPEC, World(server=server))
    asked = b"Accept-Encoding: gzip, br\r\nA-IM: vcdiff, gzip\r\n"
    asked += b"Range: bytes=1-2\r\nIf-Range: x\r\nTE: gzip\r\n"
    conductor.down(b"GET / HTTP/1.1\r\n" + HOST + asked + b"\r\n")
    [seen] = server.requests
    assert {name for name, _ in seen.headers} == {b"host", b"accept-encoding", b"authorization"}
    assert seen.header(b"accept-encoding") == [b"identity"]
