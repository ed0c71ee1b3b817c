"""The leak matrix: every credential, written by every encoder, at every place of an answer.

The server knows the secret and says it; the loop looks for it with decoders of its own, not with
what the scrubber searches for.
"""

import base64
import html
import itertools
import json
import re
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

import pytest

from agent.model.credential import (
    AwsKeys,
    Basic,
    Bearer,
    Credential,
    Header,
    QueryParameter,
    type_of,
)
from agent.model.grant import AwsOptions
from agent.model.secret import Secret
from agent.protocols.http1 import SPEC
from tests.conformance.conductor import Conductor, World, lease, target
from tests.protocols.http1.server import Server

LONG = base64.b64encode(bytes(itertools.chain(range(250, 256), range(200)))).decode()
WORD = "c4n4ry/+Echo=5d84b60a91f3"
CREDENTIALS: dict[str, tuple[Credential, str]] = {  # and what the server took out of it
    "bearer": (Bearer(Secret(WORD.encode())), WORD),
    "bearer, long": (Bearer(Secret(LONG.encode())), LONG),
    "basic": (Basic("robot", Secret(WORD.encode())), WORD),
    "basic, its pair": (
        Basic("robot", Secret(b"pa?ss>>wo~rd?>?0123")),
        base64.b64encode(b"robot:pa?ss>>wo~rd?>?0123").decode(),
    ),
    "field": (Header("X-Api-Key", Secret(WORD.encode())), WORD),
    "field, behind its scheme": (Header("Authorization", Secret(b"Token " + WORD.encode())), WORD),
    "parameter": (QueryParameter("api_key", Secret(WORD.encode())), WORD),
    "aws, secret": (
        AwsKeys(Secret(b"ASIA0EXAMPLE"), Secret(WORD.encode()), Secret(LONG.encode())),
        WORD,
    ),
    "aws, token": (
        AwsKeys(Secret(b"ASIA0EXAMPLE"), Secret(WORD.encode()), Secret(LONG.encode())),
        LONG,
    ),
}


def _all_escaped(form: str) -> Callable[[str], str]:
    return lambda text: "".join(form % ord(one) for one in text)


def _wrapped(shift: int) -> Callable[[str], str]:
    return lambda text: base64.b64encode(b"x" * shift + text.encode() + b"yz").decode()


ENCODERS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "within": lambda text: f"Bearer {text}, which is bad",
    "percent": lambda text: quote(text, safe=""),
    "percent, lower": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(text, safe="")
    ),
    "percent, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "JSON": json.dumps,
    "JSON, slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON, .NET": lambda text: json.dumps(text).replace("+", "\\u002B"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text).replace("/", "\\/")),
    "HTML": html.escape,
    "HTML, decimal": lambda text: re.sub("[^a-zA-Z0-9]", lambda one: f"&#{ord(one[0])};", text),
    "HTML, ASP.NET": lambda text: html.escape(text).replace("+", "&#x2B;"),
    "base64": _wrapped(0),
    "base64, 1": _wrapped(1),
    "base64, 2": _wrapped(2),
    "base64, unpadded": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64, url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64, percent": lambda text: quote(base64.b64encode(b"x" + text.encode()), safe=""),
    "base64, PHP": lambda text: _wrapped(2)(text).replace("/", "\\/"),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, upper": lambda text: text.encode().hex().upper(),
}
THOROUGH = {  # of what is no longer than 64 bytes
    "percent, all": _all_escaped("%%%02X"),
    "percent, all, twice": _all_escaped("%%25%02x"),
    "JSON, all": _all_escaped("\\u%04x"),
    "JavaScript, all": _all_escaped("\\x%02x"),
    "HTML, all": _all_escaped("&#x%x;"),
    "HTML, all, decimal": _all_escaped("&#%03d;"),
}


def _length(body: bytes, fields: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)


