from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Upload(_message.Message):
    __slots__ = ("hello", "batch", "gap", "kill_told")
    class Hello(_message.Message):
        __slots__ = ("host_name", "version", "first_seq", "last_seq")
        HOST_NAME_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
        LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
        host_name: str
        version: str
        first_seq: int
        last_seq: int
        def __init__(self, host_name: _Optional[str] = ..., version: _Optional[str] = ..., first_seq: _Optional[int] = ..., last_seq: _Optional[int] = ...) -> None: ...
    class Batch(_message.Message):
        __slots__ = ("first_seq", "records", "previous_hash", "hash")
        FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
        RECORDS_FIELD_NUMBER: _ClassVar[int]
        PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
        HASH_FIELD_NUMBER: _ClassVar[int]
        first_seq: int
        records: _containers.RepeatedScalarFieldContainer[bytes]
        previous_hash: bytes
        hash: bytes
        def __init__(self, first_seq: _Optional[int] = ..., records: _Optional[_Iterable[bytes]] = ..., previous_hash: _Optional[bytes] = ..., hash: _Optional[bytes] = ...) -> None: ...
    class Gap(_message.Message):
        __slots__ = ("first_seq", "next_seq", "previous_hash", "detail")
        FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
        NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
        PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
        DETAIL_FIELD_NUMBER: _ClassVar[int]
        first_seq: int
        next_seq: int
        previous_hash: bytes
        detail: str
        def __init__(self, first_seq: _Optional[int] = ..., next_seq: _Optional[int] = ..., previous_hash: _Optional[bytes] = ..., detail: _Optional[str] = ...) -> None: ...
    class KillTold(_message.Message):
        __slots__ = ("kill_id", "state", "detail")
        KILL_ID_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        DETAIL_FIELD_NUMBER: _ClassVar[int]
        kill_id: str
        state: str
        detail: str
        def __init__(self, kill_id: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    KILL_TOLD_FIELD_NUMBER: _ClassVar[int]
    hello: Upload.Hello
    batch: Upload.Batch
    gap: Upload.Gap
    kill_told: Upload.KillTold
    def __init__(self, hello: _Optional[_Union[Upload.Hello, _Mapping]] = ..., batch: _Optional[_Union[Upload.Batch, _Mapping]] = ..., gap: _Optional[_Union[Upload.Gap, _Mapping]] = ..., kill_told: _Optional[_Union[Upload.KillTold, _Mapping]] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("kill", "seq", "hash", "refused", "signature")
    class Kill(_message.Message):
        __slots__ = ("kill_id", "name")
        KILL_ID_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        kill_id: str
        name: str
        def __init__(self, kill_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...
    KILL_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    kill: Acknowledgement.Kill
    seq: int
    hash: bytes
    refused: str
    signature: bytes
    def __init__(self, kill: _Optional[_Union[Acknowledgement.Kill, _Mapping]] = ..., seq: _Optional[int] = ..., hash: _Optional[bytes] = ..., refused: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class EnrollRequest(_message.Message):
    __slots__ = ("join_token", "certificate_request_pem", "host_name")
    JOIN_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    HOST_NAME_FIELD_NUMBER: _ClassVar[int]
    join_token: str
    certificate_request_pem: bytes
    host_name: str
    def __init__(self, join_token: _Optional[str] = ..., certificate_request_pem: _Optional[bytes] = ..., host_name: _Optional[str] = ...) -> None: ...

class EnrollReply(_message.Message):
    __slots__ = ("certificate_pem", "ca_pem", "host_id")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    ca_pem: bytes
    host_id: str
    def __init__(self, certificate_pem: _Optional[bytes] = ..., ca_pem: _Optional[bytes] = ..., host_id: _Optional[str] = ...) -> None: ...
