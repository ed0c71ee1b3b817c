"""Signatures: botocore says the same of any request, and AWS's published example comes out."""

import datetime as dt
from urllib.parse import quote, urlencode

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from agent.model.credential import AwsKeys
from agent.model.secret import Secret
from agent.wire.aws import sigv4
from agent.wire.aws.sigv4 import EMPTY_SHA256, Signer, Unsigned

NOW_MS = 1_800_000_000_123
NOW = dt.datetime.fromtimestamp(NOW_MS // 1000, dt.UTC)
HOST = b"bucket.s3.eu-west-1.amazonaws.com"
# control bytes are no part of a request; "." alone between slashes is refused before
SEGMENTS = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text not in {".", ".."}
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(str.strip)
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)


def keys(token: str | None = "token/+=") -> AwsKeys:
    """Return keys of nobody."""
    return AwsKeys(
        Secret(b"AKIDEXAMPLE000"),
        Secret(b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        None if token is None else Secret(token.encode()),
    )


def fields_of(lines: tuple[bytes, ...]) -> dict[str, str]:
    """Return field lines by name."""
    pairs = (line.decode().partition(": ") for line in lines)
    return {name: value for name, _, value in pairs}


def oracle(service: str, request: AWSRequest, token: str | None) -> dict[str, str]:
    """Return what botocore adds to a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "get_current_datetime", lambda remove_tzinfo=True: NOW)
        known = Credentials("AKIDEXAMPLE000", keys().secret_access_key.reveal().decode(), token)
        kind = auth.S3SigV4Auth if service == "s3" else auth.SigV4Auth
        kind(known, service, "eu-west-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(
    service=st.sampled_from(["s3", "dynamodb", "execute-api"]),
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    segments=st.lists(SEGMENTS, max_size=4),
    query=st.lists(st.tuples(SEGMENTS, st.text(st.characters(exclude_categories=["Cs"])))),
    meta=st.dictionaries(NAMES, VALUES, max_size=4),
    token=st.sampled_from([None, "token/+="]),
    payload=st.sampled_from([b"", b"some bytes"]),
)
def test_as_botocore(
    service: str,
    method: str,
    segments: list[str],
    query: list[tuple[str, str]],
    meta: dict[str, str],
    token: str | None,
    payload: bytes,
) -> None:
    """The signature, and each added field, is botocore's: any path, query, metadata and keys."""
    path = "/" + "/".join(quote(each, safe="~") for each in segments)
    text = urlencode(query, quote_via=quote, safe="~")
    names = {f"x-amz-meta-{name}": value for name, value in meta.items()}
    url = f"https://{HOST.decode()}{path}" + (f"?{text}" if text else "")
    request = AWSRequest(method, url, headers=names, data=payload)
    wanted = oracle(service, request, token)
    digest = wanted.get("x-amz-content-sha256", "") or sha256(payload)
    fields = tuple((name.encode(), value.encode()) for name, value in names.items())
    signed = Signer(keys(token), "eu-west-1", service).sign(
        Unsigned(
            method.encode(), path.encode(), sigv4.sent_query(text.encode(), frozenset()),
            ((b"host", HOST), *fields), digest.encode(),
        ),
        NOW_MS,
    )  # fmt: skip
    found = fields_of(signed.lines)
    assert found == {name: wanted[name] for name in wanted if name not in names}


def sha256(payload: bytes) -> str:
    """Return its digest."""
    import hashlib

    return hashlib.sha256(payload).hexdigest()


def test_the_published_example() -> None:
    """GET of a range, Amazon S3 API Reference, "Example: GET Object"."""
    known = AwsKeys(
        Secret(b"AKIAIOSFODNN7EXAMPLE"), Secret(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), None
    )
    fields = ((b"host", b"examplebucket.s3.amazonaws.com"), (b"range", b"bytes=0-9"))
    request = Unsigned(b"GET", b"/test.txt", None, fields, EMPTY_SHA256)
    signed = Signer(known, "us-east-1", "s3").sign(request, 1_369_353_600_000)
    wanted = b"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    assert signed.signature == wanted


@pytest.mark.parametrize(
    ("path", "service", "wanted"),
    [
        (b"/a=b(c)@d", "s3", b"/a%3Db%28c%29%40d"),
        (b"/a%20b", "s3", b"/a%20b"),
        (b"/a%20b", "lambda", b"/a%2520b"),
        (b"/a:b", "lambda", b"/a%3Ab"),
        (b"/", "s3", b"/"),
    ],
)
def test_paths(path: bytes, service: str, wanted: bytes) -> None:
    """Encoded once for S3, also what came unencoded; as sent and once more for others."""
    assert sigv4.canonical_uri(path, s3=service == "s3") == wanted


@pytest.mark.parametrize(
    ("query", "sent", "canonical"),
    [
        (None, None, b""),
        (b"", None, b""),
        (b"acl", b"acl", b"acl="),
        (b"b=2&a=1", b"b=2&a=1", b"a=1&b=2"),
        (b"prefix=a/b+c&&x=%7e;", b"prefix=a%2Fb%20c&x=~%3B", b"prefix=a%2Fb%20c&x=~%3B"),
        (b"x-amz-SIGNATURE=1&k=v", b"k=v", b"k=v"),
        (b"x%2Damz-signature=1", None, b""),
    ],
)
def test_queries(query: bytes | None, sent: bytes | None, canonical: bytes) -> None:
    """What is sent has one reading, and no parameter that is to be left out, however spelt."""
    found = sigv4.sent_query(query, frozenset({b"x-amz-signature"}))
    assert found == sent
    assert sigv4.canonical_query(found) == canonical
    assert sigv4.sent_query(found, frozenset()) == found


def test_fields_of_one_name_are_joined() -> None:
    """In order, each without spaces at its ends and with single ones inside."""
    fields = ((b"host", HOST), (b"x-amz-meta-a", b"  1   2 "), (b"x-amz-meta-a", b"3"))
    names, lines = sigv4._canonical_fields(list(fields))
    assert names == b"host;x-amz-meta-a"
    assert lines == b"host:" + HOST + b"\nx-amz-meta-a:1 2,3\n"


def test_the_key_of_a_day_is_of_that_day() -> None:
    """A signer that has signed before midnight signs as a new one after it."""
    old = Signer(keys(), "eu-west-1", "s3")
    request = Unsigned(b"GET", b"/", None, ((b"host", HOST),), EMPTY_SHA256)
    for unix_ms in (NOW_MS, NOW_MS + 86_400_000, NOW_MS):
        fresh = Signer(keys(), "eu-west-1", "s3")
        assert old.sign(request, unix_ms).lines == fresh.sign(request, unix_ms).lines


@pytest.mark.parametrize("bad", [b"", b"a b", b"a\r\nb", b"a,b", b"\xc3\xa4"])
def test_keys_that_no_field_may_carry(bad: bytes) -> None:
    """They are refused, unquoted."""
    with pytest.raises(ValueError, match="do not fit") as caught:
        Signer(AwsKeys(Secret(bad), Secret(b"secret"), None), "eu-west-1", "s3")
    assert repr(bad) not in str(caught.value)
    signed = Signer(keys(), "eu-west-1", "s3").sign(
        Unsigned(b"GET", b"/", None, ((b"host", HOST),), EMPTY_SHA256), NOW_MS
    )
    assert "AKID" not in repr(signed)
    assert "token" not in repr(signed)
