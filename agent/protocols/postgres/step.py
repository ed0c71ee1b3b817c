"""One message of the loop on its way: decided, recorded, sent, answered."""

from dataclasses import dataclass, field
from enum import Enum, auto

from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.sql import Classified
from agent.protocols.postgres.answers import Refusal
from agent.protocols.postgres.names import Change, Portal, Prepared
from agent.protocols.postgres.requests import Bind

QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE = b"QPBDEC"
FLUSH, SYNC, CALL, TERMINATE = b"HSFX"
COPY_DATA, COPY_DONE, COPY_FAIL = b"dcf"
# what has no message of the loop behind it
LOCAL = 0  # words of ours, said when it is their turn
FAILING_PARSE = 1  # sent in place of a refused message, so that the server fails too
FAILING_QUERY = 2
END = 3  # the loop will send no more


class Stage(Enum):
    """How far a step is."""

    NEW = auto()
    CLASSIFYING = auto()
    JUDGING = auto()
    RECORDING = auto()
    READY = auto()  # it may go upstream
    DENIED = auto()  # something of ours goes in its place
    DROPPED = auto()  # nobody waits for it any more


@dataclass(slots=True, eq=False)
class Exchange:
    """One operation from its decision to its outcome."""

    operation: Operation
    since_ns: int
    request_bytes: int
    rule: RuleId | None = None
    max_rows: int = 0
    intended: bool = False
    response_bytes: int = 0
    rows: int = 0
    tags: list[str] = field(default_factory=list)
    status: str = "00000"
    notes: list[tuple[str, str]] = field(default_factory=list)
    ended_ns: int = 0


class Step:
    """One message. wire is what goes upstream, b"" once it went.

    What most steps never need is a default of the class: one is made for every message.
    """

    segment = 0
    stage = Stage.NEW
    name = b""
    statement = False  # a Describe or Close of a statement, not of a portal
    text = ""
    bind: Bind | None = None
    most = 0  # an Execute's own row limit, a FunctionCall's function
    classified: Classified | None = None
    prepared: Prepared | None = None
    pinned: Refusal | None = None  # it would change a pinned setting
    portal: Portal | None = None
    exchange: Exchange | None = None
    unrun: Exchange | None = None  # of a Parse that was allowed: recorded if it never runs
    change: Change[Prepared] | Change[Portal] | None = None
    wild = False  # it may change names that nobody knows yet
    fence = False  # others wait until it is answered: COPY, or a row limit
    asked_rows = 0  # the row limit that we gave an Execute, to see one row more
    # of the answer
    described = False  # ParameterDescription came
    in_rows = False  # RowDescription came, rows may
    result_rows = 0
    result = 0  # how many statements of the text are answered
    failed = False  # ErrorResponse came, ReadyForQuery has to
    exceeded = False  # its row limit was reached, and the loop told
    answered = False  # FunctionCallResponse came

    def __init__(self, kind: int, wire: bytes, since_ns: int = 0, said: bytes = b"") -> None:
        """said: our words in place of the server's."""
        self.kind = kind
        self.wire = wire
        self.size = len(wire)
        self.since_ns = since_ns
        self.said = said
