"""Spool → collector: one gRPC stream, at least once, in order, acknowledged by sequence."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import grpc.aio
from cryptography import x509

from agent.pb import collector_pb2 as pb
from agent.reporter.checkpoints import Checkpoints, Local, OutOfStep, Refused
from agent.spool.cursor import Cursor
from agent.spool.errors import SpoolDead
from agent.spool.reader import Batch, Gap, Reader, ReadFailed
from agent.spool.writer import Spool

INGEST = "/loopwarden.v1.Collector/Ingest"
SERVER_NAME = "loopwarden-collector"  # in the collector's certificate, whatever its address
BATCH_RECORDS_MAX = 256
BATCH_BYTES_MAX = 1_048_576
GATHER_S = 0.03  # records wait so long for company: a message costs as much as many records
BATCHES_UNACKNOWLEDGED_MAX = 8  # past it the next batch waits for an acknowledgement
HELLO_TIMEOUT_S = 10.0
ACKNOWLEDGE_TIMEOUT_S = 30.0  # no acknowledgement for so long: the stream is taken for dead
WORDS_MAX = 1_024  # of kills, unsent; the collector asks again for what is lost
BACKOFF_S_MIN = 0.25
BACKOFF_S_MAX = 30.0
REFUSED_RETRY_S = 300.0  # after rollback, rewrite or gap: only a person can mend it
CURSOR_INTERVAL_S = 5.0  # an acknowledgement is stored at least so often
logger = logging.getLogger(__name__)
Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.Upload, pb.Acknowledgement]"


@dataclass(frozen=True, slots=True)
class Identity:
    """The host's key and certificate and the collector's CA, PEM."""

    key: bytes
    certificate: bytes
    ca: bytes

    def credentials(self) -> grpc.ChannelCredentials:
        """Return mutual TLS credentials."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    @property
    def ends_ms(self) -> int:
        """When the certificate ends, in Unix milliseconds."""
        certificate = x509.load_pem_x509_certificate(self.certificate)
        return round(certificate.not_valid_after_utc.timestamp() * 1000)


