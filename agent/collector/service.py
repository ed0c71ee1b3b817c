"""The two gRPC ports: ingest with mutual TLS, enrolment with server TLS only."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from agent.collector import ingest, kills
from agent.collector.authority import Authority
from agent.collector.dispatch import Dispatch, Outbox
from agent.collector.enrollment import ENROLL, EnrollmentRefused, enroll
from agent.collector.ingest import Refusal
from agent.collector.tokens import utc_now
from agent.pb import collector_pb2 as pb
from agent.runtime import clock
from agent.runtime.offload import Offload
from agent.spool.checkpoint import Checkpoint, host_id_of

INGEST = "/loopwarden.v1.Collector/Ingest"
HANDSHAKE_TIMEOUT_S = 10  # TLS and HTTP/2 settings
HELLO_TIMEOUT_S = 10.0  # from the stream's begin to its first message
IDLE_TIMEOUT_S = 180.0  # no message for so long (heartbeats come every 30 s): the stream ends
STREAMS_MAX = 2_048  # at once, of all hosts; one a host
STREAMS_OF_A_CONNECTION_MAX = 4
ENROLLMENTS_AT_ONCE_MAX = 16
MESSAGE_BYTES_MAX = ingest.BATCH_BYTES_MAX + 65_536
ENROLL_MESSAGE_BYTES_MAX = 65_536
logger = logging.getLogger(__name__)
IngestContext: TypeAlias = "grpc.aio.ServicerContext[pb.Upload, pb.Acknowledgement]"
EnrollContext: TypeAlias = "grpc.aio.ServicerContext[pb.EnrollRequest, pb.EnrollReply]"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers listen, as bound."""

    ingest: int
    enrollment: int


class Service:
    """The server; blocking store work runs in one worker, so commits are in order."""

    def __init__(
        self, engine: Engine, authority: Authority, server_pair: tuple[bytes, bytes]
    ) -> None:
        """server_pair is the server's key and certificate, PEM."""
        self._engine = engine
        self._authority = authority
        self._pairs = [server_pair]
        self._offload = Offload("store")
        self._dispatch = Dispatch(engine, self._offload)
        self._streams: dict[str, asyncio.Task[None] | None] = {}
        self._servers: list[grpc.aio.Server] = []

    async def start(self, listen: str, enroll_listen: str) -> Ports:
        """Listen on both addresses (host:port, port 0 chooses).

        Raises:
            RuntimeError: an address can't be bound.
        """
        mutual = grpc.ssl_server_credentials(
            self._pairs, root_certificates=self._authority.ca_pem, require_client_auth=True
        )
        collector = _server(STREAMS_MAX, STREAMS_OF_A_CONNECTION_MAX, MESSAGE_BYTES_MAX)
        collector.add_generic_rpc_handlers((_ingest_rpc(self._ingest),))
        enrollment = _server(ENROLLMENTS_AT_ONCE_MAX, 1, ENROLL_MESSAGE_BYTES_MAX)
        enrollment.add_generic_rpc_handlers((_enroll_rpc(self._enroll),))
        ports = Ports(
            _bind(collector, listen, mutual),
            _bind(enrollment, enroll_listen, grpc.ssl_server_credentials(self._pairs)),
        )
        for server in (collector, enrollment):
            await server.start()
            self._servers.append(server)
        return ports

    async def stop(self) -> None:
        """Stop within 2 s; what was not acknowledged is sent again by the hosts."""
        for server in self._servers:
            await server.stop(grace=0.5)
        self._offload.close()

    # --- ingest ---

    async def _ingest(
        self, requests: AsyncIterator[pb.Upload], context: IngestContext
    ) -> AsyncIterator[pb.Acknowledgement]:
        host_id = _peer(context)
        if host_id is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no host in the certificate")
        replaced = self._streams.get(host_id)
        if replaced is not None:
            replaced.cancel()  # a host has one stream: the newer one, the other may be half dead
        current = asyncio.current_task()
        self._streams[host_id] = current
        try:
            async for reply in self._answers(host_id, requests):
                yield reply
        except asyncio.CancelledError:
            if current is None or self._streams.get(host_id) in (current, None):
                raise
            current.uncancel()  # gRPC would leave a cancelled stream open on the wire
            await context.abort(grpc.StatusCode.ABORTED, "a newer stream of this host began")
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "nothing was sent")
        except SQLAlchemyError:
            logger.exception("the store failed")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store failed")
        finally:
            if self._streams.get(host_id) is current:
                del self._streams[host_id]

    async def _answers(
        self, host_id: str, requests: AsyncIterator[pb.Upload]
    ) -> AsyncIterator[pb.Acknowledgement]:
        outbox: Outbox | None = None
        reading = _read(requests)
        try:
            while True:
                timeout_s = HELLO_TIMEOUT_S if outbox is None else IDLE_TIMEOUT_S
                async for command in _until_read(reading, outbox, timeout_s):
                    yield command
                upload = reading.result()
                if upload is None:
                    return
                reading = _read(requests)
                greeted = outbox is not None
                head = await self._offload.run(self._take, host_id, upload, greeted=greeted)
                if outbox is None:
                    outbox = self._dispatch.opened(host_id)
                if head is not None:
                    yield pb.Acknowledgement(seq=head.seq, hash=head.hash, signature=head.signature)
        except Refusal as refusal:
            logger.warning("host %s: refused: %s", host_id, refusal)
            await self._offload.run(
                ingest.note_refusal, self._engine, host_id, refusal, clock.unix_ms()
            )
            yield pb.Acknowledgement(refused=str(refusal))
        finally:
            reading.cancel()
            if outbox is not None:
                self._dispatch.closed(outbox)

    def _take(self, host_id: str, upload: pb.Upload, *, greeted: bool) -> Checkpoint | None:
        """Apply one message in the worker; None when it is not to be acknowledged."""
        engine, authority, now_ms = self._engine, self._authority, clock.unix_ms()
        match upload.WhichOneof("content"):
            case "hello" if not greeted:
                return ingest.greet(engine, authority, host_id, upload.hello, now_ms)
            case "batch" if greeted:
                return ingest.append(engine, authority, host_id, upload.batch, now_ms)
            case "gap" if greeted:
                return ingest.skip(engine, authority, host_id, upload.gap, now_ms)
            case "kill_told" if greeted:
                word = upload.kill_told
                kills.told(engine, host_id, word.kill_id, word.state, word.detail, now_ms)
                return None
        raise Refusal("malformed", 0, "a message out of its order")

    # --- enrolment ---

    async def _enroll(self, request: pb.EnrollRequest, context: EnrollContext) -> pb.EnrollReply:
        try:
            reply = await self._offload.run(
                enroll, self._engine, self._authority, request, utc_now()
            )
        except EnrollmentRefused as error:
            logger.warning("enrolment refused: %s", error)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        logger.info("enrolled host %s", reply.host_id)
        return reply


