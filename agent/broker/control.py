"""The control socket's language: what `loopwarden` may ask, and what the broker answers.

One SOCK_SEQPACKET connection, one request at a time. A frame is one msgpack struct of at most
FRAME_BYTES_MAX bytes. A request has one reply, or (ListLoops, ListLeases, Revoke) a row of them
closed by End.
The broker takes identity from the kernel (SO_PEERCRED and its kin), never from a message.
"""

import msgspec
from msgspec import Struct

from agent.ipc.messages import Layer, ReporterState
from agent.model.flow import Endpoint, Process
from agent.model.ids import LeaseId, LoopName, RunId, SessionId, TargetName
from agent.model.loop import Run
from agent.model.reason import Reason

FRAME_BYTES_MAX = 65_536
ARGV_BYTES_MAX = 16_384  # of StartRun; what is longer is cut for the record by the CLI


class Control(Struct, frozen=True, tag=True, array_like=True):
    """Base of all control messages."""


class StartRun(Control, frozen=True):
    """Make a run of a loop → RunOpened. user "" is the caller's own; root may name another.

    token: an identity token, "" for none; it is not shown by repr.
    """

    loop: str
    argv: tuple[str, ...]
    user: str
    token: str = ""

    def __repr__(self) -> str:
        return f"StartRun(loop={self.loop!r}, user={self.user!r})"


class AdmitRun(Control, frozen=True):
    """With a pidfd: this process is the run's first → Accepted. Same connection as StartRun."""

    run_id: RunId


class RegisterLoop(Control, frozen=True):
    """Make an existing cgroup (path below the cgroup v2 mount) a run → RunOpened. Root only."""

    loop: str
    path: str


class Unregister(Control, frozen=True):
    """Forget a registered cgroup, by run id or path → Accepted."""

    run: str


class Revoke(Control, frozen=True):
    """End a run's access and processes, or one lease, by id → Accepted, LeaseView frames, End.

    Accepted comes when it is cut here; the views when the providers confirmed, or after a wait.
    rotate: of a lease; its run may take another.
    """

    run: str
    rotate: bool = False


class ListLeases(Control, frozen=True):
    """→ LeaseView frames, then End. run "" is every run of the caller's; past: ended ones too."""

    run: str
    past: bool


class ListLoops(Control, frozen=True):
    """→ RunView, ProcessView, SessionView and LeaseView frames, then End."""


class GetStatus(Control, frozen=True):
    """→ StatusView."""


class Diagnose(Control, frozen=True):
    """Probe every layer with real packets → DiagnosisView. Root only."""


class ProbeCredentials(Control, frozen=True):
    """Ask each target's provider whether it could issue → a CredentialView each, End. Root only."""


class ReloadPolicy(Control, frozen=True):
    """Read the policy directory again → Accepted, or Refused with every problem. Root only."""


class Refused(Control, frozen=True):
    """It was not done: cause and next step, for people."""

    reason: Reason
    detail: str
    next_step: str


class Accepted(Control, frozen=True):
    """It was done."""

    detail: str


class RunOpened(Control, frozen=True):
    """The run exists and is recorded; trust_dir has what its processes are to trust."""

    run_id: RunId
    loop: LoopName
    trust_dir: str


class RunView(Control, frozen=True):
    """One live run."""

    run: Run
    state: str


class ProcessView(Control, frozen=True):
    """One process of a run's tree."""

    run_id: RunId
    process: Process
    parent_pid: int


class SessionView(Control, frozen=True):
    """One open session. target "" while none is named."""

    run_id: RunId
    session_id: SessionId
    worker: str
    destination: Endpoint
    target: str
    pid: int


class LeaseView(Control, frozen=True):
    """One lease of a run. Times are Unix milliseconds, 0: none."""

    run_id: RunId
    lease_id: LeaseId
    target: TargetName
    provider: str
    state: str
    loop: str
    sessions: int
    expires_ms: int
    renewable: bool
    revocable: bool
    withdrawn: bool
    next_action: str
    next_ms: int
    attempts: int
    error: str
    provider_id: str
    began_ms: int
    at_ms: int


class End(Control, frozen=True):
    """The row of views is complete."""


class StatusView(Control, frozen=True):
    """The daemon's state in one frame."""

    version: str
    instance: str
    accepting: bool
    accepting_detail: str
    policy_revision: str
    policy_loaded_ms: int
    policy_problem: str  # of the last load that was rejected; "" when the newest is in force
    loops: int
    targets: int
    runs: int
    sessions: int
    leases: int
    workers: tuple[str, ...]
    reporter: ReporterState | None
    layers: tuple[Layer, ...]
    counters: dict[str, int]
    ca_not_after_ms: int


class CredentialView(Control, frozen=True):
    """Whether a target's credential could be issued now."""

    target: str
    provider: str
    problem: str  # "" when it could


class DiagnosisView(Control, frozen=True):
    """Each layer as probed."""

    layers: tuple[Layer, ...]
    counters: dict[str, int]


Request = (
    StartRun
    | AdmitRun
    | RegisterLoop
    | Unregister
    | Revoke
    | ListLeases
    | ListLoops
    | GetStatus
    | Diagnose
    | ProbeCredentials
    | ReloadPolicy
)
Reply = (
    Refused
    | Accepted
    | RunOpened
    | RunView
    | ProcessView
    | SessionView
    | LeaseView
    | End
    | StatusView
    | CredentialView
    | DiagnosisView
)
encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