class Uplink:
    """Uploads what is durable until stopped. The state is for `status`."""

    def __init__(
        self,
        spool: Spool,
        address: str,
        identity: Identity,
        *,
        host_name: str,
        version: str,
        on_refused: Callable[[str], None],
        on_acknowledged: Callable[[], None],
    ) -> None:
        """on_refused is told once per reason; on_acknowledged when space may be free again."""
        self._spool = spool
        self._address = address
        self._identity = identity
        self._checkpoints: Checkpoints | None = None
        self._host_name = host_name
        self._version = version
        self._on_refused = on_refused
        self._on_acknowledged = on_acknowledged
        self._words: deque[pb.Upload] = deque(maxlen=WORDS_MAX)
        self._wake = asyncio.Event()
        self._acknowledged = spool.cursor
        self._stored_s = 0.0
        self._refusal = ""
        self._sent: deque[Cursor] = deque()  # where each unacknowledged message ends
        self._room = asyncio.Event()
        self._moved = asyncio.Event()
        self.on_kill: Callable[[str, str], None] = lambda *_: None  # gets a kill's id and name
        self.connected = False
        self.detail = "not connected yet"

    @property
    def acknowledged_seq(self) -> int:
        """What the collector has on stable storage."""
        return self._acknowledged.seq

    def durable(self) -> None:
        """More is durable, so more may be sent."""
        self._wake.set()

    def killed(self, kill_id: str, state: str, detail: str) -> None:
        """Tell the collector how a kill goes; it asks again when it does not hear."""
        word = pb.Upload.KillTold(kill_id=kill_id, state=state, detail=detail)
        self._words.append(pb.Upload(kill_told=word))
        self._wake.set()

    async def emptied(self, within_s: float) -> None:
        """Wait until everything durable is acknowledged, at most so long."""
        with contextlib.suppress(TimeoutError):  # the rest is sent after the next start
            async with asyncio.timeout(within_s):
                while self._acknowledged.seq < self._spool.synced_seq:
                    self._moved.clear()
                    await self._moved.wait()

    async def run(self) -> None:
        """Connect, upload, and connect again, until cancelled."""
        backoff_s = BACKOFF_S_MIN
        while True:
            before = self._acknowledged.seq
            try:
                await self._connection()
                self.detail = "the collector ended the stream"
            except Refused as error:
                self._refused(str(error))
                backoff_s = REFUSED_RETRY_S
            except grpc.aio.AioRpcError as error:
                self.detail = f"{error.code().name.lower()}: {error.details() or ''}"[:200]
            except TimeoutError:
                self.detail = "the collector does not answer"
            except OutOfStep as error:
                self.detail = str(error)
            except (OSError, ReadFailed) as error:
                self.detail = f"the spool can't be read: {error}"
            except Exception as error:  # the uplink must outlive what nobody thought of
                self.detail = f"unexpected {type(error).__name__}"
                logger.exception("the uplink failed")
            finally:
                if self.connected and self.detail:
                    logger.warning("collector %s: %s", self._address, self.detail)
                self.connected = False
                self._store(force=True)
            if self._acknowledged.seq > before:
                backoff_s = BACKOFF_S_MIN
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    def _refused(self, why: str) -> None:
        self.detail = why
        if why != self._refusal:
            self._refusal = why
            logger.error("the collector refused our chain: %s", why)
            self._on_refused(why)

    async def _connection(self) -> None:
        options = [
            ("grpc.ssl_target_name_override", SERVER_NAME),
            ("grpc.default_authority", SERVER_NAME),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 250),
            ("grpc.enable_http_proxy", 0),
        ]
        async with grpc.aio.secure_channel(
            self._address, self._identity.credentials(), options=options
        ) as channel:
            ingest = channel.stream_stream(
                INGEST,
                request_serializer=pb.Upload.SerializeToString,
                response_deserializer=pb.Acknowledgement.FromString,
            )
            call: Call = ingest()  # type: ignore[call-arg]  # the stub wants an iterator
            try:
                reader, checkpoints = await self._greet(call)
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(self._send(call, reader))
                    await self._receive(call, checkpoints)
                    sending.cancel()
            except BaseExceptionGroup as group:
                raise _first(group) from group
            finally:
                call.cancel()

    async def _greet(self, call: Call) -> tuple[Reader, Checkpoints]:
        """Say hello, hear what the collector holds, and start behind it."""
        identity = self._identity
        directory = self._spool.segments()[-1].path.parent
        checkpoints = Checkpoints(directory, identity.ca, identity.certificate)
        hello = pb.Upload.Hello(
            host_name=self._host_name,
            version=self._version,
            first_seq=self._spool.segments()[0].first_seq,
            last_seq=self._spool.next_seq - 1,
        )
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            await call.write(pb.Upload(hello=hello))
            reply = await call.read()
        if not isinstance(reply, pb.Acknowledgement):
            raise TimeoutError
        spool = self._spool
        reader = checkpoints.greeted(reply, Local(spool.segments(), spool.next_seq, spool.cursor))
        self._checkpoints = checkpoints
        self._acknowledged = Cursor(reply.seq, reply.hash)
        self._moved.set()
        self._store(force=False)
        self._sent.clear()
        self._room.set()
        self.connected, self.detail, self._refusal = True, "", ""
        logger.info("collector %s holds records up to %d", self._address, reply.seq)
        return reader, checkpoints

    async def _send(self, call: Call, reader: Reader) -> None:
        while True:
            self._wake.clear()
            while self._words:
                await call.write(self._words.popleft())
            item = reader.read(
                self._spool.segments(),
                self._spool.synced_seq,
                records_max=BATCH_RECORDS_MAX,
                bytes_max=BATCH_BYTES_MAX,
            )
            if item is None:
                await self._wake.wait()
                await asyncio.sleep(GATHER_S)
                continue
            while len(self._sent) >= BATCHES_UNACKNOWLEDGED_MAX:
                self._room.clear()
                async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                    await self._room.wait()
            self._sent.append(_end(item))
            await call.write(_upload(item))

    async def _receive(self, call: Call, checkpoints: Checkpoints) -> None:
        """Take acknowledgements, one for each batch, until the stream ends."""
        while isinstance(reply := await call.read(), pb.Acknowledgement):
            if reply.HasField("kill"):
                self.on_kill(reply.kill.kill_id, reply.kill.name)
                continue
            sent = self._sent.popleft() if self._sent else None
            self._acknowledged = checkpoints.acknowledged(reply, sent)
            self._room.set()
            self._moved.set()
            self._store(force=False)

    def _store(self, *, force: bool) -> None:
        """Keep the head, then move the cursor, when a segment can go, or it is time."""
        now_s = asyncio.get_running_loop().time()
        held = self._acknowledged
        due = force or now_s - self._stored_s >= CURSOR_INTERVAL_S
        if held.seq > self._spool.cursor.seq and (due or self._spool.frees(held.seq)):
            self._stored_s = now_s
            try:
                if self._checkpoints is None or not self._keep(self._checkpoints):
                    return
                self._spool.acknowledge(held)
            except SpoolDead as error:
                logger.critical("%s", error)  # the next append or flush ends the process
                return
            self._on_acknowledged()

    def _keep(self, checkpoints: Checkpoints) -> bool:
        """Store the signed head; False when there is no space for it.

        Raises:
            SpoolDead: the disk failed.
        """
        try:
            return checkpoints.store()
        except OSError as error:
            raise self._spool.died(error) from error


def _end(item: Batch | Gap) -> Cursor:
    """Return the head that acknowledges this."""
    if isinstance(item, Gap):
        return Cursor(item.next_seq - 1, item.previous_hash)
    return Cursor(item.last_seq, item.hash)


def _upload(item: Batch | Gap) -> pb.Upload:
    if isinstance(item, Gap):
        return pb.Upload(
            gap=pb.Upload.Gap(
                first_seq=item.first_seq,
                next_seq=item.next_seq,
                previous_hash=item.previous_hash,
                detail="the spool can't show what was before: see its quarantine",
            )
        )
    return pb.Upload(
        batch=pb.Upload.Batch(
            first_seq=item.first_seq,
            records=item.records,
            previous_hash=item.previous_hash,
            hash=item.hash,
        )
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one leaf; a refusal says most."""
    leaves = [
        _first(one) if isinstance(one, BaseExceptionGroup) else one for one in group.exceptions
    ]
    return next((one for one in leaves if isinstance(one, Refused)), leaves[0])