def _chunked(body: bytes, size: int, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0%b\r\n%b\r\n" % (
        chunks,
        extension,
        trailer,
    )


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "reason": lambda said: _length(b"ok", status=b"403 " + said),
    "field": lambda said: _length(b"ok", b"X-Said: %b\r\n" % said),
    "field, no space": lambda said: _length(b"ok", b"X-Said:%b \r\n" % said),
    "cookie": lambda said: _length(b"ok", b"Set-Cookie: a=%b; Path=/\r\n" % said),
    "location": lambda said: _length(b"", b"Location: /?k=%b\r\n" % said, b"302 Found"),
    "link and refresh": lambda said: _length(
        b"", b"Link: <%b>\r\nRefresh: 1;%b\r\n" % (said, said)
    ),
    "challenge": lambda said: _length(
        b"", b'WWW-Authenticate: Bearer error="%b"\r\n' % said, b"401 Unauthorized"
    ),
    "interim": lambda said: (
        b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % said + _length(b"ok")
    ),
    "hop-by-hop": lambda said: _length(b"ok", b"Connection: X-A\r\nX-A: %b\r\n" % said),
    "body": _length,
    "body, between zeros": lambda said: _length(b"\0" + said + b"\0\xff"),
    "body of an error": lambda said: _length(said, status=b"500 Oops"),
    "body, multipart": lambda said: _length(
        b"--b\r\nContent-Type: text/plain\r\n\r\n" + said + b"\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n",
    ),
    "chunks of 1": lambda said: _chunked(said, 1),
    "chunks of 7": lambda said: _chunked(b"data: " + said + b"\n\n", 7),
    "chunk extension": lambda said: _chunked(b"ok", 1, extension=b";x=" + said),
    "trailer": lambda said: _chunked(b"ok", 2, trailer=b"X-Said: %b\r\n" % said),
    "until the end": lambda said: b"HTTP/1.1 200 OK\r\n\r\n" + said,
    "HTTP/1.0": lambda said: b"HTTP/1.0 200 OK\r\nX-Said: %b\r\n\r\n%b" % (said, said),
    "cut off": lambda said: b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + said,
    "body of no content": lambda said: b"HTTP/1.1 204 No\r\nX-Said: %b\r\n\r\n%b" % (said, said),
    "body of not modified": lambda said: b"HTTP/1.1 304 Same\r\nETag: %b\r\n\r\n%b" % (said, said),
    "behind the answer": lambda said: _length(b"ok") + _length(said),
    "folded": lambda said: _length(b"ok", b"X-Said: a\r\n %b\r\n" % said),
    "switched": lambda said: b"HTTP/1.1 101 Go\r\nUpgrade: %b\r\n\r\n%b" % (said, said),
    "no HTTP": lambda said: said + b"\r\n\r\n",
    "gzip, it says": lambda said: _length(said, b"Content-Encoding: gzip\r\n"),
    "range": lambda said: _length(said, b"Content-Range: bytes 0-9/99\r\n", b"206 Partial"),
    "a delta": lambda said: _length(said, b"IM: vcdiff\r\n", b"226 IM Used"),
    "gzip, by its other name": lambda said: _length(said, b"IM: gzip\r\n"),
    "head too long": lambda said: _length(b"", (b"X-A: %b\r\n" % (said * 20)) * 99),
}


WAYS = ((b"GET", 65_536), (b"GET", 3), (b"HEAD", 11))
HEADS = frozenset(PLACES) - {"body", "chunks of 7", "until the end", "body, multipart", "HTTP/1.0"}


def _heard(said: bytes, credential: Credential, method: bytes, piece: int) -> bytes:
    """Return all that the loop gets of an answer."""
    shape = next(shape for shape, kind in type_of.items() if isinstance(credential, kind))
    aws = AwsOptions("s3", "eu-west-1") if isinstance(credential, AwsKeys) else None
    world = World(
        target=target(shape=shape, aws=aws),
        lease=lease(credential),
        server=Server((said,)),
        server_piece=piece,
    )
    conductor = Conductor(SPEC, world)
    conductor.down(method + b" /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    assert conductor.to_server, conductor.to_loop
    conductor.up_eof()
    conductor.down_eof()
    assert not conductor.problems
    return conductor.to_loop


def _readings(heard: bytes) -> list[bytes]:
    """Return what a loop would try: unescaped, unchunked, from base64 and hexadecimal."""
    texts = [heard, re.sub(rb"\r\n[0-9a-f]+\r\n", b"", heard)]
    for _ in range(2):
        texts += [unquote_to_bytes(text) for text in texts]
    texts += [html.unescape(html.unescape(text.decode("latin-1"))).encode() for text in texts[:2]]
    slashed = [re.sub(rb"\\+([^ux])", rb"\1", text) for text in texts]
    texts += [
        re.sub(rb"\\+(?:u00|x)(..)", lambda found: bytes.fromhex(found[1].decode()), text)
        for text in (*slashed, heard)
        if re.fullmatch(rb"(?s)(?:[^\\]|\\+(?:u00|x)[0-9a-fA-F]{2})*", text)
    ]
    for text in list(texts):
        for run in re.findall(rb"[A-Za-z0-9+/_\\-]{16,}", text):
            plain = run.replace(b"\\", b"").replace(b"-", b"+").replace(b"_", b"/")
            texts += [
                base64.b64decode(plain[at:] + b"A" * (-len(plain[at:]) % 4)) for at in range(4)
            ]
            if re.fullmatch(rb"[0-9a-fA-F]+", run):
                texts.append(bytes.fromhex(run.decode()[: len(run) // 2 * 2]))
    return texts


def _encoders(text: str) -> dict[str, Callable[[str], str]]:
    return ENCODERS | THOROUGH if len(text) <= 64 else ENCODERS


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_place_tells_the_credential(kind: str, place: str) -> None:
    """However it is written there, the loop can't read eight characters of it anywhere."""
    credential, secret = CREDENTIALS[kind]
    pieces = {secret[at : at + 8].encode() for at in range(len(secret) - 7)}
    for number, (name, encode) in enumerate(_encoders(secret).items()):
        said = PLACES[place](encode(secret).encode())
        for method, piece in (WAYS[number % 3],) if place in HEADS else WAYS[:2]:
            heard = _heard(said, credential, method, piece)
            told = {one for text in _readings(heard) for one in pieces if one in text}
            assert not told, (name, method, piece, heard)


@pytest.mark.parametrize("name", ENCODERS | THOROUGH)
def test_the_readings_find_what_is_told(name: str) -> None:
    """The control: without a credential of its own the loop reads all of it."""
    encode = (ENCODERS | THOROUGH)[name]
    heard = _heard(_length(encode(WORD).encode()), Bearer(Secret(b"another-one")), b"GET", 65_536)
    assert any(WORD.encode() in text for text in _readings(heard))
