from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Endpoint(_message.Message):
    __slots__ = ("address", "port")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("pid", "start_ns", "uid", "comm", "exe", "argv", "argv_truncated")
    PID_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    EXE_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ARGV_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    pid: int
    start_ns: int
    uid: int
    comm: str
    exe: str
    argv: _containers.RepeatedScalarFieldContainer[str]
    argv_truncated: bool
    def __init__(self, pid: _Optional[int] = ..., start_ns: _Optional[int] = ..., uid: _Optional[int] = ..., comm: _Optional[str] = ..., exe: _Optional[str] = ..., argv: _Optional[_Iterable[str]] = ..., argv_truncated: _Optional[bool] = ...) -> None: ...

class Attribution(_message.Message):
    __slots__ = ("session_id", "run_id", "tag", "cgroup_id", "evidence", "tier", "destination", "socket_cookie", "netns_cookie", "connect_ns", "process", "ancestors")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ID_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    SOCKET_COOKIE_FIELD_NUMBER: _ClassVar[int]
    NETNS_COOKIE_FIELD_NUMBER: _ClassVar[int]
    CONNECT_NS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    run_id: str
    tag: int
    cgroup_id: int
    evidence: str
    tier: str
    destination: Endpoint
    socket_cookie: int
    netns_cookie: int
    connect_ns: int
    process: Process
    ancestors: _containers.RepeatedCompositeFieldContainer[Process]
    def __init__(self, session_id: _Optional[str] = ..., run_id: _Optional[str] = ..., tag: _Optional[int] = ..., cgroup_id: _Optional[int] = ..., evidence: _Optional[str] = ..., tier: _Optional[str] = ..., destination: _Optional[_Union[Endpoint, _Mapping]] = ..., socket_cookie: _Optional[int] = ..., netns_cookie: _Optional[int] = ..., connect_ns: _Optional[int] = ..., process: _Optional[_Union[Process, _Mapping]] = ..., ancestors: _Optional[_Iterable[_Union[Process, _Mapping]]] = ...) -> None: ...

class Initiator(_message.Message):
    __slots__ = ("uid", "user", "pid", "exe", "tty", "unit", "service", "invocation", "container", "parents", "token")
    UID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    EXE_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INVOCATION_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    uid: int
    user: str
    pid: int
    exe: str
    tty: str
    unit: str
    service: str
    invocation: str
    container: str
    parents: _containers.RepeatedCompositeFieldContainer[Parent]
    token: TokenIdentity
    def __init__(self, uid: _Optional[int] = ..., user: _Optional[str] = ..., pid: _Optional[int] = ..., exe: _Optional[str] = ..., tty: _Optional[str] = ..., unit: _Optional[str] = ..., service: _Optional[str] = ..., invocation: _Optional[str] = ..., container: _Optional[str] = ..., parents: _Optional[_Iterable[_Union[Parent, _Mapping]]] = ..., token: _Optional[_Union[TokenIdentity, _Mapping]] = ...) -> None: ...

class Parent(_message.Message):
    __slots__ = ("pid", "uid", "comm", "exe")
    PID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    EXE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    uid: int
    comm: str
    exe: str
    def __init__(self, pid: _Optional[int] = ..., uid: _Optional[int] = ..., comm: _Optional[str] = ..., exe: _Optional[str] = ...) -> None: ...

