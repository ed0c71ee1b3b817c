"""Hypothesis strategies of HTTP/1.1 requests: well-formed ones, and ones nearly so."""

from hypothesis import strategies as st

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
PCHAR = "abcXYZ019-._~!$&'()*+,;=:@"
segments = st.one_of(
    st.text(PCHAR, min_size=1, max_size=8).filter(lambda text: text.strip(".").strip()),
    st.sampled_from(["%20", "%C3%A4", "%7E", "a%3Bb", "%25"]),
)
paths = st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts))
queries = st.one_of(st.just(""), st.text(PCHAR + "/?[]{}|%", max_size=20).map(lambda q: "?" + q))
names = st.one_of(
    st.text(TOKEN, min_size=1, max_size=10).map(lambda name: "X-" + name),
    st.sampled_from(["Accept", "Cookie", "User-Agent", "Content-Type", "TE", "Keep-Alive"]),
)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
).map(lambda value: value.encode("latin-1"))
spaces = st.sampled_from([b"", b" ", b"\t", b"  "])
field_lines = st.builds(
    lambda name, before, value, after: name.encode() + b":" + before + value + after + b"\r\n",
    names,
    spaces,
    values,
    spaces,
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a complete request: head and body. Most are well-formed."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"]))
    target = draw(paths) + draw(queries)
    body = draw(st.binary(max_size=40))
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    fields = draw(st.lists(field_lines, max_size=5))
    payload = b""
    if kind == "length":
        fields.append(b"Content-Length: %d\r\n" % len(body))
        payload = body
    elif kind == "chunked":
        cut = draw(st.integers(0, len(body)))
        fields.append(b"Transfer-Encoding: chunked\r\n")
        for part in (body[:cut], body[cut:]):
            payload += b"%x;e=1\r\n%b\r\n" % (len(part), part) if part else b""
        payload += b"0\r\n" + draw(st.sampled_from([b"", b"T: 1\r\n"])) + b"\r\n"
    fields.insert(draw(st.integers(0, len(fields))), b"Host: api.example.com\r\n")
    return f"{method} {target} HTTP/1.1\r\n".encode() + b"".join(fields) + b"\r\n" + payload


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a request with a few bytes put in, taken out or changed."""
    data = bytearray(draw(requests()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        put = draw(
            st.sampled_from(
                [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b",", b";", b"0", b"%", b"/",
                 b"..", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n",
                 b"Connection: host\r\n", b"\xff", b""]
            )
        )  # fmt: skip
        data[at : at + draw(st.integers(0, 2))] = put
    return bytes(data)
