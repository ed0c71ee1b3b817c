"""Keys from a file: what is in it now counts, and a bad file is no keys at all."""

import json
import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization as form

from agent.broker.identity.key_file import FILE_BYTES_MAX, KeyFiles
from agent.broker.identity.refusal import Check, Unverified
from agent.broker.policy_files import load_policy
from agent.policy.parse_issuer import default_issuer
from tests.servers.issuer import Private, ec_key, p384_key, public_jwk, rsa_key
from tests.unit.broker.identity.rig import URL, Rig


def _write(path: Path, *keys: tuple[str, str, Private]) -> None:
    """Put a set of keys in the file's place, whole."""
    jwks = [public_jwk(key, name, algorithm) for name, algorithm, key in keys]
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps({"keys": jwks}))
    fresh.replace(path)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    _write(path, ("one", "RS256", rsa_key()), ("ec", "ES256", ec_key()))
    return path


@pytest.fixture(name="rig")
def _rig(path: Path) -> Rig:
    rig = Rig()
    rig.change(jwks_file=str(path))
    return rig


def test_the_issuer_is_never_asked(rig: Rig) -> None:
    """Not even for an unknown key, or after a day; its tokens are verified all the same."""
    rig.verify(rig.issuer.mint())
    rig.verify(rig.issuer.mint("ec"))
    assert rig.refused(rig.issuer.mint(header={"kid": "two"})).check is Check.KEY_UNKNOWN
    rig.boot_s += 86_400
    rig.verify(rig.issuer.mint())
    assert rig.issuer.asked == []


def test_it_is_read_again_when_it_changed_and_only_then(path: Path) -> None:
    """Replaced, or written in its place; what is unchanged is not parsed twice."""
    files, issuer = KeyFiles(), replace(default_issuer(URL), jwks_file=str(path))
    first = files.keys(issuer)
    assert files.keys(issuer) is first
    _write(path, ("one", "RS256", rsa_key(2)))
    second = files.keys(issuer)
    assert "ec" in first
    assert "ec" not in second
    text, before = path.read_text(), path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:  # the kernel's clock for files may tick seldom
        path.write_text(text.replace('"one"', '"six"'))  # as long as before
    assert "six" in files.keys(issuer)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))  # an older copy
    third = files.keys(issuer)
    assert files.keys(issuer) is third
    files.forget_others(frozenset())
    assert files.keys(issuer) is not third


def test_a_withdrawn_key_is_withdrawn_at_once(rig: Rig, path: Path) -> None:
    """And one of the same name is the new one."""
    rig.verify(rig.issuer.mint())
    _write(path, ("ec", "ES256", ec_key()))
    assert rig.refused(rig.issuer.mint()).check is Check.KEY_UNKNOWN
    _write(path, ("one", "RS256", rsa_key(2)))
    assert rig.refused(rig.issuer.mint()).check is Check.SIGNATURE
    rig.issuer.keys["one"] = ("RS256", rsa_key(2))
    rig.verify(rig.issuer.mint())


def test_a_link_that_is_turned_is_a_change(rig: Rig, path: Path) -> None:
    """As a volume of Kubernetes changes its files."""
    target = path.with_name("first")
    path.rename(target)
    path.symlink_to(target)
    rig.verify(rig.issuer.mint())
    _write(path.with_name("second"), ("ec", "ES256", ec_key()))
    path.unlink()
    path.symlink_to(path.with_name("second"))
    assert rig.refused(rig.issuer.mint()).check is Check.KEY_UNKNOWN


def _removed(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _private(path: Path) -> None:
    """Only a key with its private half."""
    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key()))
    path.write_text(json.dumps({"keys": [{**key, "kid": "one"}]}))


def _pem(path: Path) -> None:
    spki = form.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(rsa_key().public_key().public_bytes(form.Encoding.PEM, spki))


def _strangers(path: Path) -> None:
    os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)


