"""The known-secret scrubber."""

import base64
import functools
import gc
import html
import json
import quopri
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.masking.encodings import SECRET_BYTES_MAX, SECRET_BYTES_MIN
from agent.masking.escapes import TOLERANT_BYTES_MAX
from agent.masking.scrubber import KNOWN_BYTES_MAX, Scrubber
from agent.model.secret import Secret
from tests.unit.spent import is_quick

TOKEN = b'gho_R4nd+m/T0k=n"with\\quotes'
secrets = st.binary(min_size=SECRET_BYTES_MIN, max_size=80)


def _stream(scrubber: Scrubber, data: bytes, piece: int) -> bytes:
    stream = scrubber.stream()
    parts = [stream.feed(data[at : at + piece]) for at in range(0, len(data), piece)]
    return b"".join(parts) + stream.flush()


def _entities(text: str, further: dict[str, str]) -> bytes:
    table = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | further
    return "".join(table.get(character, character) for character in text).encode("latin-1")


def _forms(token: bytes) -> dict[str, bytes]:
    text = token.decode("latin-1")
    return {
        "verbatim": token,
        "base64": base64.b64encode(token),
        "base64, second alignment": base64.b64encode(b"x" + token + b"y"),
        "base64, third alignment": base64.b64encode(b"xx" + token + b"yz"),
        "base64url": base64.urlsafe_b64encode(token),
        "percent, upper": quote(token, safe="").encode(),
        "percent, lower": "".join(f"%{byte:02x}" for byte in token).encode(),
        "percent, all upper": "".join(f"%{byte:02X}" for byte in token).encode(),
        "json": json.dumps(text)[1:-1].encode(),
        "json with slashes escaped": json.dumps(text)[1:-1].replace("/", "\\/").encode(),
        "json, all escaped": "".join(f"\\u{byte:04x}" for byte in token).encode(),
        "octal, all escaped": "".join(f"\\{byte:03o}" for byte in token).encode(),
        "hex": token.hex().encode(),
        "hex, upper": token.hex().upper().encode(),
        "hex, spaced": token.hex(" ").encode(),
        "hex, upper, spaced": token.hex(" ").upper().encode(),
        "HTML, by Python": html.escape(text).encode("latin-1"),
        "HTML, by Go": _entities(text, {'"': "&#34;", "'": "&#39;", "+": "&#43;"}),
        "HTML, by Mustache": _entities(
            text, {'"': "&quot;", "'": "&#39;", "/": "&#x2F;", "`": "&#x60;", "=": "&#x3D;"}
        ),
        "HTML, by Handlebars": _entities(
            text, {'"': "&quot;", "'": "&#x27;", "`": "&#x60;", "=": "&#x3D;"}
        ),
        "XML": _entities(text, {}),
    }


@pytest.mark.parametrize("form", _forms(TOKEN))
@pytest.mark.parametrize("piece", [1, 2, 5, 17, 1000])
def test_every_form_is_removed_at_every_cut(form: str, piece: int) -> None:
    """Each encoding is masked, whole or cut into pieces, and nothing else is changed."""
    hidden = _forms(TOKEN)[form]
    data = b'{"before": "' + hidden + b'", "after": "' + hidden + b'"}'
    scrubber = Scrubber([Secret(TOKEN)])
    for out in (scrubber.scrub(data), _stream(scrubber, data, piece)):
        assert len(out) == len(data)
        assert out.startswith(b'{"before": "')
        assert out.endswith(b'"}')
        assert b'", "after": "' in out
        stars = out.count(b"*")
        # of base64 text at most nine characters hold a part of a neighbour, or are padding
        assert stars >= 2 * (len(hidden) - 9) if "base64" in form else stars == 2 * len(hidden)
        assert all(other not in out for other in _forms(TOKEN).values())


