"""What each control request does, and who may make it."""

from collections.abc import AsyncIterator, Callable
from pathlib import PurePosixPath
from typing import assert_never

from agent import __version__
from agent.broker import control, lease_views
from agent.broker.ca import HostCa
from agent.broker.control import Accepted, Refused, Reply, Request
from agent.broker.leases import Leases
from agent.broker.listing import all_processes
from agent.broker.loops import LiveRun, Loops, RunRefused
from agent.broker.peer import Peer
from agent.broker.policies import Policies
from agent.broker.probing import probe_credentials
from agent.broker.recorder import Recorder
from agent.broker.run_keys import RunKeys
from agent.broker.server import Connection
from agent.broker.sessions import Sessions
from agent.config.daemon import Daemon
from agent.ipc.endpoint import Endpoint, PeerGone, RequestFailed
from agent.ipc.messages import (
    KernelStatus,
    Layers,
    Probe,
    ReporterState,
    ReporterStatus,
)
from agent.model.flow import Tier
from agent.model.ids import LoopName, RunId
from agent.model.reason import Reason
from agent.model.secret import Secret
from agent.policy.errors import PolicyError

PROBE_TIMEOUT_S = 120.0
STATUS_TIMEOUT_S = 5.0
RUNS_OPEN_MAX = 4  # of a connection, without a process