BAD: list[tuple[Callable[[Path], object], str]] = [
    (_removed, "No such file"),
    (_folder, "not a regular file"),
    (_fifo, "not a regular file"),
    (_private, "no key that can check a signature"),
    (_pem, "no set of keys"),
    (_strangers, "chown root"),
    (lambda path: path.chmod(0o666), "chmod go-w"),
    (lambda path: path.write_text(""), "no set of keys"),
    (lambda path: path.write_text(path.read_text()[:-1]), "no set of keys"),
    (lambda path: path.write_bytes(b"\xff\xfe{}"), "no set of keys"),
    (lambda path: path.write_text('{"keys": {}}'), "no list of at most 100 keys"),
    (lambda path: path.write_text('{"keys": []}'), "no key that can check a signature"),
    (lambda path: path.write_text("[" * 100_000), "no set of keys"),
    (lambda path: path.write_text(" " * (FILE_BYTES_MAX + 1)), "more than 262144 bytes"),
]


@pytest.mark.parametrize(("spoil", "said"), BAD)
def test_a_bad_file_is_no_keys(
    rig: Rig, path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    """Those of before do not count; the operator is told the file and the cause; then it heals."""
    whole, token = path.read_bytes(), rig.issuer.mint()
    rig.verify(token)
    spoil(path)
    for _ in range(2):
        refused = rig.refused(token)
        assert refused.check is Check.KEYS_UNAVAILABLE
        assert refused.detail.startswith(f"{URL}: jwks_file {path}: ")
        assert said in refused.detail
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    rig.verify(token)
    assert rig.issuer.asked == []


def test_the_largest_file_is_read(rig: Rig, path: Path) -> None:
    """At the limit; one byte more is refused above."""
    text = path.read_text()
    path.write_text(text + " " * (FILE_BYTES_MAX - len(text)))
    rig.verify(rig.issuer.mint())


def test_algorithms_are_pinned_as_they_are_elsewhere(rig: Rig, path: Path) -> None:
    """By the policy first, then by the key: neither HMAC with what is public, nor another kind."""
    spki = form.PublicFormat.SubjectPublicKeyInfo
    public = rsa_key().public_key().public_bytes(form.Encoding.PEM, spki)
    head = json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode()
    signed = jwt.utils.base64url_encode(head) + b"."
    signed += jwt.utils.base64url_encode(json.dumps(rig.issuer.claims()).encode())
    maker = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    forged = signed + b"." + jwt.utils.base64url_encode(maker.sign(signed, public))
    assert rig.refused(forged.decode()).check is Check.ALGORITHM
    _write(path, ("one", "RS512", rsa_key()), ("ec", "ES384", p384_key()))
    assert rig.refused(rig.issuer.mint()).check is Check.KEY_UNFIT
    assert rig.refused(rig.issuer.mint("ec")).check is Check.KEY_UNFIT
    rig.change(algorithms=("ES256",))
    assert rig.refused(rig.issuer.mint()).check is Check.ALGORITHM


def test_one_file_may_serve_two_issuers_and_one_bad_file_stops_one(rig: Rig, path: Path) -> None:
    """Each issuer's own file decides over its tokens."""
    files = KeyFiles()
    good = replace(default_issuer(URL), jwks_file=str(path))
    bad = replace(default_issuer("https://b.example"), jwks_file=str(path.with_name("none")))
    with pytest.raises(Unverified):
        files.keys(bad)
    assert files.keys(good) is files.keys(replace(good, url="https://c.example"))
    rig.verify(rig.issuer.mint())


def test_loading_the_policy_warns_of_a_file_without_keys(tmp_path: Path, path: Path) -> None:
    """The policy stays good, so that other loops go on; the file and what follows are named."""
    folder = tmp_path / "policy.d"
    folder.mkdir()
    text = f"issuers: {{ci: {{url: '{URL}', jwks_file: '{path}'}}}}\n"
    (folder / "a.yaml").write_text(text)
    assert load_policy([], directory=folder).warnings == ()
    path.write_text("{}")
    [warning] = load_policy([], directory=folder).warnings
    assert str(warning).startswith(f"{path}:1:1: no set of keys")
    assert f"tokens of {URL} are refused" in str(warning)