@given(secret=secrets, parts=st.lists(st.binary(max_size=50), max_size=6), piece=st.integers(1, 99))
@example(secret=bytes(6), parts=[b"", b"\\"], piece=1)  # the hit's end is held for two pieces
def test_pieces_do_not_matter(secret: bytes, parts: list[bytes], piece: int) -> None:
    """However a body is cut, what comes out is what complete data gives, of the same length."""
    scrubber = Scrubber([Secret(secret)])
    data = secret.join(parts)
    whole = scrubber.scrub(data)
    assert len(whole) == len(data)
    assert _stream(scrubber, data, piece) == whole


@given(
    secret=secrets.filter(lambda secret: secret.strip(b"*")),  # stars hide all but stars
    before=st.binary(max_size=40),
    after=st.binary(max_size=40),
)
def test_no_secret_comes_through(secret: bytes, before: bytes, after: bytes) -> None:
    """Whatever stands around it, no complete form of the secret comes out."""
    scrubber = Scrubber([Secret(secret)])
    encoded = base64.b64encode(before + secret + after)
    for form in (secret, encoded, quote(secret, safe="").encode()):
        out = scrubber.scrub(before + form + after)
        assert not any(hidden in out for hidden in scrubber._literals)


@pytest.mark.parametrize("secret", [b"a+b/c=d&e", b"<\"quoted'`>", b"plain-of-any"])
def test_every_character_of_markup_is_known(secret: bytes) -> None:
    """As an entity where one of the templates makes it one."""
    scrubber = Scrubber([Secret(secret)])
    for form in _forms(secret).values():
        assert b"*" in scrubber.scrub(b"<p>" + form + b"</p>"), form


@given(data=st.binary(max_size=300), piece=st.integers(1, 50))
def test_other_data_is_the_same(data: bytes, piece: int) -> None:
    """Data without the secret comes out as it went in."""
    scrubber = Scrubber([Secret(b"\x00never-in-the-data\xff" * 3)])
    assert _stream(scrubber, data, piece) == data


def test_complete_data_is_not_copied() -> None:
    """With nothing to remove the same object comes back: the fast path copies nothing."""
    scrubber = Scrubber([Secret(TOKEN)])
    data = b"an ordinary body" * 1000
    assert scrubber.scrub(data) is data
    assert scrubber.stream().feed(data) is data


def test_an_event_stream_is_not_delayed() -> None:
    """Only an end that may begin a secret is held: events come out as they come in."""
    stream = Scrubber([Secret(TOKEN)]).stream()
    assert stream.feed(b"data: hello\n\n") == b"data: hello\n\n"
    assert stream.feed(b"data: gho_") == b"data: "
    assert stream.feed(b"nothing\n\n") == b"gho_nothing\n\n"


def test_what_is_held_is_bounded() -> None:
    """Ends that go on looking like a secret are held up to tail_bytes_max."""
    scrubber = Scrubber([Secret(b"a" * 40), Secret(b"aaaaaaaaab" * 5)])
    stream = scrubber.stream()
    sent = got = 0
    for _ in range(2000):
        got += len(stream.feed(b"a"))
        sent += 1
        assert sent - got <= scrubber.tail_bytes_max
    assert got + len(stream.flush()) == sent


def test_overlapping_secrets_are_both_removed() -> None:
    """Of two secrets that overlap in the data no byte stays."""
    scrubber = Scrubber([Secret(b"abcdef-123"), Secret(b"123-ghijkl")])
    assert scrubber.scrub(b"<abcdef-123-ghijkl>") == b"<" + b"*" * 17 + b">"
    for piece in range(1, 20):
        assert _stream(scrubber, b"<abcdef-123-ghijkl>", piece) == b"<" + b"*" * 17 + b">"


@pytest.mark.parametrize("size", [SECRET_BYTES_MIN, SECRET_BYTES_MAX])
def test_limits_at(size: int) -> None:
    """A secret of the least and of the greatest length is removed."""
    secret = (b"0123456789abcdef" * 1024)[:size]
    assert Scrubber([Secret(secret)]).scrub(b"x" + secret) == b"x" + b"*" * size


