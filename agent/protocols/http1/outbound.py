"""What the lease does to requests and answers: the head that goes upstream, and the scrubber."""

from collections.abc import Callable

from agent.masking.scrubber import Scrubber
from agent.model.credential import AwsKeys, Shape, secrets_of, type_of
from agent.model.grant import Target, UpstreamTls
from agent.model.ids import LeaseId
from agent.model.lease import Lease
from agent.protocols.http1.answers import Refusal
from agent.protocols.http1.carried import carried_by
from agent.protocols.http1.exchange import Exchange, serialize_request_head
from agent.protocols.http1.injection import Injection
from agent.protocols.http1.payload import Payload, plan_payload
from agent.protocols.http1.request import RequestHead
from agent.protocols.http1.signing import Signing


class Outbound:
    """The credential of one session, once it is leased."""

    __slots__ = (
        "_encrypted", "_head", "_head_bytes", "_injection", "_signing", "_target", "lacks_lease",
        "lease_id", "may_go_by_policy", "scrubber",
    )  # fmt: skip

    def __init__(self, target: Target) -> None:
        self._target = target
        self._injection: Injection | None = None
        self._signing: Signing | None = None
        self._head: RequestHead | None = None  # what _head_bytes was made from
        self._head_bytes = b""
        self.scrubber: Scrubber | None = None
        self.lease_id: LeaseId | None = None
        self.lacks_lease = target.shape is not None  # it wants a credential that is not here yet
        # may_go, as the target says before anything is opened
        self._encrypted = target.tls is UpstreamTls.VERIFY_FULL
        self.may_go_by_policy = self.may_go(encrypted=self._encrypted)

    def may_go(self, *, encrypted: bool) -> bool:
        """Whether requests may go to an upstream that is, or is not, under TLS."""
        shape = self._target.shape
        if shape is Shape.CLIENT_CERTIFICATE:  # TLS is what it is shown in
            return encrypted
        return encrypted or shape is None or self._target.allow_cleartext

    def adopt(self, lease: Lease) -> bool:
        """Use this lease from now on; False when it does not fit the target."""
        shape = self._target.shape
        if shape is None or lease.target != self._target.name:
            return False
        if not isinstance(lease.credential, type_of[shape]):
            return False
        signing = None
        try:
            if isinstance(lease.credential, AwsKeys) and self._target.aws is not None:
                signing = Signing(lease.credential, self._target.aws)
            injection = Injection(lease.credential)
            credential = lease.credential
            self.scrubber = Scrubber((*secrets_of(credential), *carried_by(credential)))
        except ValueError:
            return False
        self._injection, self.lease_id, self.lacks_lease = injection, lease.lease_id, False
        self._signing = signing
        return True

    def plan(self, head: RequestHead) -> Payload | Refusal | None:
        """Return how the body is signed, or why the request is not; None without signatures."""
        aws = self._target.aws
        return None if aws is None else plan_payload(head, aws, encrypted=self._encrypted)

    def begin(self, exchange: Exchange, host_field: bytes, unix_ms: Callable[[], int]) -> bytes:
        """Return the head for the upstream, and the body as far as it came."""
        if self._signing is not None:
            return self._signing.begin(exchange, host_field, unix_ms()) + exchange.pending()
        head = self._request_head(exchange.head, host_field)
        body = exchange.pending()
        return head + body if body else head

    def _request_head(self, head: RequestHead, host_field: bytes) -> bytes:
        """Return the head. One that recurs is made once."""
        if self._head is not head:
            self._head_bytes = serialize_request_head(head, host_field, self._injection)
            self._head = head
        return self._head_bytes
