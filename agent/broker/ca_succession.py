"""One host CA after another, while the daemon lives.

A run trusts what it read when it began, perhaps weeks ago. So a successor is made and trusted
CA_RENEW_BEFORE the end of what signs, and signs only from CA_SWITCH_BEFORE on; who is replaced is
trusted to its end, for leaves of it are still in use. Nobody trusts what may not be seen yet.
"""

import datetime as dt
import hashlib
import logging
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from agent.broker.ca import LEAF_LIFETIME, HostCa, load_or_make, write_private
from agent.broker.trust import system_roots, write_trust

CA_RENEW_BEFORE = dt.timedelta(days=30)
CA_SWITCH_BEFORE = dt.timedelta(days=3)  # more than LEAF_LIFETIME: no leaf is cut short
LOOK_INTERVAL_S = 3600.0
assert CA_SWITCH_BEFORE > LEAF_LIFETIME

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cas:
    """Who signs leaves, and all whose leaves a run is to believe; who signs is the first."""

    signing: HostCa
    trusted: tuple[x509.Certificate, ...]


def open_cas(directory: Path, host: str, now: dt.datetime) -> Cas:
    """Return the CAs of the directory, having made what is missing at this time.

    Raises:
        OSError: the directory can't be read or written.
        ValueError: key and certificate are there and are not a pair that can be used.
    """
    if not (directory / "ca-key.pem").exists() and (directory / "ca-next-key.pem").exists():
        _take_over(directory)  # a crash cut it off
    signing = load_or_make(directory, host, now)
    following: HostCa | None = None
    if _left(signing, now) < CA_RENEW_BEFORE:
        following = load_or_make(directory, host, now, stem="ca-next")
    if following is not None and _left(signing, now) < CA_SWITCH_BEFORE:
        write_private(directory / "ca-previous.pem", signing.pem)
        (directory / "ca-key.pem").unlink()
        _take_over(directory)
        logger.info("the host's CA is replaced; the old one is trusted until it ends")
        signing, following = following, None
    trusted = [signing.certificate]
    if following is not None:
        trusted.append(following.certificate)
    previous = _previous(directory)
    if previous is not None and previous.not_valid_after_utc > now:
        trusted.append(previous)
    return Cas(signing, tuple(trusted))


def _left(ca: HostCa, now: dt.datetime) -> dt.timedelta:
    return ca.certificate.not_valid_after_utc - now


def _take_over(directory: Path) -> None:
    """Make the next pair the pair. Each step may be the last one before a crash."""
    if (directory / "ca-next.pem").exists():
        (directory / "ca-next.pem").rename(directory / "ca.pem")
    (directory / "ca-next-key.pem").rename(directory / "ca-key.pem")


def _previous(directory: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate((directory / "ca-previous.pem").read_bytes())
    except FileNotFoundError:
        return None


class CaKeeper:
    """Keeps the CA and what runs trust up to date; `look` at start and every LOOK_INTERVAL_S."""

    def __init__(self, directory: Path, trust_dir: Path) -> None:
        self._directory = directory
        self._trust_dir = trust_dir
        self._written = b""  # a digest of what the trust directory was made of

    def look(self, now: dt.datetime) -> HostCa:
        """Return who signs now. The trust directory follows the CAs and the host's own roots.

        Raises:
            OSError: a directory can't be read or written.
            ValueError: key and certificate are there and are not a pair that can be used.
        """
        cas = open_cas(self._directory, socket.gethostname(), now)
        digest = hashlib.sha256(system_roots())
        for certificate in cas.trusted:
            digest.update(certificate.tbs_certificate_bytes)
        if digest.digest() != self._written:
            if not write_trust(self._trust_dir, *cas.trusted):
                logger.warning("no system roots found: runs trust our CA alone")
            self._written = digest.digest()
        return cas.signing
