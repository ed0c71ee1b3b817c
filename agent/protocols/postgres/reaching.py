"""The server's side of an opening: lease, record, connection, TLS, login, both sides ready."""

from dataclasses import dataclass

from agent.masking.scrubber import Scrubber
from agent.model.audit import Outcome
from agent.model.credential import ClientCertificate, Password, Shape, secrets_of, type_of
from agent.model.grant import UpstreamTls
from agent.model.lease import Lease
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.protocols.postgres import scram
from agent.protocols.postgres.answers import Refusal, Refused
from agent.protocols.postgres.cancel import CancelKeys
from agent.protocols.postgres.downflow import ACROSS
from agent.protocols.postgres.ending import DONE_STATUS, DOWN, UP, Ending, Phase
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.intake import Intake
from agent.protocols.postgres.limits import CANCEL_S, CANCEL_TIMER, OPENING_TIMER
from agent.protocols.postgres.login import Claim, Login
from agent.protocols.postgres.messages import (
    AUTHENTICATION_OK,
    PROTOCOL_3,
    SSL_REQUEST,
    backend_key_data,
    cancel_request,
    message,
    negotiate_protocol_version,
    parameter_status,
    ready_for_query,
    startup_message,
)
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.settings import Settings
from agent.protocols.postgres.startup import CancelRequest, Startup
from agent.wire.commands import (
    AnswerTo,
    OpenUpstream,
    RecordIntent,
    RequestLease,
    Resume,
    Send,
    SetTimer,
    StartTls,
)
from agent.wire.relay import RelayContext
from agent.wire.side import Side

_DEFAULT_LOGINS = ("scram-sha-256",)
_MISFIT = Refusal(Reason.CREDENTIAL_MISFIT, "The lease does not fit the target.")


@dataclass(frozen=True, slots=True)
class Wish:
    """A session that a loop asked for and may ask for."""

    startup: Startup
    settings: Settings
    database: str


