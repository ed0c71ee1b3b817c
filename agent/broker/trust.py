"""What a run is to trust: ca.pem, ca-bundle.pem, and certs/, which stands in for /etc/ssl/certs.

Everything here is public. certs/ has the host's own entries, our CA under its OpenSSL hash, and,
where the host has one, a Java trust store with our CA added.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12
from cryptography.x509.oid import NameOID

SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
    Path("/etc/ssl/cert.pem"),
)
SYSTEM_CERTS = Path("/etc/ssl/certs")
ENTRIES_MAX = 4_096
FILE_BYTES_MAX = 8 << 20


def write_trust(directory: Path, *cas: x509.Certificate) -> int:
    """Write the trust directory for these CAs; return how many system roots the bundle has.

    Raises:
        OSError: it can't be written.
    """
    ca_pem = b"".join(ca.public_bytes(Encoding.PEM) for ca in cas)
    roots = system_roots()
    bundle = roots + (b"" if not roots or roots.endswith(b"\n") else b"\n") + ca_pem
    directory.mkdir(mode=0o755, exist_ok=True)
    directory.chmod(0o755)
    _replace(directory / "ca.pem", ca_pem)
    _replace(directory / "ca-bundle.pem", bundle)
    _write_certs(directory / "certs", cas, bundle)
    return roots.count(b"-----BEGIN CERTIFICATE-----")


def system_roots() -> bytes:
    """Return the host's bundle of roots, empty when it has none."""
    for path in SYSTEM_BUNDLES:
        with contextlib.suppress(OSError):
            return path.read_bytes()
    return b""


def openssl_hash(name: x509.Name) -> str:
    """Return OpenSSL's X509_NAME_hash of a name, the stem of a CApath entry.

    The canonical form (crypto/x509/x_name.c): each attribute as a lower-case UTF8String with
    single spaces, the RDN sets one after another without the outer sequence; SHA-1, its first
    four bytes as a little-endian number.
    """
    form = b"".join(
        _der(0x31, b"".join(sorted(_attribute(each) for each in relative)))
        for relative in name.rdns
    )
    digest = hashlib.sha1(form, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _attribute(attribute: x509.NameAttribute[str | bytes]) -> bytes:
    if attribute.oid != NameOID.COMMON_NAME or not isinstance(attribute.value, str):
        raise ValueError("only common names are hashed here")
    text = " ".join(attribute.value.lower().split())
    return _der(0x30, _der(0x06, b"\x55\x04\x03") + _der(0x0C, text.encode()))


def _der(tag: int, content: bytes) -> bytes:
    if len(content) >= 128:
        raise ValueError("a longer name than ours")
    return bytes((tag, len(content))) + content


def _write_certs(directory: Path, cas: tuple[x509.Certificate, ...], bundle: bytes) -> None:
    """Build the directory beside the old one, then fill the old one's place entry by entry.

    Runs have it mounted: it must stay the same directory, and never lack its bundle.
    """
    fresh = directory.with_name("certs.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o755)
    if SYSTEM_CERTS.is_dir():
        _copy_entries(SYSTEM_CERTS, fresh)
    for name in ("ca-certificates.crt", "ca-bundle.crt", "ca-bundle.pem"):
        if name == "ca-certificates.crt" or (fresh / name).exists():
            _replace(fresh / name, bundle)
    for index, ca in enumerate(cas):
        name = f"loopwarden-{index}.pem" if index else "loopwarden.pem"
        _replace(fresh / name, ca.public_bytes(Encoding.PEM))
        stem = openssl_hash(ca.subject)
        number = next(n for n in range(ENTRIES_MAX) if not os.path.lexists(fresh / f"{stem}.{n}"))
        (fresh / f"{stem}.{number}").symlink_to(name)
    store = java_store(bundle) if (SYSTEM_CERTS / "java").is_dir() else b""
    if store:  # what Debian's and Ubuntu's Java reads: /etc/ssl/certs/java/cacerts
        (fresh / "java").mkdir(mode=0o755)
        _replace(fresh / "java" / "cacerts", store)
    directory.mkdir(mode=0o755, exist_ok=True)
    directory.chmod(0o755)  # whatever our umask: runs of any user read it
    _move_entries(fresh, directory)
    shutil.rmtree(fresh)


def _move_entries(fresh: Path, directory: Path) -> None:
    kept = set(os.listdir(fresh))
    for name in sorted(kept):
        source, place = fresh / name, directory / name
        if source.is_dir() and not source.is_symlink():
            place.mkdir(mode=0o755, exist_ok=True)
            place.chmod(0o755)
            _move_entries(source, place)
        else:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            source.rename(place)
    for name in set(os.listdir(directory)) - kept:
        stale = directory / name
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale)
        else:
            stale.unlink()


def _copy_entries(source: Path, place: Path) -> None:
    """Copy links as links (they are relative, or lead out of the directory) and public files."""
    for name in sorted(os.listdir(source))[:ENTRIES_MAX]:
        entry = source / name
        with contextlib.suppress(OSError):  # what we may not read, a run may not either
            status = entry.lstat()
            if stat.S_ISLNK(status.st_mode):
                (place / name).symlink_to(entry.readlink())
            elif stat.S_ISREG(status.st_mode) and status.st_size <= FILE_BYTES_MAX:
                _replace(place / name, entry.read_bytes())


def java_store(bundle: bytes) -> bytes:
    """Return the bundle as Java's default trust store; empty where the library can't make one."""
    make = getattr(pkcs12, "serialize_java_truststore", None)
    if make is None:
        return b""  # cryptography before 45
    certificates = [
        pkcs12.PKCS12Certificate(each, f"root-{number}".encode())
        for number, each in enumerate(_certificates(bundle))
    ]
    # without encryption and MAC, as JDK 18 and later ship it: Java opens its default store with no
    # password, and then sees no certificate of an encrypted one
    store: bytes = make(certificates, NoEncryption())
    return store


def _certificates(bundle: bytes) -> list[x509.Certificate]:
    """Return the certificates that can be read: hosts have roots with odd serial numbers."""
    end = b"-----END CERTIFICATE-----\n"
    found: list[x509.Certificate] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for piece in bundle.split(end)[:-1]:
            with contextlib.suppress(ValueError):
                found.append(x509.load_pem_x509_certificate(piece + end))
    return found


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.write_bytes(data)
    fresh.chmod(0o644)
    fresh.rename(path)
