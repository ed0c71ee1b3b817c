"""Which heads of a collector are taken, and what is known of them after any crash."""

import datetime as dt
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.collector.authority import Authority, open_authority
from agent.pb import collector_pb2 as pb
from agent.reporter.checkpoints import Checkpoints, Local, OutOfStep, Refused
from agent.runtime.clock import fresh_ulid
from agent.spool.checkpoint import NAME, read_checkpoint
from agent.spool.cursor import Cursor, read_cursor, write_cursor
from agent.spool.format import GENESIS, chain
from agent.spool.recovery import recover
from agent.spool.writer import Spool
from tests.unit.spool.spools import filled, opened, record

NOW = dt.datetime.now(dt.UTC)
RECORDS = 100  # a segment of SMALL takes about 30


@dataclass(frozen=True, slots=True)
class Host:
    """An enrolled host and its collector."""

    collector: Authority
    host_id: str
    certificate: bytes

    def opened(self, directory: Path) -> Checkpoints:
        """What a connection begins with."""
        return Checkpoints(directory, self.collector.ca_pem, self.certificate)

    def says(self, seq: int, digest: bytes | None = None) -> pb.Acknowledgement:
        """The collector's answer with this head (of the test's records)."""
        digest = head(seq) if digest is None else digest
        signed = self.collector.sign_checkpoint(self.host_id, seq, digest)
        return pb.Acknowledgement(seq=seq, hash=digest, signature=signed.signature)


def enrolled(directory: Path) -> Host:
    authority, host_id = open_authority(directory, NOW), fresh_ulid()
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return Host(authority, host_id, authority.sign_host(csr, host_id, NOW))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return enrolled(tmp_path_factory.mktemp("collector"))


def head(seq: int) -> bytes:
    """The chain hash after the record."""
    digest = GENESIS
    for number in range(1, seq + 1):
        digest = chain(digest, record(number))
    return digest


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = filled(tmp_path, RECORDS)
    yield made
    made.close()


def local(spool: Spool) -> Local:
    return Local(spool.segments(), spool.next_seq, spool.cursor)


def taken(host: Host, spool: Spool, directory: Path, seq: int) -> None:
    """The collector acknowledged so much, and it was stored."""
    checkpoints = host.opened(directory)
    checkpoints.greeted(host.says(seq), local(spool))
    assert checkpoints.store()
    spool.acknowledge(Cursor(seq, head(seq)))


def test_a_greeting_that_agrees_is_taken(host: Host, spool: Spool, tmp_path: Path) -> None:
    """At any number of the chain, without and with a kept head before it."""
    for seq in (0, 1, 29, 57, RECORDS - 1, RECORDS):
        checkpoints = host.opened(tmp_path)
        assert checkpoints.greeted(host.says(seq), local(spool)).next_seq == seq + 1
        assert checkpoints.store()
    kept = read_checkpoint(tmp_path / NAME)
    assert kept is not None
    assert (kept.seq, kept.hash) == (RECORDS, head(RECORDS))


@pytest.mark.parametrize("greeting", [True, False])
@pytest.mark.parametrize(
    "what", ["none", "cut", "other host", "other key", "other seq", "other hash"]
)
def test_what_is_not_signed_for_us_is_not_taken(
    host: Host, spool: Spool, tmp_path: Path, what: str, *, greeting: bool
) -> None:
    """No signature, a broken one, another host's, another collector's, one of another head."""
    reply = host.says(40)
    match what:
        case "none":
            reply.signature = b""
        case "cut":
            reply.signature = reply.signature[:-1]
        case "other host":
            reply = Host(host.collector, fresh_ulid(), b"").says(40)
        case "other key":
            other = open_authority(tmp_path / "other", NOW)
            reply = Host(other, host.host_id, b"").says(40)
        case "other seq":
            reply.signature = host.says(41, head(40)).signature
        case _:
            reply.signature = host.says(40, bytes(32)).signature
    checkpoints = host.opened(tmp_path)
    sent = Cursor(40, head(40))
    with pytest.raises(Refused, match="sign"):
        _ = (
            checkpoints.greeted(reply, local(spool))
            if greeting
            else checkpoints.acknowledged(reply, sent)
        )
    assert checkpoints.store()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("seq", [0, 30, 59])
