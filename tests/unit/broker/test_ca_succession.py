"""A CA ends, the daemon does not: who signs, and whom runs of any age believe."""

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.broker.ca import CA_LIFETIME, HostCa, write_private
from agent.broker.ca_succession import (
    CA_RENEW_BEFORE,
    CA_SWITCH_BEFORE,
    CaKeeper,
    open_cas,
)
from agent.broker.trust import openssl_hash

NOW = dt.datetime.now(dt.UTC)
SECOND = dt.timedelta(seconds=1)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)  # fmt: skip


def leaf(ca: HostCa, path: Path, now: dt.datetime) -> Path:
    """Write a leaf of this CA."""
    chain, _ = ca.sign("api.example.com", KEY, {"api.example.com"}, now)
    path.write_bytes(chain)
    return path


def verifies(bundle: Path, chain: Path, now: dt.datetime) -> bool:
    """Ask OpenSSL, at this time."""
    command = ["openssl", "verify", "-no-CApath", "-no-CAstore", "-attime"]
    command += [str(round(now.timestamp())), "-CAfile", str(bundle), str(chain)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_successor_is_trusted_long_before_it_signs(tmp_path: Path) -> None:
    """From CA_RENEW_BEFORE on there are two, and the old one signs; the same two after restarts."""
    first = open_cas(tmp_path, "host", NOW)
    assert first.trusted == (first.signing.certificate,)
    edge = first.signing.certificate.not_valid_after_utc - CA_RENEW_BEFORE
    assert open_cas(tmp_path, "host", edge).trusted == first.trusted
    both = open_cas(tmp_path, "host", edge + SECOND)
    assert both.signing.pem == first.signing.pem
    assert len(both.trusted) == 2
    assert open_cas(tmp_path, "host", edge + 2 * SECOND).trusted == both.trusted
    for name in ("ca-next-key.pem", "ca-next.pem"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_it_signs_near_the_end_and_the_old_one_is_trusted_to_its_end(tmp_path: Path) -> None:
    """At CA_SWITCH_BEFORE the old one signs, a second later the new one; both are believed."""
    first = open_cas(tmp_path, "host", NOW)
    end = first.signing.certificate.not_valid_after_utc
    both = open_cas(tmp_path, "host", end - CA_SWITCH_BEFORE)
    assert both.signing.pem == first.signing.pem
    after = open_cas(tmp_path, "host", end - CA_SWITCH_BEFORE + SECOND)
    assert after.signing.certificate == both.trusted[1]
    assert set(after.trusted) == set(both.trusted)
    gone = open_cas(tmp_path, "host", end + SECOND)
    assert gone.trusted == (after.signing.certificate,)


def test_a_daemon_that_was_away_for_long_begins_anew(tmp_path: Path) -> None:
    """The CA has ended and nobody made a successor: there is one at once."""
    first = open_cas(tmp_path, "host", NOW)
    later = open_cas(tmp_path, "host", NOW + 2 * CA_LIFETIME)
    assert later.trusted == (later.signing.certificate,)
    assert later.signing.pem != first.signing.pem
    assert later.signing.certificate.not_valid_after_utc > NOW + 2 * CA_LIFETIME


@pytest.mark.parametrize("steps", [0, 1])
def test_a_crash_in_the_middle_loses_nobody(tmp_path: Path, steps: int) -> None:
    """Before any rename or between the two: the next start ends what was begun."""
    first = open_cas(tmp_path, "host", NOW)
    when = first.signing.certificate.not_valid_after_utc - CA_SWITCH_BEFORE
    both = open_cas(tmp_path, "host", when)
    write_private(tmp_path / "ca-previous.pem", first.signing.pem)
    (tmp_path / "ca-key.pem").unlink()
    if steps:
        (tmp_path / "ca-next.pem").rename(tmp_path / "ca.pem")
    after = open_cas(tmp_path, "host", when + SECOND)
    assert after.signing.certificate == both.trusted[1]
    assert set(after.trusted) == set(both.trusted)


def test_a_run_believes_every_leaf_of_its_life(tmp_path: Path) -> None:
    """What a run read at its start verifies all leaves until 27 days later, over the change."""
    state, trust = tmp_path / "state", tmp_path / "trust"
    state.mkdir()
    keeper = CaKeeper(state, trust)
    end = keeper.look(NOW).certificate.not_valid_after_utc
    begun = end - CA_RENEW_BEFORE + SECOND
    keeper.look(begun)
    read = tmp_path / "what-the-run-read.pem"
    read.write_bytes((trust / "ca-bundle.pem").read_bytes())
    signers: set[x509.Certificate] = set()
    for hours in range(0, 24 * 40, 12):
        now = begun + dt.timedelta(hours=hours)
        signing = keeper.look(now)
        signers.add(signing.certificate)
        assert verifies(read, leaf(signing, tmp_path / "leaf.pem", now), now), hours
        assert verifies(trust / "ca-bundle.pem", tmp_path / "leaf.pem", now), hours
    assert len(signers) == 2


def test_the_trust_directory_is_written_when_something_changed(tmp_path: Path) -> None:
    """Both CAs are in every form of it while there are two; without a change nothing is touched."""
    state, trust = tmp_path / "state", tmp_path / "trust"
    state.mkdir()
    keeper = CaKeeper(state, trust)
    end = keeper.look(NOW).certificate.not_valid_after_utc
    written = (trust / "ca.pem").stat()
    keeper.look(NOW + SECOND)
    assert (trust / "ca.pem").stat() == written
    keeper.look(end - CA_RENEW_BEFORE + SECOND)
    found = x509.load_pem_x509_certificates((trust / "ca.pem").read_bytes())
    assert len(found) == 2
    for one in found:
        entry = trust / "certs" / f"{openssl_hash(one.subject)}.0"
        assert x509.load_pem_x509_certificate(entry.read_bytes()) == one