@pytest.mark.parametrize("size", [SECRET_BYTES_MIN - 1, SECRET_BYTES_MAX + 1])
def test_limits_past(size: int) -> None:
    """One byte less or more is refused, and the error does not quote it."""
    with pytest.raises(ValueError, match="too short or too long"):
        Scrubber([Secret(b"s" * size)])


@pytest.mark.parametrize("size", [TOLERANT_BYTES_MAX, TOLERANT_BYTES_MAX + 1])
def test_long_secrets_in_escapes(size: int) -> None:
    """Of a secret longer than 64 bytes the last 64 are removed where escapes are mixed."""
    secret = bytes(33 + n % 90 for n in range(size))
    mixed = b"".join(b"%%%02x" % byte if byte % 2 else b"\\u%04X" % byte for byte in secret)
    out = Scrubber([Secret(secret)]).scrub(mixed)
    shown = size - TOLERANT_BYTES_MAX
    assert out.count(b"*") == len(mixed) - shown * (3 if secret[0] % 2 else 6)


def test_its_repr_shows_nothing() -> None:
    """Neither scrubber nor stream shows a secret."""
    scrubber = Scrubber([Secret(TOKEN)])
    assert b"gho_" not in repr(scrubber).encode() + repr(scrubber.stream()).encode()


def test_no_secrets() -> None:
    """Without a secret nothing is removed or held."""
    stream = Scrubber([]).stream()
    assert stream.feed(b"100% \\") + stream.flush() == b"100% \\"


@given(cut=st.integers(0, 60))
def test_the_last_piece_leaves_nothing_behind(cut: int) -> None:
    """A secret across the cut is removed, and after the last piece nothing is held."""
    scrubber = Scrubber([Secret(b"the-last-secret")])
    data = b"some text before the-last-secret and after, the-last-sec"
    stream = scrubber.stream()
    out = stream.feed(data[:cut]) + stream.feed(data[cut:], last=True)
    assert out == data.replace(b"the-last-secret", b"*" * 15)
    assert stream.flush() == b""


def test_what_comes_again_is_clean_again() -> None:
    """Complete data that recurs gives the same answer, and other data between is no matter."""
    scrubber = Scrubber([Secret(b"the-secret")])
    small, large = b"has the-secret", b"has the-secret" + b"x" * KNOWN_BYTES_MAX
    for _ in range(2):
        assert scrubber.scrub(small) == b"has **********"
        assert scrubber.scrub(b"has none") == b"has none"
        assert scrubber.scrub(large).startswith(b"has **********x")
        assert scrubber.scrub(small) == b"has **********"


