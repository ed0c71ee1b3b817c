"""The two ports over real mutual TLS: who may do what."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.collector import enrollment
from agent.collector.authority import AuthorityError, open_authority
from agent.collector.enrollment import EnrollmentRefused, join
from agent.collector.service import (
    HANDSHAKE_TIMEOUT_S,
    HELLO_TIMEOUT_S,
    INGEST,
    MESSAGE_BYTES_MAX,
    STREAMS_OF_A_CONNECTION_MAX,
)
from agent.collector.tokens import create_token, utc_now
from agent.pb import collector_pb2 as pb
from agent.spool.checkpoint import host_id_of
from tests.servers.collector import Collector, running_collector
from tests.unit.collector.chains import beats

NAME_OPTION = ("grpc.ssl_target_name_override", "loopwarden-collector")
PATIENCE_S = 100.0  # a guard against hanging; nothing here takes so long


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with running_collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer to a host that enrolls may take longer on a busy machine."""
    monkeypatch.setattr(enrollment, "TIMEOUT_S", PATIENCE_S)


def credentials(identity: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        *((identity / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
    )


def upload(collector: Collector, identity: Path, *messages: pb.Upload) -> list[pb.Acknowledgement]:
    """Send the messages in one stream; return the answers."""
    with grpc.secure_channel(
        collector.address, credentials(identity), options=[NAME_OPTION]
    ) as channel:
        ingest = channel.stream_stream(
            INGEST,
            request_serializer=pb.Upload.SerializeToString,
            response_deserializer=pb.Acknowledgement.FromString,
        )
        return list(ingest(iter(messages), timeout=PATIENCE_S))


def hello(last_seq: int) -> pb.Upload:
    return pb.Upload(hello=pb.Upload.Hello(host_name="x", version="1", last_seq=last_seq))


def test_a_host_appends_to_its_own_chain(collector: Collector) -> None:
    """The certificate says which chain: two hosts send the same numbers, each to its own."""
    chain = beats(6)
    for name in ("own-a", "own-b"):
        identity = collector.enroll(name)
        batch = pb.Upload(batch=chain.batch(1, 6))
        first, second = upload(collector, identity, hello(6), batch)
        assert (first.seq, second.seq, second.hash) == (0, 6, chain.hashes[6])
    hosts = {row["name"]: row["seq"] for row in collector.ask("hosts")}
    assert (hosts["own-a"], hosts["own-b"]) == (6, 6)
    assert all(row["intact"] for row in collector.ask("verify"))


def test_a_rewrite_ends_the_stream_and_is_recorded(collector: Collector) -> None:
    """The answer says why, nothing after it is taken, and `hosts` counts it."""
    identity = collector.enroll("rewriter")
    chain, other = beats(4), beats(2)
    other.records[1] = beats(3).records[2]
    upload(collector, identity, hello(4), pb.Upload(batch=chain.batch(1, 4)))
    answers = upload(collector, identity, hello(9), pb.Upload(batch=other.batch(1, 2)), hello(9))
    assert [answer.seq for answer in answers[:1]] == [4]
    assert answers[1].refused.startswith("rewrite")
    assert len(answers) == 2
    (row,) = [row for row in collector.ask("hosts") if row["name"] == "rewriter"]
    assert (row["seq"], row["refusals"]) == (4, 1)


@pytest.mark.parametrize("first", ["batch", "empty", "gap"])
def test_hello_comes_first(collector: Collector, first: str) -> None:
    """Any other first message is refused."""
    identity = collector.enroll(f"rude-{first}")
    message = {
        "batch": pb.Upload(batch=beats(1).batch(1, 1)),
        "empty": pb.Upload(),
        "gap": pb.Upload(gap=pb.Upload.Gap(first_seq=1, next_seq=2, previous_hash=bytes(32))),
    }[first]
    (answer,) = upload(collector, identity, message)
    assert answer.refused.startswith("malformed")


def test_without_a_certificate_of_ours_there_is_no_connection(
    collector: Collector, tmp_path: Path
) -> None:
    """No certificate, one that its holder signed, and the server's own: none is let in."""
    identity = collector.enroll("honest")
    ca = (identity / "ca.pem").read_bytes()
    stranger = open_authority(tmp_path / "stranger", utc_now())
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    forged = stranger.sign_host(csr, "0" * 26, utc_now())
    state = collector.state_dir
    for what in (
        grpc.ssl_channel_credentials(ca),
        grpc.ssl_channel_credentials(ca, pem, forged),
        grpc.ssl_channel_credentials(
            ca, (state / "server-key.pem").read_bytes(), (state / "server.pem").read_bytes()
        ),
    ):
        with grpc.secure_channel(collector.address, what, options=[NAME_OPTION]) as channel:
            ingest = channel.stream_stream(
                INGEST,
                request_serializer=pb.Upload.SerializeToString,
                response_deserializer=pb.Acknowledgement.FromString,
            )
            with pytest.raises(grpc.RpcError) as refused:
                list(ingest(iter([hello(0)]), timeout=PATIENCE_S))
            assert refused.value.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.UNAUTHENTICATED,
            )


def test_the_enrolment_port_serves_nothing_else(collector: Collector) -> None:
    """A stranger that reaches the enrolment port can't call Ingest there."""
    identity = collector.enroll("curious")
    with grpc.secure_channel(
        f"127.0.0.1:{collector.enroll_port}", credentials(identity), options=[NAME_OPTION]
    ) as channel:
        ingest = channel.stream_stream(INGEST, bytes, bytes)
        with pytest.raises(grpc.RpcError) as refused:
            list(ingest(iter([hello(0).SerializeToString()]), timeout=PATIENCE_S))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_token_works_once(collector: Collector, tmp_path: Path) -> None:
    """The second use is refused, also with another key; nothing is written for it."""
    token = collector.token("once")
    address = f"127.0.0.1:{collector.enroll_port}"
    enrolled = join(address, token, tmp_path / "first")
    certificate = (tmp_path / "first" / "cert.pem").read_bytes()
    assert host_id_of(certificate) == enrolled.host_id
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "first").iterdir()} == {0o600}
    with pytest.raises(EnrollmentRefused, match="used already"):
        join(address, token, tmp_path / "second")
    assert not (tmp_path / "second").exists()
    with pytest.raises(FileExistsError):
        join(address, collector.token("once-more"), tmp_path / "first")