def test_a_collector_that_went_back_is_refused(
    host: Host, spool: Spool, tmp_path: Path, seq: int
) -> None:
    """A signed head behind the kept one: refused with what to do, and every record stays."""
    taken(host, spool, tmp_path, 60)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(Refused, match=r"went back.*move it away"):
        host.opened(tmp_path).greeted(host.says(seq), local(spool))
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_head_that_was_moved_away_binds_no_more(
    host: Host, spool: Spool, tmp_path: Path
) -> None:
    """What the refusal advises works: the next greeting is taken as a first one."""
    taken(host, spool, tmp_path, 60)
    (tmp_path / NAME).rename(tmp_path / "checkpoint.before")
    assert host.opened(tmp_path).greeted(host.says(30), local(spool)).next_seq == 31


def test_another_head_of_the_same_number_is_refused(
    host: Host, spool: Spool, tmp_path: Path
) -> None:
    """Signed, of the number that is kept, with another hash."""
    taken(host, spool, tmp_path, 60)
    with pytest.raises(Refused, match="another record 60"):
        host.opened(tmp_path).greeted(host.says(60, bytes(32)), local(spool))


@pytest.mark.parametrize("seq", [1, 57, RECORDS])
def test_a_head_that_is_not_of_our_chain_is_refused(
    host: Host, spool: Spool, tmp_path: Path, seq: int
) -> None:
    """First contact with a history that is not this spool's: nothing is taken for uploaded."""
    with pytest.raises(Refused, match="rewrite"):
        host.opened(tmp_path).greeted(host.says(seq, bytes(31) + b"x"), local(spool))


def test_a_collector_that_is_ahead_of_the_spool_is_refused(
    host: Host, spool: Spool, tmp_path: Path
) -> None:
    """One number past the spool's end: the spool was set back."""
    with pytest.raises(Refused, match="rollback"):
        host.opened(tmp_path).greeted(host.says(RECORDS + 1), local(spool))


def test_acknowledgements_come_in_the_order_of_what_was_sent(
    host: Host, spool: Spool, tmp_path: Path
) -> None:
    """One that is late, early, of nothing, or with another hash is not taken."""
    checkpoints = host.opened(tmp_path)
    checkpoints.greeted(host.says(10), local(spool))
    assert checkpoints.acknowledged(host.says(20), Cursor(20, head(20))).seq == 20
    with pytest.raises(Refused, match="out of order"):
        checkpoints.acknowledged(host.says(15), Cursor(30, head(30)))
    with pytest.raises(OutOfStep):
        checkpoints.acknowledged(host.says(40), Cursor(30, head(30)))
    with pytest.raises(Refused, match="rewrite"):
        checkpoints.acknowledged(host.says(30, bytes(32)), Cursor(30, head(30)))
    with pytest.raises(Refused, match="out of order"):
        checkpoints.acknowledged(host.says(30), None)
    with pytest.raises(Refused, match="gap: why"):
        checkpoints.acknowledged(pb.Acknowledgement(refused="gap: why"), Cursor(30, head(30)))
    assert checkpoints.store()
    kept = read_checkpoint(tmp_path / NAME)
    assert kept is not None
    assert kept.seq == 20


STEPS = ("nothing", "head", "cursor", "one segment", "segments")
LOSSES = ("", NAME, "cursor", "both")


@pytest.mark.parametrize("lost", LOSSES)
@pytest.mark.parametrize("step", STEPS)
def test_every_order_of_crash_is_accepted(host: Host, tmp_path: Path, step: str, lost: str) -> None:
    """A crash after each step of taking an acknowledgement, and the loss of either file.

    The chain goes on where it was, and the collector that holds the acknowledged head, or more,
    is taken; with the kept head, one that holds less than it is not.
    """
    spool = filled(tmp_path, RECORDS)
    taken(host, spool, tmp_path, 31)
    before = tmp_path / "before"
    shutil.copytree(tmp_path, before)
    taken(host, spool, tmp_path, 95)
    spool.close()
    done = STEPS.index(step)
    gone = sorted(
        {path.name for path in before.glob("*.seg")} - {p.name for p in tmp_path.glob("*.seg")}
    )
    assert len(gone) > 1
    back = gone if done < 3 else gone[1:] if done == 3 else []
    back += ["cursor"] if done < 2 else []
    back += [NAME] if done < 1 else []
    for name in back:
        shutil.copy(before / name, tmp_path / name)
    for name in (NAME, "cursor"):
        if lost in (name, "both"):
            (tmp_path / name).unlink()
    recovered = recover(tmp_path)
    assert (recovered.next_seq, recovered.hash) == (RECORDS + 1, head(RECORDS))
    assert recovered.problems == ()
    again = opened(tmp_path)
    for seq in (95, 98, RECORDS):
        assert host.opened(tmp_path).greeted(host.says(seq), local(again)).next_seq == seq + 1
    if lost not in (NAME, "both"):
        floor = max(31 if done < 1 else 95, read_cursor(tmp_path).seq)
        again_at = host.opened(tmp_path).greeted(host.says(floor), local(again))
        assert again_at.next_seq == floor + 1
        with pytest.raises(Refused, match="went back"):
            host.opened(tmp_path).greeted(host.says(floor - 1), local(again))
    again.close()


