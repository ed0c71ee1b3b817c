"""Why something ended or was refused: a closed set, the same in code, records and answers."""

from enum import StrEnum


class Reason(StrEnum):
    """Every ending and refusal has one of these; texts for people are beside their use."""

    # endings without fault
    DONE = "done"
    DOWNSTREAM_CLOSED = "downstream-closed"
    UPSTREAM_CLOSED = "upstream-closed"
    RUN_ENDED = "run-ended"
    RUN_REVOKED = "run-revoked"
    POLICY_CHANGED = "policy-changed"
    LEASE_EXPIRED = "lease-expired"
    LEASE_REVOKED = "lease-revoked"
    DRAINING = "draining"
    # refused before a session has a target
    UNATTRIBUTED = "unattributed"
    TAG_WITHOUT_CGROUP = "tag-without-cgroup"
    CGROUP_WITHOUT_TAG = "cgroup-without-tag"
    RUN_UNKNOWN = "run-unknown"
    DESTINATION_UNLISTED = "destination-unlisted"
    DESTINATION_MISMATCH = "destination-mismatch"
    PROTOCOL_UNKNOWN = "protocol-unknown"
    # refused by the protocol or the policy
    PROTOCOL_ERROR = "protocol-error"
    LIMIT_EXCEEDED = "limit-exceeded"
    POLICY_DENIED = "policy-denied"
    METHOD_REFUSED = "method-refused"
    UPGRADE_REFUSED = "upgrade-refused"
    # what we depend on failed
    LEASE_REFUSED = "lease-refused"
    CREDENTIAL_MISFIT = "credential-misfit"
    RECORD_FAILED = "record-failed"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_UNTRUSTED = "upstream-untrusted"
    UPSTREAM_PROTOCOL_ERROR = "upstream-protocol-error"
    CLEARTEXT_REFUSED = "cleartext-refused"
    UNSCANNABLE = "unscannable"
    TLS_FAILED = "tls-failed"
    TIMED_OUT = "timed-out"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"