def test_a_token_works_once_also_at_once(collector: Collector, tmp_path: Path) -> None:
    """Eight hosts with one token at the same time: one is enrolled."""
    token = collector.token("racers")
    results: list[str] = []

    def enter(number: int) -> None:
        try:
            join(f"127.0.0.1:{collector.enroll_port}", token, tmp_path / str(number))
            results.append("enrolled")
        except EnrollmentRefused:
            results.append("refused")

    racers = [threading.Thread(target=enter, args=(number,)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(results) == ["enrolled"] + ["refused"] * 7


def test_a_name_is_enrolled_once(collector: Collector, tmp_path: Path) -> None:
    """A second host of the same name is refused: it would speak for the first one's chain."""
    collector.enroll("twin")
    with pytest.raises(EnrollmentRefused, match="enrolled already"):
        join(f"127.0.0.1:{collector.enroll_port}", collector.token("twin"), tmp_path / "other")


def test_a_collector_that_is_not_the_tokens_is_not_trusted(
    collector: Collector, tmp_path: Path
) -> None:
    """The server must be of the CA in the token: the token is not sent to anyone else."""
    other = open_authority(tmp_path / "other", utc_now())
    token = create_token(other, "lost", 600, int(utc_now().timestamp()))
    with pytest.raises(EnrollmentRefused, match="can't be verified"):
        join(f"127.0.0.1:{collector.enroll_port}", token, tmp_path / "identity")
    assert not (tmp_path / "identity").exists()


def test_a_request_must_be_for_a_key_that_its_sender_holds(tmp_path: Path) -> None:
    """Not PEM, a signature that does not match, another curve: refused."""
    authority = open_authority(tmp_path, utc_now())
    key = ec.generate_private_key(ec.SECP384R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    other_curve = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    good = ec.generate_private_key(ec.SECP256R1())
    der = bytearray(request.sign(good, hashes.SHA256()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    try:
        broken = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    except ValueError:
        broken = b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    for pem in (b"", b"hello", other_curve, broken, b"x" * 8_193):
        with pytest.raises(AuthorityError):
            authority.sign_host(pem, "0" * 26, utc_now())


def test_a_message_over_the_limit_ends_the_stream(collector: Collector) -> None:
    """More than MESSAGE_BYTES_MAX is not read into memory: the stream is refused by gRPC."""
    identity = collector.enroll("large")
    batch = pb.Upload.Batch(first_seq=1, records=[bytes(MESSAGE_BYTES_MAX)])
    with pytest.raises(grpc.RpcError) as refused:
        upload(collector, identity, hello(1), pb.Upload(batch=batch))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_who_says_nothing_is_ended_by_a_deadline(collector: Collector) -> None:
    """No TLS handshake, and a stream without hello: closed at their limits, not before."""
    identity = collector.enroll("mute")
    began_s = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", collector.port)) as raw,
        grpc.secure_channel(
            collector.address, credentials(identity), options=[NAME_OPTION]
        ) as channel,
    ):
        raw.settimeout(HANDSHAKE_TIMEOUT_S + PATIENCE_S)
        ingest = channel.stream_stream(INGEST, bytes, bytes)
        still = threading.Event()

        def nothing() -> Iterator[bytes]:
            still.wait()
            yield b""

        try:
            with pytest.raises(grpc.RpcError) as ended:
                list(ingest(nothing(), timeout=HELLO_TIMEOUT_S + PATIENCE_S))
            assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert ended.value.details() == "nothing was sent"
            assert time.monotonic() - began_s >= HELLO_TIMEOUT_S - 0.1
            while raw.recv(4_096):  # the server's settings may come first
                pass
        finally:
            still.set()
        assert time.monotonic() - began_s >= HANDSHAKE_TIMEOUT_S - 0.1


def test_a_connection_has_so_many_streams_and_a_host_one(collector: Collector) -> None:
    """Each newer stream ends the older one, so that more than a connection's limit are let in."""
    identity = collector.enroll("many")
    still = threading.Event()

    def quiet() -> Iterator[bytes]:
        yield hello(0).SerializeToString()
        still.wait()

    with grpc.secure_channel(
        collector.address, credentials(identity), options=[NAME_OPTION]
    ) as channel:
        ingest = channel.stream_stream(INGEST, bytes, bytes)
        calls = []
        try:
            for _ in range(3 * STREAMS_OF_A_CONNECTION_MAX):
                calls.append(ingest(quiet(), timeout=PATIENCE_S))
                next(iter(calls[-1]))
            for older in calls[:-1]:
                with pytest.raises(grpc.RpcError) as ended:
                    next(iter(older))
                assert ended.value.code() is grpc.StatusCode.ABORTED
            assert calls[-1].is_active()
        finally:
            still.set()
