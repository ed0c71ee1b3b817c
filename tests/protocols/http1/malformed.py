"""Requests with no one meaning. None of them may reach the upstream, and none may be guessed at.

Each row: what is wrong, the bytes, the status of our answer.
"""

HOST = b"Host: api.example.com\r\n"
LENGTH = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def _get(fields: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n"


def _path(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def _post(fields: bytes, body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def _chunked(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked\r\n", body)


def _host(lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + lines + b"\r\n"


MALFORMED: tuple[tuple[str, bytes, int], ...] = (
    # framing
    ("length and chunked", _post(LENGTH + CHUNKED, b"0\r\n\r\n"), 400),
    ("chunked and length", _post(CHUNKED + LENGTH, b"0\r\n\r\n"), 400),
    ("two equal lengths", _post(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"ab"), 400),
    ("two lengths", _post(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"abc"), 400),
    ("length list", _post(b"Content-Length: 2, 2\r\n", b"ab"), 400),
    ("length with plus", _post(b"Content-Length: +2\r\n", b"ab"), 400),
    ("length negative", _post(b"Content-Length: -2\r\n", b"ab"), 400),
    ("length hex", _post(b"Content-Length: 0x2\r\n", b"ab"), 400),
    ("length with underscore", _post(b"Content-Length: 1_0\r\n", b"0123456789"), 400),
    ("length empty", _post(b"Content-Length:\r\n", b""), 400),
    ("length with inner space", _post(b"Content-Length: 1 0\r\n", b"0123456789"), 400),
    ("length 2^53", _post(b"Content-Length: 9007199254740992\r\n", b""), 400),
    ("length 2^64+5", _post(b"Content-Length: 18446744073709551621\r\n", b"hello"), 400),
    ("length in other digits", _post("Content-Length: \u0665\r\n".encode(), b"hello"), 400),
    ("xchunked", _post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400),
    ("gzip, chunked", _post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 400),
    ("chunked, chunked", _post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 400),
    ("chunked twice", _post(b"Transfer-Encoding: chunked\r\n" * 2, b"0\r\n\r\n"), 400),
    ("identity", _post(b"Transfer-Encoding: identity\r\n", b""), 400),
    ("quoted chunked", _post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 400),
    ("chunked with vertical tab", _post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    ("empty coding", _post(b"Transfer-Encoding:\r\n", b""), 400),
    ("chunked in 1.0", _chunked(b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    ("underscored length", _post(b"Content_Length: 5\r\n", b"hello"), 400),
    ("underscored coding", _post(b"Transfer_Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    # chunks
    ("chunk size with space", _chunked(b"5 \r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size with 0x", _chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size with plus", _chunked(b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size empty", _chunked(b"\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size not hex", _chunked(b"zz\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size 2^64+5", _chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk size 2^53", _chunked(b"20000000000000\r\n"), 400),
    ("chunk line with bare LF", _chunked(b"5\nhello\r\n0\r\n\r\n"), 400),
    ("extension with bare LF", _chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
    ("extension with bare CR", _chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
    ("extension with NUL", _chunked(b"5;a\x00\r\nhello\r\n0\r\n\r\n"), 400),
    ("extension too long", _chunked(b"5;" + b"a" * 1023 + b"\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk longer than said", _chunked(b"3\r\nhello\r\n0\r\n\r\n"), 400),
    ("chunk ends with LF", _chunked(b"5\r\nhello\n0\r\n\r\n"), 400),
    ("chunk ends with CR CR", _chunked(b"5\r\nhello\r\r0\r\n\r\n"), 400),
    ("trailer without colon", _chunked(b"0\r\nnonsense\r\n\r\n"), 400),
    ("trailer with bare LF", _chunked(b"0\r\nA: b\nC: d\r\n\r\n"), 400),
    ("trailer folded", _chunked(b"0\r\nA: b\r\n c\r\n\r\n"), 400),
    ("trailers too long", _chunked(b"0\r\n" + b"A: b\r\n" * 1366 + b"\r\n"), 400),
    # lines and characters
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: api.example.com\n\n", 400),
    ("bare LF in a field", _get(b"A: b\nC: d\r\n"), 400),
    ("bare CR in a field", _get(b"A: b\rC: d\r\n"), 400),
    ("NUL in a field", _get(b"A: b\x00c\r\n"), 400),
    ("DEL in a field", _get(b"A: b\x7fc\r\n"), 400),
    ("control in a field", _get(b"A: b\x01c\r\n"), 400),
    ("folded field", _get(b"A: b\r\n c\r\n"), 400),
    ("first field folded", _host(b" Host: api.example.com\r\n"), 400),
    ("space before colon", _get(b"A : b\r\n"), 400),
    ("tab before colon", _get(b"A\t: b\r\n"), 400),
    ("no colon", _get(b"nonsense\r\n"), 400),
    ("empty name", _get(b": b\r\n"), 400),
    ("name with slash", _get(b"A/B: c\r\n"), 400),
    ("name with NUL", _get(b"A\x00B: c\r\n"), 400),
    ("name not ASCII", _get("Ä: b\r\n".encode()), 400),
    ("name too long", _get(b"a" * 257 + b": b\r\n"), 400),
    ("field too long", _get(b"a: " + b"b" * 16382 + b"\r\n"), 431),
    ("too many fields", _get(b"a: b\r\n" * 100), 431),
    ("head too long", _get(b"".join(b"a%d: %b\r\n" % (n, b"b" * 9000) for n in range(4))), 431),
    # request line
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 400),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 400),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("http/1.1 in lower case", b"GET / http/1.1\r\n" + HOST + b"\r\n", 400),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\n" + HOST + b"\r\n", 400),
    ("two spaces", b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("tab for space", b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("space before method", b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("space at the end", b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    ("space in the target", b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("method with brackets", b"GE[T] / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("method too long", b"G" * 33 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("no target", b"GET HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("two empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("line too long", _path(b"/" + b"a" * 8200), 414),
    ("TLS bytes", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    # target
    ("fragment", _path(b"/a#b"), 400),
    ("query with fragment", _path(b"/a?b#c"), 400),
    ("authority-form", _path(b"api.example.com:443"), 400),
    ("asterisk with GET", _path(b"*"), 400),
    ("relative path", _path(b"a/b"), 400),
    ("only a query", _path(b"?a=b"), 400),
    ("other scheme", _path(b"ftp://api.example.com/"), 400),
    ("userinfo", _path(b"https://user@api.example.com/"), 400),
    ("absolute-form of another host", _path(b"https://evil.example.com/"), 400),
    ("absolute-form of another port", _path(b"https://api.example.com:8443/"), 400),
    ("percent alone", _path(b"/a%"), 400),
    ("percent and one digit", _path(b"/a%4"), 400),
    ("percent and no hex", _path(b"/a%zz"), 400),
    ("percent-u", _path(b"/a%u002e"), 400),
    ("percent in the query", _path(b"/?a=%zz"), 400),
    ("dot segments", _path(b"/a/../admin"), 400),
    ("dot segment at the end", _path(b"/a/.."), 400),
    ("single dot", _path(b"/./admin"), 400),
    ("encoded dots", _path(b"/a/%2e%2e/admin"), 400),
    ("half encoded dots", _path(b"/a/.%2E/admin"), 400),
    ("dots with parameter", _path(b"/a/..;x=y/admin"), 400),
    ("dots with encoded semicolon", _path(b"/a/..%3b/admin"), 400),
    ("encoded slash before dots", _path(b"/a%2f../admin"), 400),
    ("dots before an encoded slash", _path(b"/a/..%2fadmin"), 400),
    ("encoded slash before encoded dots", _path(b"/a%2f%2e%2e%2fadmin"), 400),
    ("encoded slash behind a slash", _path(b"/a/%2fadmin"), 400),
    ("two encoded slashes", _path(b"/a%2f%2fadmin"), 400),
    ("encoded slash first", _path(b"/%2fevil.example.com/"), 400),
    ("encoded backslash", _path(b"/a%5c..%5cadmin"), 400),
    ("twice encoded slash", _path(b"/a%252fadmin"), 400),
    ("twice encoded dots", _path(b"/a/%252e%252e/admin"), 400),
    ("thrice encoded slash", _path(b"/a%25252fadmin"), 400),
    ("backslash", _path(b"/a\\..\\admin"), 400),
    ("two slashes first", _path(b"//evil.example.com/"), 400),
    ("two slashes within", _path(b"/a//b"), 400),
    ("encoded NUL", _path(b"/a%00.json"), 400),
    ("encoded CR LF", _path(b"/a%0d%0aX:y"), 400),
    ("overlong UTF-8 slash", _path(b"/a%c0%afadmin"), 400),
    ("overlong UTF-8 dot", _path(b"/%c0%ae%c0%ae/admin"), 400),
    ("not UTF-8", _path(b"/a%ff"), 400),
    ("surrogate", _path(b"/a%ed%a0%80"), 400),
    ("raw UTF-8", _path("/ä".encode()), 400),
    ("brackets in the path", _path(b"/a[0]"), 400),
    # fields with one meaning
    ("no Host", _host(b""), 400),
    ("two Hosts", _host(HOST + HOST), 400),
    ("two different Hosts", _host(HOST + b"Host: evil.example.com\r\n"), 400),
    ("folded Host", _host(b"Host: api.example.com\r\n evil\r\n"), 400),
    ("underscored content type", _get(b"Content_Type: a/b\r\n"), 400),
    ("underscored override", _get(b"X-A: 1\r\n").replace(b"X-A", b"x_http_method_override"), 400),
    ("Connection names Host", _get(b"Connection: host\r\n"), 400),
    ("Connection names Authorization", _get(b"Connection: close, Authorization\r\n"), 400),
    ("Connection names a signature", _get(b"Connection: x-amz-date\r\n"), 400),
    ("second Connection names Cookie", _get(b"Connection: close\r\nConnection: cookie\r\n"), 400),
    ("unknown expectation", _post(b"Expect: 200-ok\r\nContent-Length: 0\r\n", b""), 417),
    ("two expectations", _get(b"Expect: 100-continue\r\n" * 2), 400),
    ("method override", _get(b"X-HTTP-Method-Override: DELETE\r\n"), 400),
    ("path override", _get(b"X-Original-URL: /admin\r\n"), 400),
    ("path rewrite", _get(b"X-Rewrite-URL: /admin\r\n"), 400),
    ("two content types", _get(b"Content-Type: a/b\r\nContent-Type: c/d\r\n"), 400),
)  # fmt: skip
