"""Every message that may cross a boundary, as tagged structs, and who may send what to whom.

A request is answered by exactly one reply (or Failed); a notice is not answered. `BOUNDARIES`
is the closed table: a peer that sends anything else is ended, and that is an alarm.
"""

import msgspec
from msgspec import Struct

from agent.model.flow import Attribution, Process, Unattributed
from agent.model.grant import Grant
from agent.model.ids import LeaseId, LoopName, RunId, SessionId, TargetName
from agent.model.loop import Initiator, Run
from agent.model.reason import Reason

FRAME_BYTES_MAX = 65_536


class Message(Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages."""


class Failed(Message, frozen=True):
    """Reply to any request: it was not done. detail is for people."""

    reason: Reason
    detail: str


class Done(Message, frozen=True):
    """Reply to a request that has nothing else to say."""


# --- wiring: kernel (the supervisor) → every role ------------------------------------------


class Wire(Message, frozen=True):
    """Notice, with one fd: your endpoint to that peer (a new one replaces a dead one)."""

    peer: str  # "broker" | "reporter" | "proxy@0" | …


class Drain(Message, frozen=True):
    """Notice: take nothing new, finish what runs, exit within this time."""

    within_s: float


class Listeners(Message, frozen=True):
    """Notice to a proxy, with fds in this order: TCP listeners, DNS UDP, DNS TCP listeners."""

    tcp: int
    dns_udp: int
    dns_tcp: int


class Ready(Message, frozen=True):
    """Notice, role → kernel: I serve."""


class Pulse(Message, frozen=True):
    """Notice, role → kernel: my event loop turns (feeds the watchdog)."""


# --- proxy → kernel -----------------------------------------------------------------------


class Attribute(Message, frozen=True):
    """Request: whose flow is the accepted socket with this mark? Answered once per flow.

    destination is what the proxy read with SO_ORIGINAL_DST; it must equal the record.
    """

    mark: int
    destination_address: str
    destination_port: int


class Attributed(Message, frozen=True):
    """Reply to Attribute."""

    attribution: Attribution | None
    unattributed: Unattributed | None


# --- kernel → broker ----------------------------------------------------------------------


class SessionBegan(Message, frozen=True):
    """Notice: this worker may speak for this flow. Sent before the worker is answered."""

    worker: str
    attribution: Attribution


class RunEmptied(Message, frozen=True):
    """Notice: the last process of the run is gone."""

    run_id: RunId
    at_ns: int  # boot time


class Alarm(Message, frozen=True):
    """Notice: record this alarm (kernel → broker → reporter)."""

    alarm: str
    detail: str
    run_id: RunId | None


# --- broker → kernel ----------------------------------------------------------------------


class CreateRun(Message, frozen=True):
    """Request: make cgroup, tag and map entries → RunCreated. Nothing runs in it yet."""

    run_id: RunId
    loop: LoopName
    initiator: Initiator
    argv: tuple[str, ...]
    started_ms: int


class RegisterCgroup(Message, frozen=True):
    """Request: make an existing cgroup v2 a run (tier T0) → RunCreated.

    Refused when a task there holds a foreign inet socket, or the cgroup or an ancestor or
    descendant is registered.
    """

    run_id: RunId
    loop: LoopName
    initiator: Initiator
    path: str
    adopt_joiners: bool
    started_ms: int


class RunCreated(Message, frozen=True):
    """Reply to CreateRun and RegisterCgroup."""

    run: Run


class Admit(Message, frozen=True):
    """Request, with a pidfd: tag that process and move it into the run's cgroup → Done.

    The process must have the uid of the run's initiator (or the initiator is root).
    """

    run_id: RunId


class RevokeRun(Message, frozen=True):
    """Request: stop the run's flows in the kernel, destroy its sockets → Done. Idempotent.

    kill: also end the run's processes (launched runs only).
    """

    run_id: RunId
    kill: bool


class RemoveRun(Message, frozen=True):
    """Request: forget a run; a launched run must be empty, its cgroup is removed → Done."""

    run_id: RunId


class ListRuns(Message, frozen=True):
    """Request: the runs that the kernel maps hold → Runs (survives any restart of ours).

    In the order of their ids, from the one behind `after`, as many as a frame takes.
    """

    after: str = ""


class Runs(Message, frozen=True):
    """Reply to ListRuns."""

    runs: tuple[Run, ...]
    more: bool = False  # ask again, after the last of these


class RunTree(Message, frozen=True):
    """Request: the live processes of a run → Processes, in the order of their pids."""

    run_id: RunId
    after_pid: int = 0


class Processes(Message, frozen=True):
    """Reply to RunTree."""

    processes: tuple[Process, ...]
    parents: tuple[int, ...]  # pid of the parent of each
    more: bool = False  # ask again, after the last of these


class Probe(Message, frozen=True):
    """Request: probe each enforcement layer with real packets in a throw-away run → Layers."""


class Layer(Struct, frozen=True, array_like=True):
    """One enforcement layer as probed."""

    name: str
    claimed: bool
    present: bool
    detail: str


class Layers(Message, frozen=True):
    """Reply to Probe and KernelStatus."""

    layers: tuple[Layer, ...]
    counters: dict[str, int]


class KernelStatus(Message, frozen=True):
    """Request: layers as attached now, without packets, and counters → Layers."""


# --- proxy → broker -----------------------------------------------------------------------


class Authorize(Message, frozen=True):
    """Request: the grant of a session that the kernel announced for this worker → Authorized."""

    session_id: SessionId


class Authorized(Message, frozen=True):
    """Reply to Authorize. grant None: the destination names no target of the loop's rules.

    reason says why, explanation and next_step are safe to show to the loop.
    """

    loop: LoopName
    grant: Grant | None
    reason: Reason | None
    explanation: str
    next_step: str
    run_key: bytes = b""  # 32 bytes, of this run and target; not shown, not recorded

    def __repr__(self) -> str:
        return f"Authorized(loop={self.loop!r}, reason={self.reason!r})"


class TakeLease(Message, frozen=True):
    """Request: the credential for a live session of this worker → LeaseTaken | Failed."""

    session_id: SessionId


class LeaseTaken(Message, frozen=True):
    """Reply to TakeLease: the secret crosses here, once per session, and nowhere else.

    shape and parts rebuild the Credential: bearer (token), basic (user, password), header (name,
    value), query-parameter (name, value), password (user, password), client-certificate (user,
    chain PEM, key PEM).
    """

    lease_id: LeaseId
    run_id: RunId
    target: TargetName
    shape: str
    parts: tuple[bytes, ...]
    expires_ms: int
    revocable: bool

    def __repr__(self) -> str:
        return f"LeaseTaken(lease_id={self.lease_id!r}, shape={self.shape!r})"


class SignLeaf(Message, frozen=True):
    """Request: a leaf for one name of the policy and the worker's own key → LeafSigned."""

    name: str
    public_key_der: bytes  # SubjectPublicKeyInfo


class LeafSigned(Message, frozen=True):
    """Reply to SignLeaf: leaf and issuer, PEM, leaf first."""

    chain_pem: bytes
    not_after_ms: int


class AskStopped(Message, frozen=True):
    """Request: have the other workers stop what a session of this one's run and target holds.

    name is what that session answers to. → HeldStopped
    """

    session_id: SessionId
    name: bytes


class SessionEnded(Message, frozen=True):
    """Notice: the worker closed a session."""

    session_id: SessionId


# --- broker → proxy -----------------------------------------------------------------------


class CutRun(Message, frozen=True):
    """Notice: end every session of the run now, with this cause, and forget its leases."""

    run_id: RunId
    reason: Reason


class CutLease(Message, frozen=True):
    """Notice: end the sessions that hold this lease of the run, with this cause, and forget it.

    when_idle: each may first finish what is under way; no new operation of it begins.
    """

    run_id: RunId
    lease_id: LeaseId
    reason: Reason
    when_idle: bool


class StopHeld(Message, frozen=True):
    """Request: give up what the session that answers to this name holds → HeldStopped."""

    run_id: RunId
    target: TargetName
    name: bytes


class HeldStopped(Message, frozen=True):
    """Reply to AskStopped and StopHeld. taken: something was held, and never goes upstream."""

    taken: bool


class PolicyNames(Message, frozen=True):
    """Notice: the policy of this revision; names the resolver answers: (name, IPv4, IPv6)."""

    revision: str
    names: tuple[tuple[str, str, str], ...]


# --- any role → reporter ------------------------------------------------------------------


class Record(Message, frozen=True):
    """Notice: append these events. Each is (kind, msgpack body), see ipc/records.py.

    With durable above 0 the reporter answers Durable with the same number when all events up
    to and with this frame are as durable as level says ("disk" | "process").
    """

    events: tuple[tuple[str, msgspec.Raw], ...]
    durable: int
    level: str


class Durable(Message, frozen=True):
    """Notice, reporter → sender: frames up to this number are durable."""

    durable: int


class SpoolState(Message, frozen=True):
    """Notice, reporter → all: whether records can be made; False means refuse new operations."""

    accepting: bool
    detail: str


class ReporterStatus(Message, frozen=True):
    """Request, broker → reporter → ReporterState."""


class ReporterState(Message, frozen=True):
    """Reply to ReporterStatus."""

    accepting: bool
    detail: str
    spool_bytes: int
    spool_bytes_max: int
    last_seq: int
    acknowledged_seq: int
    collector: str
    connected: bool
    identity_ends_ms: int = 0  # when the host's certificate for the collector ends; 0: it has none


class KillAsked(Message, frozen=True):
    """Notice, reporter → broker: the collector asks to end this run or lease."""

    kill_id: str
    name: str


class KillTold(Message, frozen=True):
    """Notice, broker → reporter: how it goes; "cut", then a last word (see collector.proto)."""

    kill_id: str
    state: str
    detail: str


# What may come with file descriptors; with anything else they end the peer.
WITH_FDS = (Wire, Listeners, Admit)

ToRole = Wire | Drain | Listeners
FromRole = Ready | Pulse

# (sender, receiver) → what may cross. Roles by kind; a proxy is "proxy" whatever its number.
BOUNDARIES: dict[tuple[str, str], object] = {
    ("kernel", "broker"): ToRole
    | SessionBegan
    | RunEmptied
    | Alarm
    | RunCreated
    | Runs
    | Processes
    | Layers
    | Done
    | Failed,
    ("broker", "kernel"): FromRole
    | CreateRun
    | RegisterCgroup
    | Admit
    | RevokeRun
    | RemoveRun
    | ListRuns
    | RunTree
    | Probe
    | KernelStatus,
    ("kernel", "proxy"): ToRole | Attributed | CutRun | Failed,
    ("proxy", "kernel"): FromRole | Attribute,
    ("kernel", "reporter"): ToRole | Failed,
    ("reporter", "kernel"): FromRole,
    ("broker", "proxy"): Authorized
    | LeaseTaken
    | LeafSigned
    | CutRun
    | CutLease
    | PolicyNames
    | StopHeld
    | HeldStopped
    | Failed,
    ("proxy", "broker"): Authorize | TakeLease | SignLeaf | SessionEnded | AskStopped | HeldStopped,
    ("proxy", "reporter"): Record,
    ("reporter", "proxy"): Durable | SpoolState,
    ("broker", "reporter"): Record | ReporterStatus | KillTold,
    ("reporter", "broker"): Durable | SpoolState | ReporterState | KillAsked | Failed,
}