class TokenIdentity(_message.Message):
    __slots__ = ("issuer", "subject", "claims")
    class Claim(_message.Message):
        __slots__ = ("name", "value")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: str
        def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    subject: str
    claims: _containers.RepeatedCompositeFieldContainer[TokenIdentity.Claim]
    def __init__(self, issuer: _Optional[str] = ..., subject: _Optional[str] = ..., claims: _Optional[_Iterable[_Union[TokenIdentity.Claim, _Mapping]]] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("kind", "effects", "reads", "writes", "columns_read", "columns_written", "calls", "unbounded", "returns_rows", "why", "prepared", "settings")
    class Relation(_message.Message):
        __slots__ = ("schema", "name")
        SCHEMA_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        schema: str
        name: str
        def __init__(self, schema: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...
    class Column(_message.Message):
        __slots__ = ("table", "name")
        TABLE_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        table: str
        name: str
        def __init__(self, table: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...
    class Call(_message.Message):
        __slots__ = ("schema", "name", "effect")
        SCHEMA_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        EFFECT_FIELD_NUMBER: _ClassVar[int]
        schema: str
        name: str
        effect: str
        def __init__(self, schema: _Optional[str] = ..., name: _Optional[str] = ..., effect: _Optional[str] = ...) -> None: ...
    class Setting(_message.Message):
        __slots__ = ("name", "value", "initial")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        INITIAL_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: str
        initial: bool
        def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., initial: _Optional[bool] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_READ_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    UNBOUNDED_FIELD_NUMBER: _ClassVar[int]
    RETURNS_ROWS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    effects: _containers.RepeatedScalarFieldContainer[str]
    reads: _containers.RepeatedCompositeFieldContainer[Statement.Relation]
    writes: _containers.RepeatedCompositeFieldContainer[Statement.Relation]
    columns_read: _containers.RepeatedCompositeFieldContainer[Statement.Column]
    columns_written: _containers.RepeatedCompositeFieldContainer[Statement.Column]
    calls: _containers.RepeatedCompositeFieldContainer[Statement.Call]
    unbounded: bool
    returns_rows: bool
    why: str
    prepared: str
    settings: _containers.RepeatedCompositeFieldContainer[Statement.Setting]
    def __init__(self, kind: _Optional[str] = ..., effects: _Optional[_Iterable[str]] = ..., reads: _Optional[_Iterable[_Union[Statement.Relation, _Mapping]]] = ..., writes: _Optional[_Iterable[_Union[Statement.Relation, _Mapping]]] = ..., columns_read: _Optional[_Iterable[_Union[Statement.Column, _Mapping]]] = ..., columns_written: _Optional[_Iterable[_Union[Statement.Column, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[Statement.Call, _Mapping]]] = ..., unbounded: _Optional[bool] = ..., returns_rows: _Optional[bool] = ..., why: _Optional[str] = ..., prepared: _Optional[str] = ..., settings: _Optional[_Iterable[_Union[Statement.Setting, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("operation_id", "protocol", "verb", "resource", "attributes", "statements")
    class Attribute(_message.Message):
        __slots__ = ("name", "value")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: str
        def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    protocol: str
    verb: str
    resource: str
    attributes: _containers.RepeatedCompositeFieldContainer[Operation.Attribute]
    statements: _containers.RepeatedCompositeFieldContainer[Statement]
    def __init__(self, operation_id: _Optional[str] = ..., protocol: _Optional[str] = ..., verb: _Optional[str] = ..., resource: _Optional[str] = ..., attributes: _Optional[_Iterable[_Union[Operation.Attribute, _Mapping]]] = ..., statements: _Optional[_Iterable[_Union[Statement, _Mapping]]] = ...) -> None: ...

class RunStarted(_message.Message):
    __slots__ = ("run_id", "loop", "tag", "cgroup_id", "cgroup_path", "tier", "adopt_joiners", "initiator", "argv", "started_ms")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    CGROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_PATH_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ADOPT_JOINERS_FIELD_NUMBER: _ClassVar[int]
    INITIATOR_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    loop: str
    tag: int
    cgroup_id: int
    cgroup_path: str
    tier: str
    adopt_joiners: bool
    initiator: Initiator
    argv: _containers.RepeatedScalarFieldContainer[str]
    started_ms: int
    def __init__(self, run_id: _Optional[str] = ..., loop: _Optional[str] = ..., tag: _Optional[int] = ..., cgroup_id: _Optional[int] = ..., cgroup_path: _Optional[str] = ..., tier: _Optional[str] = ..., adopt_joiners: _Optional[bool] = ..., initiator: _Optional[_Union[Initiator, _Mapping]] = ..., argv: _Optional[_Iterable[str]] = ..., started_ms: _Optional[int] = ...) -> None: ...

class RunEnded(_message.Message):
    __slots__ = ("run_id", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("attribution", "loop", "target", "worker")
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    attribution: Attribution
    loop: str
    target: str
    worker: str
    def __init__(self, attribution: _Optional[_Union[Attribution, _Mapping]] = ..., loop: _Optional[str] = ..., target: _Optional[str] = ..., worker: _Optional[str] = ...) -> None: ...

class SessionRefused(_message.Message):
    __slots__ = ("session_id", "detail", "reason")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    detail: str
    reason: str
    def __init__(self, session_id: _Optional[str] = ..., detail: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class OperationIntended(_message.Message):
    __slots__ = ("session_id", "run_id", "loop", "target", "operation", "rule", "lease_id", "durability")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    run_id: str
    loop: str
    target: str
    operation: Operation
    rule: str
    lease_id: str
    durability: str
    def __init__(self, session_id: _Optional[str] = ..., run_id: _Optional[str] = ..., loop: _Optional[str] = ..., target: _Optional[str] = ..., operation: _Optional[_Union[Operation, _Mapping]] = ..., rule: _Optional[str] = ..., lease_id: _Optional[str] = ..., durability: _Optional[str] = ...) -> None: ...

class OperationFinished(_message.Message):
    __slots__ = ("session_id", "operation_id", "outcome", "reason", "status", "request_bytes", "response_bytes", "duration_ns", "upstream", "rows", "attributes")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    operation_id: str
    outcome: str
    reason: str
    status: str
    request_bytes: int
    response_bytes: int
    duration_ns: int
    upstream: str
    rows: int
    attributes: _containers.RepeatedCompositeFieldContainer[Operation.Attribute]
    def __init__(self, session_id: _Optional[str] = ..., operation_id: _Optional[str] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., status: _Optional[str] = ..., request_bytes: _Optional[int] = ..., response_bytes: _Optional[int] = ..., duration_ns: _Optional[int] = ..., upstream: _Optional[str] = ..., rows: _Optional[int] = ..., attributes: _Optional[_Iterable[_Union[Operation.Attribute, _Mapping]]] = ...) -> None: ...

class OperationDenied(_message.Message):
    __slots__ = ("session_id", "run_id", "loop", "target", "operation", "rule", "reason", "explanation", "status")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    run_id: str
    loop: str
    target: str
    operation: Operation
    rule: str
    reason: str
    explanation: str
    status: str
    def __init__(self, session_id: _Optional[str] = ..., run_id: _Optional[str] = ..., loop: _Optional[str] = ..., target: _Optional[str] = ..., operation: _Optional[_Union[Operation, _Mapping]] = ..., rule: _Optional[str] = ..., reason: _Optional[str] = ..., explanation: _Optional[str] = ..., status: _Optional[str] = ...) -> None: ...

class SessionClosed(_message.Message):
    __slots__ = ("session_id", "reason", "operations", "downstream_bytes", "upstream_bytes", "duration_ns")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    DOWNSTREAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    reason: str
    operations: int
    downstream_bytes: int
    upstream_bytes: int
    duration_ns: int
    def __init__(self, session_id: _Optional[str] = ..., reason: _Optional[str] = ..., operations: _Optional[int] = ..., downstream_bytes: _Optional[int] = ..., upstream_bytes: _Optional[int] = ..., duration_ns: _Optional[int] = ...) -> None: ...

class LeaseChanged(_message.Message):
    __slots__ = ("lease_id", "run_id", "target", "provider", "state")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    run_id: str
    target: str
    provider: str
    state: str
    def __init__(self, lease_id: _Optional[str] = ..., run_id: _Optional[str] = ..., target: _Optional[str] = ..., provider: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class Alarmed(_message.Message):
    __slots__ = ("alarm", "detail", "run_id")
    ALARM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    alarm: str
    detail: str
    run_id: str
    def __init__(self, alarm: _Optional[str] = ..., detail: _Optional[str] = ..., run_id: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("uptime_s",)
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    uptime_s: int
    def __init__(self, uptime_s: _Optional[int] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("seq", "boot_id", "unix_ms", "monotonic_ns", "role", "run_started", "run_ended", "session_opened", "session_refused", "operation_intended", "operation_finished", "operation_denied", "session_closed", "lease_changed", "alarmed", "heartbeat")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_NS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    RUN_STARTED_FIELD_NUMBER: _ClassVar[int]
    RUN_ENDED_FIELD_NUMBER: _ClassVar[int]
    SESSION_OPENED_FIELD_NUMBER: _ClassVar[int]
    SESSION_REFUSED_FIELD_NUMBER: _ClassVar[int]
    OPERATION_INTENDED_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FINISHED_FIELD_NUMBER: _ClassVar[int]
    OPERATION_DENIED_FIELD_NUMBER: _ClassVar[int]
    SESSION_CLOSED_FIELD_NUMBER: _ClassVar[int]
    LEASE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    ALARMED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    boot_id: str
    unix_ms: int
    monotonic_ns: int
    role: str
    run_started: RunStarted
    run_ended: RunEnded
    session_opened: SessionOpened
    session_refused: SessionRefused
    operation_intended: OperationIntended
    operation_finished: OperationFinished
    operation_denied: OperationDenied
    session_closed: SessionClosed
    lease_changed: LeaseChanged
    alarmed: Alarmed
    heartbeat: Heartbeat
    def __init__(self, seq: _Optional[int] = ..., boot_id: _Optional[str] = ..., unix_ms: _Optional[int] = ..., monotonic_ns: _Optional[int] = ..., role: _Optional[str] = ..., run_started: _Optional[_Union[RunStarted, _Mapping]] = ..., run_ended: _Optional[_Union[RunEnded, _Mapping]] = ..., session_opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., session_refused: _Optional[_Union[SessionRefused, _Mapping]] = ..., operation_intended: _Optional[_Union[OperationIntended, _Mapping]] = ..., operation_finished: _Optional[_Union[OperationFinished, _Mapping]] = ..., operation_denied: _Optional[_Union[OperationDenied, _Mapping]] = ..., session_closed: _Optional[_Union[SessionClosed, _Mapping]] = ..., lease_changed: _Optional[_Union[LeaseChanged, _Mapping]] = ..., alarmed: _Optional[_Union[Alarmed, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...