class Reaching(Ending):
    """From what the loop wants to a server that is ready for it."""

    def __init__(self, context: RelayContext) -> None:
        super().__init__(context)
        self.opened: Opened | None = None
        self._intake = Intake()
        self._wish: Wish | None = None
        self._cancel: CancelRequest | None = None
        self._user = ""  # upstream
        self._password: Secret | None = None
        self._session_name = f"loopwarden/{context.session_id}"
        self._login: Login | None = None

    @property
    def _wanted(self) -> Wish:
        assert self._wish is not None  # there is no lease and no login before a startup message
        return self._wish

    # the lease, the record, the connection

    def _lease(self) -> None:
        target = self._target
        if target.shape is None:
            self._user = self._wanted.settings.user
            self._reach()
        elif target.tls is UpstreamTls.NONE and (
            not target.allow_cleartext or target.shape is Shape.CLIENT_CERTIFICATE
        ):
            text = "A credential is not used at an upstream without TLS."
            raise Refused(Refusal(Reason.CLEARTEXT_REFUSED, text))
        else:
            self._phase = Phase.LEASING
            self._out.append(RequestLease((target.shape,)))

    def _leased(self, lease: Lease) -> None:
        credential, shape = lease.credential, self._target.shape
        if shape is None or lease.target != self._target.name:
            raise Refused(_MISFIT)
        if not isinstance(credential, type_of[shape]):
            raise Refused(_MISFIT)
        match credential:
            case Password(user, password):
                self._user, self._password = user, password
            case ClientCertificate(user):
                self._user = user or self._wanted.settings.user
            case _:
                raise Refused(_MISFIT)
        try:
            self._scrubber = Scrubber(secrets_of(credential))
        except ValueError:
            raise Refused(_MISFIT) from None
        if not self._user or "\0" in self._user:
            raise Refused(_MISFIT)
        self._lease_id = lease.lease_id
        self._session_name = f"loopwarden/{lease.run_id}"
        self._reach()

    def _reach(self) -> None:
        """Connect, and record what it is for, side by side: a byte goes when both are done."""
        assert self._operation is not None
        self._phase = Phase.REACHING
        self._intended = True
        self._out.append(RecordIntent(self._operation, self._rule, self._lease_id))
        self._out.append(OpenUpstream(clear=True))

    def _upstream_opened(self, address: str) -> None:
        if self._phase is Phase.REACHING and self._upstream is None:
            self._upstream = address
            self._reached()

    def _intent_recorded(self) -> None:
        self._recorded = self._intended
        self._reached()

    def _intent_failed(self) -> None:
        if self._intended and not self._recorded:
            self._intended = False
            text = "The session could not be recorded, so it was not opened."
            raise Refused(Refusal(Reason.RECORD_FAILED, text))

    def _reached(self) -> None:
        if self._phase is not Phase.REACHING or not self._recorded or self._upstream is None:
            return
        if self._target.tls is UpstreamTls.VERIFY_FULL:
            self._phase = Phase.ASKING_TLS
            self._send_up(SSL_REQUEST)
        else:
            self._secured(None)

    def _tls_started(self, side: Side, binding: bytes | None) -> None:
        if side is DOWN and self._phase is Phase.DOWNSTREAM_TLS:
            self._intake.under_tls()
            self._phase = Phase.PACKETS
        elif side is UP and self._phase is Phase.UPSTREAM_TLS:
            self._secured(binding)

    def _secured(self, binding: bytes | None) -> None:
        """The server has proved itself as the target asks: say what the connection is for."""
        if self._cancel is not None:
            self._phase = Phase.CANCELLING
            self._out.append(SetTimer(CANCEL_TIMER, CANCEL_S))
            self._send_up(cancel_request(self._cancel.pid, self._cancel.key))
            return
        wish = self._wanted
        claim = Claim(
            self._user,
            self._password,
            frozenset(self._options.auth or _DEFAULT_LOGINS),
            self._target.tls is UpstreamTls.VERIFY_FULL,
            binding,
            wish.startup.spoken,
            self._context.random(scram.NONCE_BYTES),
            self._scrubber,
        )
        self._login = Login(claim)
        parameters = {"user": self._user, "database": wish.database}
        if wish.settings.replication:
            parameters["replication"] = wish.settings.replication
        parameters |= wish.settings.upstream(self._session_name)
        self._phase = Phase.LOGIN
        self._send_up(startup_message(PROTOCOL_3 | wish.startup.spoken, parameters.items()))

    # upstream

    def _upstream_data(self, data: bytes) -> None:
        self._told_bytes += len(data)
        match self._phase:
            case Phase.ASKING_TLS:
                self._asked_tls(data)
            case Phase.LOGIN:
                login = self._login
                assert login is not None
                if answer := login.feed(data):
                    self._send_up(answer)
                if login.ready:
                    self._ready(login)
            case Phase.CANCELLING:
                pass  # it may say what it wants: nobody listens
            case Phase.REACHING | Phase.UPSTREAM_TLS:
                raise Malformed("bytes that nobody asked for")
            case _:
                pass  # there is no upstream

    def _asked_tls(self, data: bytes) -> None:
        """One byte, and nothing behind it: what is in clear must not pass for what is in TLS."""
        if data == b"S":
            self._phase = Phase.UPSTREAM_TLS
            self._out.append(StartTls(UP))
        elif data == b"N":
            text = "The server does not offer TLS, which the target asks for."
            raise Refused(Refusal(Reason.UPSTREAM_UNTRUSTED, text))
        elif data[:1] == b"E":
            text = "The server answered the request for TLS with an error."
            raise Refused(Refusal(Reason.UPSTREAM_UNTRUSTED, text))
        else:
            text = "The server's answer to the request for TLS is not one byte."
            raise Refused(Refusal(Reason.UPSTREAM_UNTRUSTED, text))

    def _ready(self, login: Login) -> None:
        """Tell the loop, in order, what a server would, and hand over."""
        wish = self._wanted
        pinned = wish.settings.pinned(login.parameters, self._user)
        welcome = self._clean(self._welcome(wish.startup, login))
        if not welcome:
            raise Malformed(ACROSS)
        self._record_outcome(Outcome.ANSWERED, Reason.DONE, DONE_STATUS)
        self._out += (SetTimer(OPENING_TIMER, None), Send(DOWN, welcome))
        if login.key is not None:
            self._out.append(AnswerTo(b"".join(login.key)))
        self._phase = Phase.OPENED
        if self._intake.paused:
            self._out.append(Resume(DOWN))
        self.opened = Opened(
            self._user,
            wish.database,
            min(wish.startup.spoken, login.version),
            login.parameters,
            pinned,
            wish.settings.replication,
            self._upstream or "",
            self._lease_id,
            self._scrubber,
            login.key,
            self._intake.take_rest(),
            login.take_rest(),
        )

    def _welcome(self, startup: Startup, login: Login) -> bytes:
        spoken = min(startup.spoken, login.version)
        parts = [AUTHENTICATION_OK]
        if startup.minor != spoken or startup.extensions:
            known = PROTOCOL_3 | spoken
            parts.insert(0, negotiate_protocol_version(known, startup.extensions))
        parts += [parameter_status(name, value) for name, value in login.parameters.items()]
        parts += [message(b"N", payload) for payload in login.notices]
        if login.key is not None:
            pid, key = login.key
            run_key = self._context.run_key
            told = CancelKeys(run_key).downstream(pid, key) if run_key else None
            parts.append(backend_key_data(pid, told or self._context.random(len(key))))
        parts.append(ready_for_query(b"I"))
        return b"".join(parts)

    # ends

    def _ended(self, side: Side) -> None:
        if side is DOWN:
            if self._cancel is None:  # who asks to cancel need not wait
                self._leave(Reason.DOWNSTREAM_CLOSED)
        elif self._phase is Phase.CANCELLING:
            self._cancelled()
        elif self._upstream is not None:
            text = "The server ended the connection before the session was open."
            raise Refused(Refusal(Reason.UPSTREAM_CLOSED, text))

    def _cancelled(self) -> None:
        self._record_outcome(Outcome.ANSWERED, Reason.DONE, "")
        self._finish(Reason.DONE)

    def _upstream_failed(self, reason: Reason, detail: str) -> None:
        if self._phase is Phase.CANCELLING:
            self._cancelled()  # it has no other answer than the end
        elif self._phase is Phase.REACHING or self._upstream is not None:
            text = "The upstream could not be reached as the target asks."
            raise Refused(Refusal(reason, text, detail=f"{detail}."))

    def _timed_out(self, name: str) -> None:
        if name in {OPENING_TIMER, CANCEL_TIMER}:
            text = "The session did not open in time."
            raise Refused(Refusal(Reason.TIMED_OUT, text))
