"""The login upstream: from our StartupMessage to the server's ReadyForQuery.

The server is not trusted: it gets nothing of the lease but by a method that the target allows, it
has to prove itself where the method can, and what it says is bounded and checked.
"""

import hashlib
import re
from dataclasses import dataclass, field
from enum import Enum, auto

from agent.masking.scrubber import Scrubber
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.protocols.postgres import scram
from agent.protocols.postgres.answers import Refusal, Refused
from agent.protocols.postgres.frames import Fields, Frame, Malformed, Splitter, report_fields
from agent.protocols.postgres.limits import (
    BACKEND_KEY_BYTES_MAX,
    BACKEND_KEY_BYTES_MIN,
    LOGIN_BYTES_MAX,
    LOGIN_MESSAGE_BYTES_MAX,
    LOGIN_MESSAGES_MAX,
    SERVER_PARAMETERS_MAX,
)
from agent.protocols.postgres.messages import (
    PROTOCOL_3,
    message,
    password_message,
    sasl_initial_response,
    sasl_response,
)

_SAID_CHARACTERS_MAX = 300  # of the server's own words in our answer
_SQLSTATE = re.compile(rb"[0-9A-Z]{5}")
_CAPS = dict.fromkeys(b"RSKNEZv", LOGIN_MESSAGE_BYTES_MAX) | {ord("Z"): 1}
_AUTHENTICATION = {
    2: "Kerberos", 6: "an SCM credential", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"
}  # fmt: skip


class Step(Enum):
    """What the server's next authentication message may be."""

    REQUEST = auto()  # which method it wants
    SASL_CONTINUE = auto()
    SASL_FINAL = auto()
    OK = auto()
    SETTLING = auto()  # authenticated: parameters, key, ReadyForQuery
    READY = auto()


@dataclass(frozen=True, slots=True)
class Claim:
    """Who we say we are, and how we may show it.

    methods: those that the server may ask for; binding: tls-server-end-point, None without TLS;
    version: the minor one that we asked for; scrubber: takes the lease out of the server's words.
    """

    user: str
    password: Secret | None
    methods: frozenset[str]
    encrypted: bool
    binding: bytes | None
    version: int
    nonce: bytes = field(repr=False)
    scrubber: Scrubber | None = None