def _read(requests: AsyncIterator[pb.Upload]) -> "asyncio.Future[pb.Upload | None]":
    """Begin to read the next message: it must not be cut off when something is to be told."""
    return asyncio.ensure_future(anext(requests, None))


async def _until_read(
    reading: "asyncio.Future[pb.Upload | None]", outbox: Outbox | None, timeout_s: float
) -> AsyncIterator[pb.Acknowledgement]:
    """Yield what the host is to be told until its next message is there.

    Raises:
        TimeoutError: it did not come.
    """
    event_loop = asyncio.get_running_loop()
    until_s = event_loop.time() + timeout_s
    while not reading.done():
        waits: set[asyncio.Future[Any]] = {reading}
        telling = None if outbox is None else event_loop.create_task(outbox.queue.get())
        if telling is not None:
            waits.add(telling)
        try:
            await asyncio.wait(
                waits,
                timeout=max(0.0, until_s - event_loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if telling is not None and telling.done():
                yield telling.result()
            elif not reading.done():
                raise TimeoutError
        finally:
            if telling is not None:
                telling.cancel()


def _peer(context: IngestContext) -> str | None:
    """Return the host that the verified client certificate names."""
    values = list(context.auth_context().get("x509_pem_cert", ()))
    return host_id_of(values[0]) if len(values) == 1 else None


def _server(rpcs_max: int, streams_max: int, message_bytes_max: int) -> grpc.aio.Server:
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_concurrent_streams", streams_max),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_S * 1000),
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_metadata_size", 8_192),
    ]
    return grpc.aio.server(options=options, maximum_concurrent_rpcs=rpcs_max)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    """Return the port; gRPC's own words on why there is none are about itself."""
    try:
        return int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        text = f"can't listen on {address}: is it an address of this host, and is the port free?"
        raise RuntimeError(text) from error


def _ingest_rpc(behaviour: Callable[..., Any]) -> "grpc.GenericRpcHandler[Any, Any]":
    method = grpc.stream_stream_rpc_method_handler(
        behaviour,
        request_deserializer=pb.Upload.FromString,
        response_serializer=pb.Acknowledgement.SerializeToString,
    )
    service, _, name = INGEST[1:].partition("/")
    return grpc.method_handlers_generic_handler(service, {name: method})


def _enroll_rpc(behaviour: Callable[..., Any]) -> "grpc.GenericRpcHandler[Any, Any]":
    method = grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=pb.EnrollRequest.FromString,
        response_serializer=pb.EnrollReply.SerializeToString,
    )
    service, _, name = ENROLL[1:].partition("/")
    return grpc.method_handlers_generic_handler(service, {name: method})
