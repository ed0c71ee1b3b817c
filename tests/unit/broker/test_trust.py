"""The trust directory, as OpenSSL and Java read it."""

import datetime as dt
import os
import ssl
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.broker.ca import HostCa, load_or_make
from agent.broker.trust import SYSTEM_CERTS, java_store, openssl_hash, system_roots, write_trust

NOW = dt.datetime.now(dt.UTC)


def _made(path: Path) -> tuple[HostCa, Path]:
    ca = load_or_make(path, "host", NOW)
    trust = path / "trust"
    write_trust(trust, ca.certificate)
    return ca, trust


def _leaf(ca: HostCa, path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    chain, _ = ca.sign("a.example", der, {"a.example"}, NOW)
    leaf = path / "leaf.pem"
    leaf.write_bytes(chain)
    return leaf


def test_our_hash_is_openssls(tmp_path: Path) -> None:
    """The name that OpenSSL looks for in a CApath."""
    ca = load_or_make(tmp_path, "Host-Name.Example", NOW)
    asked = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "ca.pem", "-noout", "-hash"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert openssl_hash(ca.certificate.subject) == asked.stdout.strip()


def test_a_leaf_verifies_by_directory_and_by_bundle(tmp_path: Path) -> None:
    """As a CApath alone and as a CAfile alone; not with the system's roots alone."""
    ca, trust = _made(tmp_path)
    leaf = _leaf(ca, tmp_path)
    cases: tuple[tuple[list[str | Path], int], ...] = (
        (["-no-CAfile", "-no-CAstore", "-CApath", trust / "certs"], 0),
        (["-no-CApath", "-no-CAstore", "-CAfile", trust / "ca-bundle.pem"], 0),
        (["-no-CApath", "-no-CAstore", "-CAfile", trust / "certs" / "ca-certificates.crt"], 0),
        (["-no-CAstore", "-CApath", SYSTEM_CERTS], 2),
    )
    for options, code in cases:
        done = subprocess.run(
            ["openssl", "verify", *options, leaf], check=False, capture_output=True
        )
        assert done.returncode == code, (options, done.stderr)


def test_the_systems_roots_are_all_there(tmp_path: Path) -> None:
    """The bundle has one certificate more than the host's, the directory all its entries."""
    _, trust = _made(tmp_path)
    before = ssl.create_default_context(cadata=system_roots().decode()).cert_store_stats()
    after = ssl.create_default_context(cafile=os.fspath(trust / "ca-bundle.pem")).cert_store_stats()
    assert after["x509_ca"] == before["x509_ca"] + 1
    mine, host = set(os.listdir(trust / "certs")), set(os.listdir(SYSTEM_CERTS))
    assert host - mine == set()


def test_everything_is_readable_by_everybody_and_writable_by_nobody_else(tmp_path: Path) -> None:
    """A run of any user reads it."""
    _, trust = _made(tmp_path)
    for directory, _, names in os.walk(trust):
        assert Path(directory).stat().st_mode & 0o777 == 0o755
        for name in names:
            status = Path(directory, name).lstat()
            assert os.path.islink(f"{directory}/{name}") or status.st_mode & 0o777 == 0o644


def test_rewriting_keeps_the_directory_that_runs_have_mounted(tmp_path: Path) -> None:
    """A new CA: same directory inode, new hash there, old hash gone."""
    ca, trust = _made(tmp_path)
    inode = (trust / "certs").stat().st_ino
    old = openssl_hash(ca.certificate.subject)
    (tmp_path / "ca-key.pem").unlink()
    fresh = load_or_make(tmp_path, "host", NOW)
    write_trust(trust, fresh.certificate)
    assert (trust / "certs").stat().st_ino == inode
    assert not (trust / "certs" / f"{old}.0").is_symlink()
    assert (trust / "certs" / f"{openssl_hash(fresh.certificate.subject)}.0").exists()
    assert not (trust / "certs.new").exists()


def test_javas_store_has_our_ca_marked_as_trusted(tmp_path: Path) -> None:
    """It opens without a password, as Java does; each entry has Java's trust attribute."""
    ca, trust = _made(tmp_path)
    assert (trust / "certs" / "java" / "cacerts").exists() == (SYSTEM_CERTS / "java").is_dir()
    store = tmp_path / "cacerts"
    store.write_bytes(java_store(ca.pem))
    shown = subprocess.run(
        ["openssl", "pkcs12", "-in", store, "-nokeys", "-nomacver", "-passin", "pass:"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "2.16.840.1.113894.746875.1.1" in shown  # oracle's trustedKeyUsage
    assert "".join(ca.pem.decode().splitlines()[1:-1]) in "".join(shown.split())