class Login:
    """One login. After `ready` the rest of what came is in `take_rest`."""

    __slots__ = (
        "_bytes", "_claim", "_messages", "_scram", "_splitter", "_step",
        "key", "notices", "parameters", "version",
    )  # fmt: skip

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._splitter = Splitter(_CAPS)
        self._step = Step.REQUEST
        self._scram: scram.Scram | None = None
        self._messages = self._bytes = 0
        self.version = claim.version
        self.parameters: dict[str, str] = {}
        self.key: tuple[bytes, bytes] | None = None  # process id and key
        self.notices: list[bytes] = []  # payloads of those that came once we were in

    @property
    def ready(self) -> bool:
        """Whether the server has said ReadyForQuery."""
        return self._step is Step.READY

    def take_rest(self) -> bytes:
        """Return what came behind ReadyForQuery."""
        return self._splitter.take_rest()

    def feed(self, data: bytes) -> bytes:
        """Take what the server sent; return what it is to be sent.

        Raises:
            Refused: the login ends here.
        """
        self._splitter.feed(data)
        out = b""
        try:
            while not self.ready and (frame := self._splitter.next()) is not None:
                out += self._take(frame)
        except scram.ScramFailed as error:
            raise Refused(_untrusted(f"The login ended: {error}.")) from None
        return out

    def _take(self, frame: Frame) -> bytes:
        self._messages += 1
        self._bytes += frame.wire_bytes
        if self._messages > LOGIN_MESSAGES_MAX or self._bytes > LOGIN_BYTES_MAX:
            raise Malformed("too much before ReadyForQuery")
        match chr(frame.kind):
            case "R":
                return self._authentication(frame.payload)
            case "E":
                raise Refused(self._server_said(frame.payload))
            case "N":
                report_fields(frame.payload)
                if self._step is Step.SETTLING:
                    self.notices.append(frame.payload)
            case "v" if self._step is Step.REQUEST:
                self._negotiate(frame.payload)
            case kind if self._step is Step.SETTLING:
                self._settle(kind, frame.payload)
            case _:
                raise Malformed("a message before it had let us in")
        return b""

    def _negotiate(self, payload: bytes) -> None:
        """NegotiateProtocolVersion: older than what we asked for, and no option is unknown."""
        fields = Fields(payload)
        version, unknown = fields.int32(), fields.int32()
        fields.end()
        # 3.0 as servers write it, and as the documentation once read: the minor version alone
        if unknown or version not in {PROTOCOL_3, 0} or not self.version:
            raise Malformed("a protocol version that we did not ask for")
        self.version = 0

    # the methods

    def _authentication(self, payload: bytes) -> bytes:
        fields = Fields(payload)
        code = fields.int32()
        match code, self._step:
            case 0, Step.REQUEST | Step.OK:
                fields.end()
                self._admitted()
                return b""
            case 3, Step.REQUEST:
                fields.end()
                return self._cleartext()
            case 5, Step.REQUEST:
                salt = fields.take(4)
                fields.end()
                return self._md5(salt)
            case 10, Step.REQUEST:
                return self._sasl(fields)
            case 11, Step.SASL_CONTINUE:
                return self._sasl_continue(fields.rest())
            case 12, Step.SASL_FINAL:
                self._exchange.verify(fields.rest())
                self._step = Step.OK
                return b""
            case _, Step.REQUEST if code in _AUTHENTICATION:
                raise Refused(_downgrade(_AUTHENTICATION[code]))
            case _:
                raise Malformed("an authentication message that may not come now")

    def _admitted(self) -> None:
        """AuthenticationOk: after a proof, or because there is nothing to prove."""
        claim = self._claim
        asked_nothing = self._step is Step.REQUEST
        if asked_nothing and claim.password is not None and "trust" not in claim.methods:
            raise Refused(_downgrade("no login at all"))
        self._step = Step.SETTLING

    def _secret(self, method: str, words: str) -> Secret:
        password = self._claim.password
        if password is None or method not in self._claim.methods:
            raise Refused(_downgrade(words))
        return password

    def _cleartext(self) -> bytes:
        password = self._secret("password", "the password in clear").reveal()
        if not self._claim.encrypted or b"\0" in password:
            raise Refused(_downgrade("the password in clear, without TLS"))
        self._step = Step.OK
        return password_message(password)

    def _md5(self, salt: bytes) -> bytes:
        """PostgreSQL documentation, "Message Flow": concat('md5', md5(md5(password user) salt))."""
        password = self._secret("md5", "an MD5 of the password").reveal()
        inner = hashlib.md5(password + self._claim.user.encode(), usedforsecurity=False)
        outer = hashlib.md5(inner.hexdigest().encode() + salt, usedforsecurity=False)
        self._step = Step.OK
        return password_message(b"md5" + outer.hexdigest().encode())

    def _sasl(self, fields: Fields) -> bytes:
        offered: list[bytes] = []
        while name := fields.cstring():
            offered.append(name)
        fields.end()
        password = self._secret("scram-sha-256", "SCRAM")
        binding = self._claim.binding
        plus = binding is not None and scram.PLUS.encode() in offered
        if not plus and scram.PLAIN.encode() not in offered:
            raise Refused(_downgrade("a SASL mechanism that is not SCRAM-SHA-256"))
        self._scram = scram.Scram(password, self._claim.nonce, binding, plus=plus)
        self._step = Step.SASL_CONTINUE
        return sasl_initial_response(scram.PLUS if plus else scram.PLAIN, self._scram.first())

    def _sasl_continue(self, server_first: bytes) -> bytes:
        self._step = Step.SASL_FINAL
        return sasl_response(self._exchange.final(server_first))

    @property
    def _exchange(self) -> scram.Scram:
        assert self._scram is not None  # the steps lead through _sasl
        return self._scram

    # once we are in

    def _settle(self, kind: str, payload: bytes) -> None:
        fields = Fields(payload)
        match kind:
            case "S":
                name, value = fields.text(), fields.text()
                fields.end()
                self.parameters[name] = value
                if len(self.parameters) > SERVER_PARAMETERS_MAX:
                    raise Malformed("too many parameters")
            case "K" if self.key is None:
                self.key = fields.take(4), fields.rest()
                most = BACKEND_KEY_BYTES_MAX if self.version else BACKEND_KEY_BYTES_MIN
                if not BACKEND_KEY_BYTES_MIN <= len(self.key[1]) <= most:
                    raise Malformed("a cancel key whose length may not be")
            case "Z":
                if payload != b"I":
                    raise Malformed("a transaction that nobody began")
                self._step = Step.READY
            case _:
                raise Malformed("a message that may not come now")

    # what it says

    def _server_said(self, payload: bytes) -> Refusal:
        """Return the server's refusal: in our words with its SQLSTATE and message, until we are in.

        Once it is proven what it says is for the loop, as any later error is: drivers and people
        look for 'database "x" does not exist'.
        """
        proven = self._step is Step.SETTLING
        fields = report_fields(payload)
        sqlstate = fields.get(ord("C"), b"")
        if not _SQLSTATE.fullmatch(sqlstate):
            raise Malformed("an error without an SQLSTATE")
        text = (
            "The server ended the session's start." if proven else "The server refused the login."
        )
        return Refusal(
            Reason.UPSTREAM_CLOSED,
            text,
            detail=f"The server says: {self._shown(fields.get(ord('M'), b''))}.",
            sqlstate=sqlstate.decode(),
            next_step="Ask the operator, unless the message says what to change.",
            verbatim=message(b"E", payload) if proven else b"",
        )

    def _shown(self, said: bytes) -> str:
        """Return the server's words, scrubbed before they are cut: half a secret is not found."""
        scrubber = self._claim.scrubber
        clean = said if scrubber is None else scrubber.scrub(said)
        cut = clean.decode("utf-8", "replace")[:_SAID_CHARACTERS_MAX]
        return "".join(c if c.isprintable() else "?" for c in cut)


def _untrusted(text: str) -> Refusal:
    return Refusal(Reason.UPSTREAM_UNTRUSTED, text)


def _downgrade(words: str) -> Refusal:
    step = "Ask the operator: the target's `auth` says which logins its server may ask for."
    text = f"The server asked for {words}, which the target's lease does not allow."
    return Refusal(Reason.UPSTREAM_UNTRUSTED, text, next_step=step)