def test_a_cursor_that_is_ahead_of_the_head_counts(
    host: Host, spool: Spool, tmp_path: Path
) -> None:
    """The head came back from a copy, the cursor did not: the later of the two is the floor."""
    taken(host, spool, tmp_path, 40)
    write_cursor(tmp_path, Cursor(70, head(70)))
    again = opened(tmp_path)
    with pytest.raises(Refused, match="went back"):
        host.opened(tmp_path).greeted(host.says(69), local(again))
    assert host.opened(tmp_path).greeted(host.says(70), local(again)).next_seq == 71
    again.close()


@pytest.mark.parametrize("damage", ["cut", "garbage", "signature", "empty"])
def test_a_damaged_file_is_refused_and_said(
    host: Host, spool: Spool, tmp_path: Path, damage: str
) -> None:
    """It binds us to something that can't be read: only a person may move it away."""
    taken(host, spool, tmp_path, 40)
    path = tmp_path / NAME
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-20],
            "garbage": b"\0" * 4096,
            "signature": data.replace(b"seq 40", b"seq 10"),
            "empty": b"",
        }[damage]
    )
    with pytest.raises(Refused, match=r"damaged.*move it away"):
        host.opened(tmp_path)
    assert path.exists()


def test_the_head_of_an_earlier_identity_is_put_aside(
    host: Host, spool: Spool, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A host that was enrolled anew begins a new chain; the old head stays, for `verify`."""
    taken(host, spool, tmp_path, 40)
    anew = enrolled(tmp_path_factory.mktemp("anew"))
    reply = anew.says(0, GENESIS)
    assert anew.opened(tmp_path).greeted(reply, local(spool)).next_seq == 1
    old = read_checkpoint(tmp_path / f"{NAME}.{host.host_id}")
    assert old is not None
    assert (old.seq, (tmp_path / NAME).exists()) == (40, False)


def test_a_gap_of_no_records_changes_the_hash_of_a_number(host: Host, tmp_path: Path) -> None:
    """The tail was lost, the collector was told so, and its answer was lost: no disagreement."""
    spool = filled(tmp_path, RECORDS - 1)
    spool.append([record(RECORDS)])  # says that those before are durable
    spool.sync()
    taken(host, spool, tmp_path, RECORDS)
    spool.close()
    (tmp_path / "cursor").unlink()
    last = max(tmp_path.glob("*.seg"))
    data = bytearray(last.read_bytes())
    at = data.index(record(RECORDS - 3))
    data[at] ^= 1
    last.write_bytes(data)
    again = opened(tmp_path)
    restart = again.segments()[-1].header
    assert (restart.first_seq, restart.previous_hash) == (RECORDS + 1, head(RECORDS - 4))
    reply = host.says(RECORDS, restart.previous_hash)
    assert host.opened(tmp_path).greeted(reply, local(again)).next_seq == RECORDS + 1
    again.close()


@pytest.mark.parametrize("what", ["ca", "certificate", "no host"])
def test_an_identity_that_cannot_be_used_says_so(host: Host, tmp_path: Path, what: str) -> None:
    """Damaged files, or the certificate of something else: refused with what to do."""
    ca, certificate = host.collector.ca_pem, host.certificate
    match what:
        case "ca":
            ca = b"nothing"
        case "certificate":
            certificate = b"nothing"
        case _:
            certificate = ca
    with pytest.raises(Refused, match="enroll this host anew"):
        Checkpoints(tmp_path, ca, certificate)
