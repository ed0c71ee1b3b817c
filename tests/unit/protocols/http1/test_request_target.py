"""Request targets: one form of a path for policy, record and upstream."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocols.http1.malformed import Malformed
from agent.protocols.http1.request_target import canonical_path, parse_request_target

SAME = (
    b"/", b"/a", b"/a/", b"/a/b.c", b"/.well-known/x", b"/a..b", b"/...", b"/a;b=c", b"/a:b@c",
    b"/%20", b"/%C3%A4", b"/%25", b"/a%3Bb", b"/(a)*!'$&+,=",
)  # fmt: skip
REWRITTEN = ((b"/%7euser", b"/~user"), (b"/%41%2d%5f", b"/A-_"), (b"/%c3%a4", b"/%C3%A4"),
             (b"/@a%2fb", b"/@a%2Fb"), (b"/a%2f", b"/a%2F"))  # fmt: skip


@pytest.mark.parametrize("path", SAME)
def test_canonical_paths_stay(path: bytes) -> None:
    """A canonical path is forwarded byte for byte."""
    assert canonical_path(path) == path


@pytest.mark.parametrize(("path", "canonical"), REWRITTEN)
def test_only_equivalent_forms_are_rewritten(path: bytes, canonical: bytes) -> None:
    """Encoded unreserved characters and hex digits get their one form (RFC 3986 6.2.2)."""
    assert canonical_path(path) == canonical


@given(st.text("/.;%2eEfF5cC0aA~b", max_size=20))
def test_a_path_has_one_reading(text: str) -> None:
    """What is accepted is its own canonical form, and decoding once or twice hides no segment.

    An encoded slash is seen: it and what is around it is the policy's to decide.
    """
    path = canonical_path(b"/" + text.encode())
    if isinstance(path, Malformed):
        return
    assert canonical_path(path) == path
    once = unquote_to_bytes(path)
    slashes = path.count(b"/") + path.count(b"%2F")
    assert once.count(b"/") == slashes
    assert unquote_to_bytes(once).count(b"/") == slashes
    for reading in (path, once, unquote_to_bytes(once)):
        segments = reading.split(b"/")
        assert b"" not in segments[1:-1]
        assert not {b".", b".."} & {segment.partition(b";")[0] for segment in segments}


@pytest.mark.parametrize(
    ("method", "target", "parts"),
    [
        (b"GET", b"/a?b?c", (b"/a", b"b?c", None)),
        (b"GET", b"/a?", (b"/a", b"", None)),
        (b"GET", b"http://h:80/a?b", (b"/a", b"b", b"h:80")),
        (b"GET", b"HTTPS://h", (b"/", None, b"h")),
        (b"OPTIONS", b"*", (b"*", None, None)),
    ],
)
def test_forms(method: bytes, target: bytes, parts: object) -> None:
    """Origin-form, absolute-form and asterisk-form."""
    assert parse_request_target(method, target) == parts


@pytest.mark.parametrize(("method", "target"), [(b"OPTIONS", b"http://h"), (b"GET", b"http://h?a")])
def test_absolute_form_needs_a_path_where_it_matters(method: bytes, target: bytes) -> None:
    """An absolute-form without a path has two readings with OPTIONS or a query."""
    assert isinstance(parse_request_target(method, target), Malformed)
