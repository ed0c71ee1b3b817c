"""Enrolment, both ends: the collector signs a request once a token, the host makes the key."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from agent.collector import schema
from agent.collector.authority import SERVER_NAME, Authority, AuthorityError, key_pem
from agent.collector.store import add_host
from agent.collector.tokens import TokenRefused, ca_of, verify_token
from agent.pb import collector_pb2 as pb
from agent.runtime import clock
from agent.spool.files import place

ENROLL = "/loopwarden.v1.Enrollment/Enroll"
TIMEOUT_S = 15.0


class EnrollmentRefused(Exception):
    """No certificate; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A host's new identity."""

    host_id: str
    host_name: str
    directory: Path


def enroll(
    engine: Engine, authority: Authority, request: pb.EnrollRequest, now: dt.datetime
) -> pb.EnrollReply:
    """Use up the token, add the host, and sign its certificate: all or nothing. Blocking.

    Raises:
        EnrollmentRefused: a token that is not valid, or used; a name that is taken; a bad request.
    """
    now_ms = int(now.timestamp() * 1000)
    host_id = clock.fresh_ulid()
    try:
        token = verify_token(authority, request.join_token)
        certificate = authority.sign_host(request.certificate_request_pem, host_id, now)
    except (TokenRefused, AuthorityError) as error:
        raise EnrollmentRefused(str(error)) from error
    serial = f"{x509.load_pem_x509_certificate(certificate).serial_number:x}"
    try:
        with engine.begin() as connection:
            used = schema.tokens
            connection.execute(delete(used).where(used.c.expires_ms < now_ms - 86_400_000))
            seen = select(used.c.token_id).where(used.c.token_id == token.token_id)
            if connection.execute(seen).first() is not None:
                raise EnrollmentRefused("the token was used already: create a new one")
            connection.execute(
                insert(used).values(
                    token_id=token.token_id,
                    host_name=token.host_name,
                    used_ms=now_ms,
                    expires_ms=token.expires_ms,
                )
            )
            add_host(connection, host_id, token.host_name, serial, now_ms)
    except IntegrityError as error:
        raise EnrollmentRefused(
            f"a host named {token.host_name!r} is enrolled already, or the token was just used"
        ) from error
    return pb.EnrollReply(certificate_pem=certificate, ca_pem=authority.ca_pem, host_id=host_id)


def join(address: str, token: str, directory: Path) -> Enrolled:
    """On the host: make a key, have it signed, and write key.pem, cert.pem and ca.pem (0600).

    The server is verified by the CA in the token. Nothing is written unless all went well.

    Raises:
        EnrollmentRefused: by the collector, or it can't be reached or verified.
        FileExistsError: the directory holds an identity already.
        OSError: the files can't be written.
    """
    if (directory / "cert.pem").exists():
        raise FileExistsError(f"{directory} holds an identity already")
    try:
        ca_pem, host_name = ca_of(token)
    except TokenRefused as error:
        raise EnrollmentRefused(str(error)) from error
    key = ec.generate_private_key(ec.SECP256R1())
    reply = _ask(
        address,
        ca_pem,
        pb.EnrollRequest(
            join_token=token, certificate_request_pem=_request(key, host_name), host_name=host_name
        ),
    )
    if not _matches(reply.certificate_pem, key):
        raise EnrollmentRefused("the collector signed another key than ours")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    place(directory / "key.pem", key_pem(key))
    place(directory / "ca.pem", ca_pem)
    place(directory / "cert.pem", reply.certificate_pem)
    return Enrolled(reply.host_id, host_name, directory)


def _request(key: ec.EllipticCurvePrivateKey, host_name: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host_name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _ask(address: str, ca_pem: bytes, request: pb.EnrollRequest) -> pb.EnrollReply:
    options = [
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    ]
    credentials = grpc.ssl_channel_credentials(ca_pem)
    with grpc.secure_channel(address, credentials, options=options) as channel:
        call = channel.unary_unary(
            ENROLL,
            request_serializer=pb.EnrollRequest.SerializeToString,
            response_deserializer=pb.EnrollReply.FromString,
        )
        try:
            reply: pb.EnrollReply = call(request, timeout=TIMEOUT_S, wait_for_ready=False)
        except grpc.RpcError as error:
            raise EnrollmentRefused(
                f"the collector at {address} refused or can't be verified: {error.details()}"
            ) from error
    return reply


def _matches(certificate_pem: bytes, key: ec.EllipticCurvePrivateKey) -> bool:
    try:
        signed = x509.load_pem_x509_certificate(certificate_pem).public_key()
    except ValueError:
        return False
    return signed == key.public_key()
