"""The leak matrix: an upstream that repeats the credential in every shape it can think of."""

import base64
import gzip
import os
import queue
import subprocess
import tempfile
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.certificates import Authority
from tests.servers.scripted import Conversation, scripted_server
from tests.system.host import Host, running

TOKEN = "c4n4ry/+echo=5d84b60a91f3"  # with characters that encodings treat in their own ways
NAME = "echo.test.internal"
POLICY = """
targets:
  echo:
    protocol: http
    address: https://{name}
    ca: {ca}
    dial: "127.0.0.1:{port}"
    durability: process
    credential: {{provider: static, file: {secret}, shape: bearer}}
loops:
  job:
    rules:
      - {{target: echo, allow: {{path: /**}}}}
"""


def length(body: bytes, fields: str = "") -> bytes:
    """Return an answer with a length."""
    return f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunks(pieces: list[bytes], fields: str = "", trailer: bytes = b"") -> bytes:
    """Return an answer in chunks."""
    head = f"HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode()
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + body + b"0\r\n" + trailer + b"\r\n"


def cut(data: bytes, size: int) -> list[bytes]:
    """Return the pieces of that size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


EVENTS = 3
SEEN: "queue.Queue[None]" = queue.Queue()  # events that came down to the loop
OCTETS = "Content-Type: application/octet-stream\r\n"
SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "header": lambda value: length(b"ok", f"X-Echo: {value.decode()}\r\n"),
    "many-headers": lambda value: length(
        b"ok", "".join(f"X-Echo-{n}: a{value.decode()}b\r\n" for n in range(50))
    ),
    "cookie": lambda value: length(b"ok", f"Set-Cookie: s={value.decode()}; Path=/\r\n"),
    "location": lambda value: length(
        b"", f"Location: https://x/?t={urllib.parse.quote(value, safe='')}\r\n"
    ).replace(b"200 OK", b"302 Found"),
    "reason": lambda value: length(b"ok").replace(b"200 OK", b"200 " + value),
    "text": lambda value: length(b"you sent " + value, "Content-Type: text/plain\r\n"),
    "octets": lambda value: length(b"\0\xff" + value + b"\0", OCTETS),
    "no-type": length,
    "error-body": lambda value: length(value).replace(b"200 OK", b"500 Internal Server Error"),
    "three-megabytes": lambda value: length(b"x" * (3 << 20) + value + b"y" * 100),
    "twice": lambda value: length(value + value),
    "base64": lambda value: length(base64.b64encode(value)),
    "base64-of-token": lambda value: length(base64.b64encode(value[7:])),
    "base64-shifted-1": lambda value: length(base64.b64encode(b"x" + value)),
    "base64-shifted-2": lambda value: length(base64.b64encode(b"xy" + value)),
    "base64-url": lambda value: length(base64.urlsafe_b64encode(value)),
    "hex": lambda value: length(value.hex().encode()),
    "hex-upper": lambda value: length(value.hex().upper().encode()),
    "percent": lambda value: length(urllib.parse.quote(value, safe="").encode()),
    "percent-lower": lambda value: length(urllib.parse.quote(value, safe="").lower().encode()),
    "percent-all": lambda value: length(b"".join(b"%%%02X" % byte for byte in value)),
    "json-escaped": lambda value: length(b"".join(b"\\u%04x" % byte for byte in value)),
    "json-slash": lambda value: length(value.replace(b"/", b"\\/")),
    "percent-twice": lambda value: length(
        urllib.parse.quote(urllib.parse.quote(value, safe=""), safe="").encode()
    ),
    "html-of-aspnet": lambda value: length(value.replace(b"+", b"&#x2B;").replace(b"=", b"&#61;")),
    "base64-in-php": lambda value: length(base64.b64encode(value).replace(b"/", b"\\/")),
    "base64-in-lines": lambda value: length(base64.encodebytes(b"x" * 50 + value)),
    "utf-16": lambda value: length(value.decode().encode("utf-16")),
    "delta": lambda value: length(value, "IM: vcdiff\r\n").replace(b"200 OK", b"226 IM Used"),
    "chunks-of-5": lambda value: chunks(cut(b"data: " + value + b"\n\n", 5)),
    "chunks-of-1": lambda value: chunks(cut(value, 1)),
    "until-close": lambda value: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + value,
    "trailer": lambda value: chunks([b"ok"], "Trailer: X-Echo\r\n", b"X-Echo: " + value + b"\r\n"),
    "interim": lambda value: (
        b"HTTP/1.1 103 Early Hints\r\nLink: <" + value + b">\r\n\r\n" + length(b"ok")
    ),
    "gzip": lambda value: length(gzip.compress(value), "Content-Encoding: gzip\r\n"),
    "deflate": lambda value: length(zlib.compress(value), "Content-Encoding: deflate\r\n"),
    "brotli-label": lambda value: length(value, "Content-Encoding: br\r\n"),
    "gzip-transfer": lambda value: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + gzip.compress(value)
    ),
}


def forms() -> set[bytes]:
    """Return what must not come down: long enough pieces of the token in each encoding."""
    token = TOKEN.encode()
    found = {token, token.hex().encode(), token.hex().upper().encode()}
    for shift in range(3):
        found.add(base64.b64encode(b"\0" * shift + token)[4:-4])
        found.add(base64.urlsafe_b64encode(b"\0" * shift + token)[4:-4])
    found.add(urllib.parse.quote(token, safe="").encode())
    found.add(urllib.parse.quote(token, safe="").lower().encode())
    found.add(b"".join(b"%%%02X" % byte for byte in token))
    found.add(b"".join(b"\\u%04x" % byte for byte in token))
    found.add(token.replace(b"/", b"\\/"))
    found.add(urllib.parse.quote(urllib.parse.quote(TOKEN, safe=""), safe="").encode())
    found.add(token.replace(b"+", b"&#x2B;").replace(b"=", b"&#61;"))
    found.add(base64.b64encode(b"Bearer " + token).replace(b"/", b"\\/")[12:-4])
    found.add(base64.encodebytes(b"x" * 50 + b"Bearer " + token)[80:-6])
    found.add(TOKEN.encode("utf-16-le")[:-1])
    return found


def echo(conversation: Conversation) -> None:
    """Answer each request with its Authorization in the shape that its path names."""
    while head := conversation.read_until(b"\r\n\r\n"):
        path = head.split(b" ", 2)[1].decode()[1:].partition("?")[0]
        value = head.partition(b"\r\nAuthorization: ")[2].partition(b"\r\n")[0] or b"none"
        if path == "events":
            conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(EVENTS):
                conversation.send(b"%x\r\ndata: %d\n\n\r\n" % (len(b"data: 0\n\n"), number))
                SEEN.get(timeout=120)
            conversation.send(b"0\r\n\r\n")
            continue
        answer = SHAPES[path](value)
        conversation.send(answer)
        if path in ("until-close", "gzip-transfer"):
            return


@contextmanager
def echoing() -> Iterator[Host]:
    """Run the echoing upstream and a worker host."""
    authority = Authority()
    with (
        tempfile.TemporaryDirectory(prefix="lwt-leaks-") as folder,
        scripted_server(echo, authority.identity(NAME)) as server,
    ):
        base = Path(folder)
        base.chmod(0o755)
        (base / "ca.pem").write_text(authority.pem)
        secret = base / "token"
        secret.write_text(TOKEN)
        secret.chmod(0o600)
        os.chown(secret, 64201, 64201)
        policy = POLICY.format(name=NAME, ca=base / "ca.pem", port=server.port, secret=secret)
        with running(f"lwleak{os.getpid() % 10_000}", policy) as host:
            yield host


@pytest.fixture(scope="module")
def echo_host() -> Iterator[Host]:
    """One host for all shapes."""
    with echoing() as host:
        yield host


def test_no_shape_leaks(echo_host: Host) -> None:
    """Every shape: no form of the token comes down, in what curl shows of head and body."""
    call = "curl -sS -i --raw --max-time 120"
    script = "\n".join(
        f"echo '=== {shape}'; {call} https://{NAME}/{shape} 2>&1 | base64 -w0; echo"
        for shape in SHAPES
    )
    done = echo_host.run("job", ["/bin/sh", "-c", script], timeout_s=1800)
    answers = done.stdout.split("=== ")[1:]
    assert len(answers) == len(SHAPES)
    leaked = []
    statuses = {}
    for answer in answers:
        shape, _, text = answer.partition("\n")
        raw = base64.b64decode(text)
        statuses[shape] = raw.split(b" ", 2)[1:2]
        leaked += [(shape, raw[:200]) for form in forms() if form in raw]
    assert not leaked
    refused = {shape for shape, status in statuses.items() if status == [b"502"]}
    assert refused <= {"gzip", "deflate", "brotli-label", "gzip-transfer", "delta"}
    assert statuses["text"] == [b"200"]


def test_ranges_do_not_give_the_token_in_pieces(echo_host: Host) -> None:
    """A loop that asks for one byte at a time gets whole, scrubbed answers."""
    script = f"curl -sS -r 10-12 https://{NAME}/text; curl -sS -H 'If-Range: x' -r 1-2 https://{NAME}/text"
    done = echo_host.run("job", ["/bin/sh", "-c", script])
    assert done.stdout.count("you sent") == 2
    assert TOKEN[2:8] not in done.stdout


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "TRACK"])
def test_methods_that_echo_are_refused(echo_host: Host, method: str) -> None:
    """TRACE and CONNECT never reach the upstream."""
    request = f"{method} https://{NAME}/text"
    done = echo_host.run("job", ["curl", "-sS", "-i", "-X", method, f"https://{NAME}/text"])
    if method == "TRACK":
        assert TOKEN not in done.stdout, request
    else:
        assert done.stdout.startswith(
            ("HTTP/1.1 405", "HTTP/1.1 403", "HTTP/1.1 501", "HTTP/1.1 400")
        )


def test_events_are_not_held_up(echo_host: Host) -> None:
    """An event stream's events come down as they are sent, not at the end."""
    with subprocess.Popen(
        echo_host.run_command("job", ["curl", "-sSN", f"https://{NAME}/events"]),
        stdout=subprocess.PIPE,
        text=True,
        env=echo_host.loop_environment(),
        cwd="/",
    ) as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            if line.startswith("data: "):
                seen += 1
                SEEN.put(None)  # only now the next one is sent
        assert process.wait(120) == 0
    assert seen == EVENTS