@pytest.mark.parametrize(
    ("secret", "nearly"),
    [
        (b"a" + b"\\" * 62 + b"b", b"a" + b"\\" * 121 + b"c"),
        (b'\\"' * 32, b'\\\\"' * 31 + b"c"),
        (b"\\u" * 32, b"\\\\u" * 31 + b"c"),
        (b"\\" * 64, b"\\" * 63),
        (b"%" * 64, b"%25" * 63),
        (b"%25" * 21, b"%2525" * 20),
    ],
)
def test_what_is_nearly_a_secret_of_escapes_costs_little(secret: bytes, nearly: bytes) -> None:
    """Each could be read in 2 to the 30th ways or more; the time is that of a few."""
    scrubber = Scrubber([Secret(secret)])
    data = (nearly * (KNOWN_BYTES_MAX * 8 // len(nearly)))[: KNOWN_BYTES_MAX * 8]
    for end in range(len(data) - 200, len(data)):  # 20 ms each
        assert is_quick(functools.partial(scrubber.tail, data[:end]), 0.5)
    assert is_quick(lambda: scrubber.spans(data), 0.5)


@pytest.mark.parametrize("secret", [b'\\\\a\\"b\\', b"a\\u0061\\\\\\n%41", b"\\" * 8])
def test_backslashes_are_found_in_every_form(secret: bytes) -> None:
    """Plain, escaped once, in percent, or in full, also cut anywhere."""
    scrubber = Scrubber([Secret(secret)])
    for name, form in _forms(secret).items():
        if "base64" in name:
            continue
        data = b"<" + form + b">"
        for piece in (1, 3, 1000):
            assert _stream(scrubber, data, piece) == b"<" + b"*" * len(form) + b">", name


def test_no_pattern_of_a_secret_outlives_its_scrubber() -> None:
    """The process has none of its patterns when the lease's scrubber is gone."""
    before = _patterns()
    scrubber = Scrubber([Secret(b"gho_outlives0nobody")])
    assert not _patterns() - before  # they are made at their first use
    scrubber.stream().feed(b"%67%68")
    assert len(_patterns() - before) == 2
    del scrubber
    assert not _patterns() - before


def _patterns() -> set[bytes]:
    found = (one.pattern for one in gc.get_objects() if isinstance(one, re.Pattern))
    return {pattern for pattern in found if isinstance(pattern, bytes)}


@pytest.mark.parametrize("escape", [quote, lambda text: json.dumps(text)[1:-1]])
def test_copies_that_overlap_are_removed_in_every_form(escape: Callable[[str], str]) -> None:
    """A secret that ends as it begins, and again from that end: nothing is left."""
    secret = "/ab%c\\d/"
    twice = escape(secret[:-1] + secret).encode()
    assert twice != (secret[:-1] + secret).encode()
    scrubber = Scrubber([Secret(secret.encode())])
    for piece in (1, 2, 3, 1000):
        assert _stream(scrubber, b"<" + twice + b">", piece) == b"<" + b"*" * len(twice) + b">"


PLUS = b"v1/Zm9v+YmFy=d84b60a91f3cQx0"  # with what encoders escape, and letters that they don't
LONG = base64.b64encode(bytes(range(251, 255)) * 60 + bytes(range(256)))  # as AWS' tokens are


def _minimal(token: bytes) -> dict[str, bytes]:
    """Return what real encoders make of it: escapes for what needs them, lines of 60 or 76."""
    text = token.decode()
    once = quote(text, safe="")
    aspnet = _entities(text, {'"': "&quot;", "'": "&#x27;", "+": "&#x2B;"})
    header = b"authorization: Basic " + base64.b64encode(b"robot:" + token)
    return {
        "percent": once.encode(),
        "percent, twice": quote(once, safe="").encode(),
        "percent, three times": quote(quote(once, safe=""), safe="").encode(),
        "percent, as a path": quote(text).encode(),
        "HTML, ASP.NET": aspnet,
        "HTML, OWASP": _entities(text, {"/": "&#x2f;", "+": "&#43;", "=": "&#61;"}),
        "HTML, by name": _entities(text, {"/": "&sol;", "+": "&plus;", "=": "&equals;"}),
        "HTML, twice": html.escape(aspnet.decode()).encode(),
        "JSON, PHP": json.dumps(text).replace("/", "\\/").encode(),
        "JSON, .NET": json.dumps(text).replace("+", "\\u002B").encode(),
        "JSON in JSON": json.dumps(json.dumps(text).replace("/", "\\/")).encode(),
        "JavaScript": text.replace("+", "\\x2b").replace("/", "\\x2F").encode(),
        "JavaScript, braces": text.replace("+", "\\u{2b}").encode(),
        "C, octal": text.replace("+", "\\053").replace("/", "\\057").encode(),
        "base64, PHP": json.dumps(header.decode()).replace("/", "\\/").encode(),
        "base64, percent": quote(header, safe="").encode(),
        "base64, percent, twice": quote(quote(header, safe=""), safe="").encode(),
        "base64, lower percent": re.sub(
            rb"%..", lambda found: found[0].lower(), quote(header, safe="").encode()
        ),
        "base64, .NET": header.replace(b"+", b"\\u002B"),
        "base64, HTML": header.replace(b"+", b"&#43;").replace(b"/", b"&#x2F;"),
        "base64, lines of 76": base64.encodebytes(b"x" * 60 + header),
        "base64, lines in JSON": json.dumps(
            base64.encodebytes(b"x" * 60 + token).decode()
        ).encode(),
        "base64, lines with CR": base64.encodebytes(b"y" * 44 + token).replace(b"\n", b"\r\n"),
        "quoted-printable": quopri.encodestring(b"x" * 60 + token),
        "UTF-16": text.encode("utf-16"),
        "UTF-16, big": text.encode("utf-16-be"),
    }


@pytest.mark.parametrize("form", _minimal(PLUS))
@pytest.mark.parametrize("token", [PLUS, LONG], ids=["short", "long"])
@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_what_real_encoders_make_of_it(token: bytes, form: str, piece: int) -> None:
    """No piece of 10 characters of what the encoder wrote comes through, however it is cut."""
    hidden = _minimal(token)[form]
    scrubber = Scrubber([Secret(token)])
    before = b'<p title="a&amp;b">100%25 of \\"it\\" is: '
    out = _stream(scrubber, before + hidden + b" and no more", piece)
    assert out.startswith(before)
    assert out.endswith(b" and no more")
    assert scrubber.scrub(before + hidden + b" and no more") == out
    clear = hidden.translate(None, b"\r\n=\0").replace(b"\\n", b"")
    shown = out[len(before) : -len(b" and no more")].translate(None, b"\r\n=\0")
    exposed = _shared(clear.removeprefix(b"authorization: Basic "), shown.replace(b"\\n", b""))
    assert not [piece for piece in exposed if _is_of(piece, token)]


def _shared(clear: bytes, shown: bytes) -> list[bytes]:
    pieces = {clear[at : at + 10] for at in range(len(clear) - 9)}
    return [piece for piece in pieces if piece in shown]


def _is_of(piece: bytes, token: bytes) -> bool:
    """Whether it is of the secret's plain characters or its base64, and not of what is around."""
    forms = [token, token.decode().encode("utf-16-le"), token.decode().encode("utf-16-be")]
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + token)
        forms.append(encoded[4:-4])
    return any(piece in form for form in forms)


@pytest.mark.parametrize("secret", ["pässwörd-€uro", "schlüssel+😀/x"])
def test_what_is_no_ascii_is_known_by_its_code_points(secret: str) -> None:
    """JSON and HTML write code points; percent-encoding writes bytes."""
    scrubber = Scrubber([Secret(secret.encode())])
    references = "".join(f"&#{ord(one)};" if ord(one) > 127 else one for one in secret)
    for form in (json.dumps(secret), references, quote(secret)):
        for piece in (1, 5, 1000):
            out = _stream(scrubber, b"<" + form.encode() + b">", piece)
            assert out.count(b"*") >= len(form) - 2, form


def test_a_line_that_ends_like_a_secret_begins_is_not_delayed() -> None:
    """Lines that end with a letter or two that a form begins with go on at once."""
    stream = Scrubber([Secret(TOKEN)]).stream()
    for line in (b"data: going\n", b"ends with gh\n\n", b"ends with Z\n", b"a&amp;b%20c\n"):
        assert stream.feed(line) == line


def test_a_secret_of_words_does_not_slow_pages_with_them() -> None:
    """An anchor that is a common word is looked around at, and no farther."""
    scrubber = Scrubber([Secret(b"common+word/page")])
    data = b"<p>The most common word of this page is common, a&amp;b.</p>\n" * 4000
    assert scrubber.scrub(data) is data
    assert is_quick(lambda: scrubber.scrub(data[:-1]), 5.0)


def test_forms_are_made_once_a_secret() -> None:
    """The next connection of a lease compiles nothing."""
    secret = Secret(TOKEN)
    assert Scrubber([secret])._forms[0] is Scrubber([secret])._forms[0]