class Api:
    """The broker's parts behind the control socket."""

    def __init__(
        self,
        config: Daemon,
        parts: "Parts",
        reload_policy: Callable[[], tuple[LoopName, ...]],
    ) -> None:
        self._config = config
        self._parts = parts
        self._reload_policy = reload_policy

    async def answer(
        self, connection: Connection, request: Request, fds: tuple[int, ...]
    ) -> AsyncIterator[Reply]:
        """Yield the replies; a refusal is a reply."""
        try:
            self._refuse_inside(connection.peer, request)
            match request:
                case control.ListLoops() | control.ListLeases() | control.Revoke():
                    async for view in self._rows(connection.peer, request):
                        yield view
                    yield control.End()
                case control.ProbeCredentials():
                    _require_root(connection.peer, "have providers asked")
                    policy = self._parts.policies.policy
                    async for view in probe_credentials(self._parts.leases, policy):
                        yield view
                    yield control.End()
                case _:
                    yield await self._one(connection, request, fds)
        except RunRefused as error:
            yield Refused(error.reason, error.detail, error.next_step)
        except RequestFailed as error:
            yield Refused(error.failed.reason, error.failed.detail, "See the daemon's journal.")
        except (PeerGone, TimeoutError) as error:
            detail = f"a part of the daemon does not answer: {error}"
            yield Refused(Reason.INTERNAL, detail, "See the daemon's journal.")

    def _refuse_inside(self, peer: Peer, request: Request) -> None:
        """A run may look at what is, and change nothing: it would outlive or end what bounds it."""
        if isinstance(request, control.GetStatus | control.ListLoops | control.ListLeases):
            return
        if not peer.initiator.unit:  # it ended before it was looked at: it may have been anybody's
            raise RunRefused(
                Reason.POLICY_DENIED,
                "the process that connected is gone, or /proc hides it: it may be of a run",
                "Ask from the process that connects, while it lives.",
            )
        place = PurePosixPath(peer.initiator.unit)
        for live in self._parts.loops.live.values():
            if place.is_relative_to(live.run.cgroup_path):
                raise RunRefused(
                    Reason.POLICY_DENIED,
                    f"this process belongs to run {live.run.run_id}: a run may change nothing",
                    "Do it from outside of any run.",
                )

    async def _one(self, connection: Connection, request: Request, fds: tuple[int, ...]) -> Reply:
        peer = connection.peer
        match request:
            case control.StartRun():
                return await self._start(connection, request)
            case control.AdmitRun(run_id):
                return await self._admit(connection, run_id, fds)
            case control.RegisterLoop(loop, path):
                run = await self._parts.loops.register(peer, loop, path)
                return control.RunOpened(run.run_id, run.loop, str(self._config.trust_dir))
            case control.Unregister(run_text):
                return await self._unregister(peer, run_text)
            case control.GetStatus():
                return await self._status()
            case control.Diagnose():
                _require_root(peer, "probe the enforcement layers")
                layers = await self._parts.loops.kernel.request(
                    Probe(), Layers, timeout_s=PROBE_TIMEOUT_S
                )
                return control.DiagnosisView(layers.layers, layers.counters)
            case control.ReloadPolicy():
                return self._reload(peer)
            case (
                control.ListLoops()
                | control.ListLeases()
                | control.Revoke()
                | control.ProbeCredentials()
            ):
                raise AssertionError("answered by rows")
            case _:
                assert_never(request)

    async def _start(self, connection: Connection, request: control.StartRun) -> Reply:
        if request.user:
            _require_root(connection.peer, "run as another user")
        if len(connection.runs_open) >= RUNS_OPEN_MAX:
            return Refused(
                Reason.LIMIT_EXCEEDED,
                f"{RUNS_OPEN_MAX} runs of this connection have no process yet",
                "Admit one first.",
            )
        token = Secret(request.token.encode("utf-8", "replace")) if request.token else None
        run = await self._parts.loops.create(connection.peer, request.loop, request.argv, token)
        if connection.closed:
            self._parts.loops.finish(run.run_id, Reason.DOWNSTREAM_CLOSED)
        connection.runs_open.add(run.run_id)
        connection.take_descriptors()  # the pidfd of AdmitRun, and before it nothing
        return control.RunOpened(run.run_id, run.loop, str(self._config.trust_dir))

    async def _admit(self, connection: Connection, run_id: RunId, fds: tuple[int, ...]) -> Reply:
        if run_id not in connection.runs_open or len(fds) != 1:
            return Refused(Reason.RUN_UNKNOWN, "not a run of this connection", "")
        await self._parts.loops.admit(run_id, fds[0])
        connection.runs_open.discard(run_id)
        return Accepted("")

    def caller_gone(self, connection: Connection) -> None:
        """Runs that never got their first process are over."""
        for run_id in connection.runs_open:
            self._parts.loops.finish(RunId(run_id), Reason.DOWNSTREAM_CLOSED)

    async def _unregister(self, peer: Peer, text: str) -> Reply:
        live = self._find(peer, text)
        if live.run.tier is not Tier.REGISTERED:
            return Refused(
                Reason.METHOD_REFUSED,
                f"run {live.run.run_id} was launched, not registered",
                f"End it with `loopwarden revoke {live.run.run_id}`.",
            )
        task = self._parts.loops.finish(live.run.run_id, Reason.DONE)
        if task is not None:
            await task
        return Accepted(f"{live.run.cgroup_path} is no run any more")

    def _find(self, peer: Peer, text: str, what: str = "run") -> LiveRun:
        """Return the caller's run of this id or cgroup path; root finds all."""
        path = "/" + text.strip("/")
        for live in self._parts.loops.live.values():
            if (live.run.run_id == text or live.run.cgroup_path == path) and _may_see(peer, live):
                return live
        raise RunRefused(
            Reason.RUN_UNKNOWN, f"no live {what} {text[:200]!r} of yours", "See `loopwarden loops`."
        )

    async def _rows(
        self, peer: Peer, request: control.ListLoops | control.ListLeases | control.Revoke
    ) -> AsyncIterator[Reply]:
        loops, leases = self._parts.loops, self._parts.leases
        match request:
            case control.ListLoops():
                async for row in self._list(peer):
                    yield row
            case control.ListLeases(run, past):
                for one in lease_views.visible(leases, peer, run, past=past):
                    yield one
            case control.Revoke(text, rotate):
                lease = lease_views.find(leases, peer, text)
                if lease is not None:
                    done = lease_views.revoke_lease(leases, lease, rotate=rotate)
                else:
                    run_id = self._find(peer, text, "run or lease").run.run_id
                    if rotate:
                        raise RunRefused(
                            Reason.METHOD_REFUSED,
                            f"{run_id} is a run: one lease is rotated, a run is not",
                            f"`loopwarden leases --run {run_id}` lists its leases.",
                        )
                    done = lease_views.revoke_run(loops, leases, run_id)
                async for step in done:
                    yield step

    async def _list(self, peer: Peer) -> AsyncIterator[Reply]:
        parts = self._parts
        for live in tuple(parts.loops.live.values()):
            if not _may_see(peer, live):
                continue
            run_id = live.run.run_id
            yield control.RunView(live.run, live.state.value)
            try:
                async for process, parent in all_processes(parts.loops.kernel, run_id):
                    yield control.ProcessView(run_id, process, parent)
            except RequestFailed:
                continue  # it ended meanwhile
            for session_id, session in parts.sessions.of_run(run_id):
                yield control.SessionView(
                    run_id,
                    session_id,
                    session.worker,
                    session.attribution.destination,
                    session.grant.target.name if session.grant is not None else "",
                    session.attribution.process.pid,
                )
            for row in parts.leases.rows(run_id):
                yield lease_views.view(parts.leases, row)

    async def _status(self) -> Reply:
        parts = self._parts
        layers = await parts.loops.kernel.request(
            KernelStatus(), Layers, timeout_s=STATUS_TIMEOUT_S
        )
        refusal = parts.recorder.refusal
        policies = parts.policies
        return control.StatusView(
            version=__version__,
            instance=self._config.instance,
            accepting=not refusal,
            accepting_detail=refusal,
            policy_revision=policies.policy.revision,
            policy_loaded_ms=policies.loaded_ms,
            policy_problem=policies.problem[:8192],
            loops=len(policies.policy.loops),
            targets=len(policies.policy.targets),
            runs=len(parts.loops.live),
            sessions=len(parts.sessions),
            leases=len(parts.leases),
            workers=tuple(sorted(parts.workers)),
            reporter=await self._reporter_state(),
            layers=layers.layers,
            counters=layers.counters
            | dict(parts.recorder.counters)
            | dict(parts.loops.gate.counters)
            | {"leases.quarantined": parts.leases.quarantined},
            ca_not_after_ms=parts.ca.not_after_ms,
        )

    async def _reporter_state(self) -> ReporterState | None:
        reporter = self._parts.reporter
        if reporter is None:
            return None
        try:
            return await reporter.request(
                ReporterStatus(), ReporterState, timeout_s=STATUS_TIMEOUT_S
            )
        except (PeerGone, RequestFailed, TimeoutError):
            return None

    def _reload(self, peer: Peer) -> Reply:
        _require_root(peer, "reload the policy")
        try:
            changed = self._reload_policy()
        except PolicyError as error:
            return Refused(
                Reason.POLICY_DENIED,
                f"the policy is rejected, the last good one stays in force:\n{error}"[:16_384],
                "Repair it; `loopwarden policy check` reads the same files.",
            )
        policy = self._parts.policies.policy
        return Accepted(
            f"policy {policy.revision[:12]}: {len(policy.loops)} loops, {len(policy.targets)} "
            f"targets; changed: {', '.join(changed) or 'nothing that runs'}"
        )


class Parts:
    """What the API shows and steers; the roles that come and go are attributes."""

    def __init__(
        self,
        *,
        policies: Policies,
        recorder: Recorder,
        sessions: Sessions,
        leases: Leases,
        loops: Loops,
        ca: HostCa,
        run_keys: RunKeys,
    ) -> None:
        self.policies = policies
        self.recorder = recorder
        self.sessions = sessions
        self.leases = leases
        self.loops = loops
        self.ca = ca
        self.run_keys = run_keys
        self.reporter: Endpoint | None = None
        self.workers: dict[str, Endpoint] = {}


def _may_see(peer: Peer, live: LiveRun) -> bool:
    return peer.is_root or live.run.initiator.uid == peer.uid


def _require_root(peer: Peer, what: str) -> None:
    if not peer.is_root:
        raise RunRefused(Reason.POLICY_DENIED, f"only root may {what}", "Try it with sudo.")
