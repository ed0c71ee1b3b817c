"""Request targets (RFC 9112 section 3.2): one meaning, or refused.

The path that policy sees is byte for byte the path that is forwarded. Only two things are
rewritten, both defined as equivalent by RFC 3986 section 6.2.2: percent-encoded unreserved
characters are decoded, and hex digits are written in upper case. What servers are known to read
in different ways is refused: empty segments (nginx merges them), dot segments also encoded and
with parameters ("..;" is ".." to Tomcat), encoded backslashes and controls, and slashes encoded
twice, and encodings that are not UTF-8. An encoded slash stays what it is (npm, GitLab), unless
it would make one of these when it is decoded: policy allows it only where a rule writes it.
"""

import re
from urllib.parse import unquote_to_bytes

from agent.model.reason import Reason
from agent.protocols.http1.malformed import Malformed, bad

_PLAIN_PATH = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")
_PATH = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]++|%[0-9A-Fa-f]{2})*+")
_QUERY = re.compile(rb"(?:[\x21\x22\x24\x26-\x7e]++|%[0-9A-Fa-f]{2})*+")  # no "#", "%" in triplets
_TRIPLET = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SLASH = b"%2F"
_HIDDEN = re.compile(  # control bytes, DEL, "\", and the same or "/", "." or "%" encoded twice
    rb"%(?:[01][0-9A-F]|7F|5C|25(?:[01][0-9A-Fa-f]|7[Ff]|2[EeFf5]|5[Cc]))"
)
_DOTS = re.compile(rb"/\.{1,2}(?:;|%3B|/|\Z)")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]+)(/[^?]*)?(?:\?(.*))?", re.DOTALL)

Parts = tuple[bytes, bytes | None, bytes | None]  # canonical path, query, authority


def parse_request_target(method: bytes, target: bytes) -> Parts | Malformed:
    """Return canonical path, query without "?" (None: there was none), and authority if given."""
    authority: bytes | None = None
    path: bytes | None
    query: bytes | None
    if target[:1] == b"/":
        path, mark, rest = target.partition(b"?")
        query = rest if mark else None
    elif target == b"*":
        return (b"*", None, None) if method == b"OPTIONS" else bad("asterisk-form is for OPTIONS")
    elif absolute := _ABSOLUTE.fullmatch(target):
        authority, path, query = absolute.groups()
        if path is None and (query is not None or method == b"OPTIONS"):
            return bad("absolute-form without a path")
        path = path or b"/"
    elif method == b"CONNECT":
        text = "CONNECT is never forwarded: name no proxy, and connect to the host itself"
        return Malformed(405, Reason.METHOD_REFUSED, text)
    else:
        return bad("the request target is neither origin-form nor absolute-form")
    if query is not None and not _QUERY.fullmatch(query):
        return bad("the query has a byte or a percent sign that must be encoded")
    canonical = canonical_path(path)
    return canonical if isinstance(canonical, Malformed) else (canonical, query, authority)


def canonical_path(path: bytes) -> bytes | Malformed:
    """Return the one form of a path that is judged, recorded and forwarded."""
    if b"//" in path:
        return bad("the path has an empty segment")
    if _PLAIN_PATH.fullmatch(path):
        if b"/." in path and _DOTS.search(path):
            return bad("the path has a dot segment")
        return path
    if not _PATH.fullmatch(path):
        return bad("the path has a byte or a percent sign that must be encoded")
    path = _TRIPLET.sub(_canonical_triplet, path)
    if _HIDDEN.search(path):
        return bad("the path has an encoded backslash or control byte, or a slash encoded twice")
    decoded = path.replace(_SLASH, b"/")
    if b"//" in decoded:
        return bad("the path has an empty segment beside an encoded slash")
    if _DOTS.search(decoded):
        return bad("the path has a dot segment")
    try:
        unquote_to_bytes(path).decode("utf-8", "strict")
    except UnicodeDecodeError:
        return bad("the path's encoded bytes are not UTF-8")
    return path


def _canonical_triplet(match: re.Match[bytes]) -> bytes:
    byte = int(match[1], 16)
    return bytes((byte,)) if byte in _UNRESERVED else match[0].upper()
