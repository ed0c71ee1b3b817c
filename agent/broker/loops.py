"""Runs, from the request to the last process: who may start, what is recorded when, how it ends.

The kernel's maps are the truth: at start the runs are read back from them, so that a broker's
restart forgets nothing.
"""

import asyncio
import collections
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent.broker.identity.gate import Gate
from agent.broker.identity.refusal import Unverified
from agent.broker.identity.verify import Verified
from agent.broker.lease_clock import TICK_S
from agent.broker.lease_times import remaining_ms
from agent.broker.leases import Leases
from agent.broker.listing import all_runs
from agent.broker.peer import Peer
from agent.broker.policies import Policies
from agent.broker.recorder import Recorder, Unrecorded
from agent.broker.sessions import Sessions
from agent.broker.who import may_start, tokens_of
from agent.credentials.spec import RunToken
from agent.ipc.endpoint import Endpoint, PeerGone, RequestFailed
from agent.ipc.messages import (
    Admit,
    CreateRun,
    CutRun,
    Done,
    Processes,
    RegisterCgroup,
    RemoveRun,
    RevokeRun,
    RunCreated,
    RunTree,
)
from agent.model.audit import RunEnded, RunStarted
from agent.model.flow import Tier
from agent.model.ids import LoopName, RunId
from agent.model.loop import Run, RunState, allowed
from agent.model.reason import Reason
from agent.model.redaction import redact
from agent.model.secret import Secret
from agent.policy.hours import are_open, shown
from agent.policy.schema import LoopPolicy
from agent.runtime import clock

RUNS_MAX = 4_096
RUNS_A_USER_MAX = 1_024  # root is not bounded by it: one user must not use up all
PATH_BYTES_MAX = 4_095  # Linux PATH_MAX without its end
FINISH_RETRY_FIRST_S, FINISH_RETRY_MOST_S = 0.1, 5.0

_NEXT = "See `loopwarden doctor`, and the daemon's journal."
_NEXT_CGROUP = (
    "Name one as /proc/PID/cgroup does, below the host's cgroup v2; `loopwarden loops` shows what "
    "is a run already."
)

logger = logging.getLogger(__name__)


class RunRefused(Exception):
    """It was not done: the cause and the next step."""

    def __init__(self, reason: Reason, detail: str, next_step: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.next_step = next_step


@dataclass(slots=True)
class LiveRun:
    """A run and what hangs on it."""

    run: Run
    state: RunState
    expires_ms: int = 0
    ends_boot_ms: int = 0  # the same moment, on the clock that nobody sets
    timer: asyncio.TimerHandle | None = None
    finishing: asyncio.Task[None] | None = None
    ended_because: Reason = field(default=Reason.RUN_ENDED)
    token: RunToken | None = None  # which let it start; gone with the run, or with us

    def move(self, state: RunState) -> None:
        """Make a transition of the table."""
        if state is not self.state:
            if state not in allowed[self.state]:
                raise AssertionError(f"{self.state} → {state} is no transition of a run")
            self.state = state


class Loops:
    """All methods run on the event loop."""

    def __init__(
        self,
        policies: Policies,
        recorder: Recorder,
        sessions: Sessions,
        leases: Leases,
        tell_workers: Callable[[CutRun], None],
        gate: Gate,
    ) -> None:
        self._policies = policies
        self._recorder = recorder
        self._sessions = sessions
        self._leases = leases
        self._tell_workers = tell_workers
        self.gate = gate
        self._kernel: Endpoint | None = None
        self._creating: collections.Counter[LoopName] = collections.Counter()
        self._creating_for: collections.Counter[int] = collections.Counter()  # by uid
        self._expiring: set[asyncio.Task[None]] = set()
        self.live: dict[RunId, LiveRun] = {}

    async def restore(self, kernel: Endpoint) -> None:
        """Read the runs back from the kernel, and take away what runs that are gone had."""
        self._kernel = kernel
        runs = [run async for run in all_runs(kernel)]
        for run in runs:
            self._add(run, RunState.LIVE)
            await self._finish_if_over(kernel, run)
        self._leases.reconcile(frozenset(self.live))
        if runs:
            logger.info("%d runs read back from the kernel", len(runs))

    async def _finish_if_over(self, kernel: Endpoint, run: Run) -> None:
        """A launched run without processes ended, or lost its launcher, while we were away.

        A registered cgroup may be empty and wait for its service: it stays governed.
        """
        if run.tier is Tier.REGISTERED:
            return
        tree = await kernel.request(RunTree(run.run_id), Processes)
        if not tree.processes:
            self.finish(run.run_id, Reason.RUN_ENDED)

    @property
    def kernel(self) -> Endpoint:
        """The endpoint to kernel."""
        if self._kernel is None:
            raise AssertionError("kernel is there before anybody can ask")
        return self._kernel

    def find(self, run_id: RunId) -> LiveRun | None:
        """Return a run that the kernel holds."""
        return self.live.get(run_id)

    async def create(
        self, peer: Peer, loop_name: str, argv: tuple[str, ...], token: Secret | None = None
    ) -> Run:
        """Make a run; it is recorded before this returns, and has no process yet.

        A token counts for a loop that names issuers: there it must be good, whoever shows it.

        Raises:
            RunRefused: not allowed, not recordable, or the kernel said no.
        """
        loop, verified = await self._identified(peer, loop_name, token)
        identity = None if verified is None else verified.identity
        initiator = replace(peer.initiator, token=identity)
        message = CreateRun(_new_id(), loop.name, initiator, redact(argv), clock.unix_ms())
        run = await self._make(message, RunState.CREATED)
        live = self.live.get(run.run_id)
        if verified is not None and live is not None:
            live.token = RunToken(verified.identity.subject, token, 1000 * verified.expires_s)
        return run

    async def _identified(
        self, peer: Peer, name: str, token: Secret | None
    ) -> tuple[LoopPolicy, Verified | None]:
        loop = self._policies.loop(name)
        if token is None or loop is None or not tokens_of(loop):
            return self._allowed(peer, name), None
        try:
            verified = await self.gate.verify(token, loop, self._policies.policy.issuers)
            loop = self._allowed(peer, name, by_token=True)
            self.gate.use(verified, loop, peer)
        except Unverified as error:
            reference = self.gate.refused(error, loop, peer)
            raise RunRefused(
                Reason.POLICY_DENIED,
                f"this token does not let you start loop {name[:64]}",
                f"Whoever keeps this host finds the cause in the daemon's journal: {reference}.",
            ) from None
        return loop, verified

    async def register(self, peer: Peer, loop_name: str, path: str) -> Run:
        """Make an existing cgroup a run.

        Raises:
            RunRefused: not allowed, not recordable, or the kernel said no.
        """
        if not peer.is_root:
            raise RunRefused(
                Reason.POLICY_DENIED,
                "only root may register a cgroup",
                "Use `loopwarden run`, or ask an administrator.",
            )
        if len(path.encode("utf-8", "replace")) > PATH_BYTES_MAX:
            raise RunRefused(
                Reason.LIMIT_EXCEEDED,
                f"a cgroup's path has at most {PATH_BYTES_MAX} bytes",
                "Name it as /proc/PID/cgroup does.",
            )
        loop = self._allowed(peer, loop_name)
        message = RegisterCgroup(
            _new_id(), loop.name, peer.initiator, path, loop.adopt_joiners, clock.unix_ms()
        )
        return await self._make(message, RunState.LIVE)

    async def admit(self, run_id: RunId, pidfd: int) -> None:
        """Let the first process in.

        Raises:
            RunRefused: the kernel said no.
        """
        live = self.live.get(run_id)
        if live is None or live.state is not RunState.CREATED:
            raise RunRefused(Reason.RUN_UNKNOWN, "this run takes no first process", "Start anew.")
        try:
            await self.kernel.request(Admit(run_id), Done, fds=(pidfd,))
        except RequestFailed as error:
            raise _refused_by_kernel(error) from error
        if live.state is RunState.CREATED:
            live.move(RunState.LIVE)

    async def revoke(self, run_id: RunId, reason: Reason) -> None:
        """End a run's access now; a launched run's processes are ended too.

        Raises:
            RunRefused: the kernel could not; the workers have cut what they have all the same.
        """
        live = self.live[run_id]
        if live.state in {RunState.CREATED, RunState.LIVE}:
            live.move(RunState.REVOKED)
        live.ended_because = reason
        self._cut(run_id, reason)
        try:
            kill = live.run.tier is not Tier.REGISTERED
            await self.kernel.request(RevokeRun(run_id, kill), Done)
        except RequestFailed as error:
            raise _refused_by_kernel(error) from error
        self._leases.flows_stopped(run_id)

    def finish(self, run_id: RunId, reason: Reason) -> asyncio.Task[None] | None:
        """The run is over: cut, take away, record, forget. Once, whoever asks."""
        live = self.live.get(run_id)
        if live is None:
            return None
        if live.finishing is None:
            if live.ended_because is Reason.RUN_ENDED:
                live.ended_because = reason
            if live.timer is not None:
                live.timer.cancel()
            self._cut(run_id, live.ended_because)
            live.finishing = asyncio.get_running_loop().create_task(self._finish(live))
        return live.finishing

    def policy_changed(self, loops: tuple[LoopName, ...]) -> None:
        """Cut the runs whose permission changed; their next connection gets the new grant."""
        for run_id, live in self.live.items():
            if live.run.loop in loops and live.finishing is None:
                self._tell_workers(CutRun(run_id, Reason.POLICY_CHANGED))
                self._leases.forget(run_id)

    def _allowed(self, peer: Peer, name: str, *, by_token: bool = False) -> LoopPolicy:
        refusal = self._recorder.refusal
        if refusal:
            raise RunRefused(
                Reason.RECORD_FAILED, refusal, "See `loopwarden status`, and the daemon's journal."
            )
        loop = self._policies.loop(name)
        if loop is None:
            known = ", ".join(sorted(self._policies.policy.loops)[:20]) or "none"
            raise RunRefused(
                Reason.POLICY_DENIED,
                f"the policy has no loop {name[:64]!r} (it has: {known})",
                f"Add it to a file in {self._policies.directory}, then `loopwarden policy reload`.",
            )
        if not by_token and not may_start(loop, peer):
            raise RunRefused(
                Reason.POLICY_DENIED,
                f"{peer.initiator.user} may not start loop {loop.name}",
                f"Add {{user: {peer.initiator.user}}} to 'who' of loop {loop.name} in the policy.",
            )
        self._check_limits(loop)
        theirs = sum(live.run.initiator.uid == peer.uid for live in self.live.values())
        theirs += self._creating_for[peer.uid]
        if theirs >= RUNS_A_USER_MAX and not peer.is_root:
            raise RunRefused(
                Reason.OVERLOADED,
                f"{RUNS_A_USER_MAX} runs of {peer.initiator.user} are live",
                "Wait for one to end.",
            )
        if len(self.live) + self._creating.total() >= RUNS_MAX:
            raise RunRefused(Reason.OVERLOADED, f"{RUNS_MAX} runs are live", "Wait for one to end.")
        return loop

    def _check_limits(self, loop: LoopPolicy) -> None:
        """Refuse a loop that runs often enough, or at another time than it may. Root too."""
        running = sum(live.run.loop == loop.name for live in self.live.values())
        running += self._creating[loop.name]
        if loop.max_concurrent and running >= loop.max_concurrent:
            raise RunRefused(
                Reason.OVERLOADED,
                f"{running} runs of loop {loop.name} are live (max_concurrent: "
                f"{loop.max_concurrent})",
                "Wait for one to end; see `loopwarden loops`.",
            )
        now_ms = clock.unix_ms()
        if loop.hours is not None and not are_open(loop.hours, now_ms):
            raise RunRefused(
                Reason.POLICY_DENIED,
                f"loop {loop.name} may start {shown(loop.hours, now_ms)}",
                "Start it then, or change 'hours' of the loop in the policy.",
            )

    async def _make(self, message: CreateRun | RegisterCgroup, state: RunState) -> Run:
        uid = message.initiator.uid
        self._creating[message.loop] += 1
        self._creating_for[uid] += 1
        try:
            run = (await self.kernel.request(message, RunCreated)).run
        except RequestFailed as error:
            asked = isinstance(message, RegisterCgroup)
            raise _refused_by_kernel(error, _NEXT_CGROUP if asked else _NEXT) from error
        finally:
            self._creating[message.loop] -= 1
            self._creating_for[uid] -= 1
            self._creating_for += collections.Counter()  # keeps what is more than 0
        self._add(run, state)
        try:
            await self._recorder.record(RunStarted(run))
        except Unrecorded as error:
            self.finish(run.run_id, Reason.RECORD_FAILED)
            raise RunRefused(
                Reason.RECORD_FAILED,
                f"the run could not be recorded: {error}",
                "See `loopwarden status`, and the daemon's journal.",
            ) from error
        logger.info("run %s of loop %s by %s", run.run_id, run.loop, run.initiator.user)
        return run

    def _add(self, run: Run, state: RunState) -> None:
        live = LiveRun(run, state)
        if run.initiator.token is not None:  # read back: whose it was is known, it is not
            live.token = RunToken(run.initiator.token.subject)
        self.live[run.run_id] = live
        loop = self._policies.loop(run.loop)
        if loop is not None and loop.max_duration_s:
            # of a run that was read back: a clock that was set meanwhile gives it no more
            left_ms = remaining_ms(
                run.started_ms + 1000 * loop.max_duration_s,
                clock.unix_ms(),
                1000 * loop.max_duration_s,
            )
            live.expires_ms = clock.unix_ms() + left_ms
            live.ends_boot_ms = clock.boot_ns() // 1_000_000 + left_ms
            self._expire(run.run_id)

    def _expire(self, run_id: RunId) -> None:
        """End the run if its time is over; timers stand still while the host sleeps: look again."""
        live = self.live.get(run_id)
        if live is None or live.finishing is not None:
            return
        left_s = live.ends_boot_ms / 1000 - clock.boot_ns() / 1e9
        if left_s > 0:
            live.timer = asyncio.get_running_loop().call_later(
                min(left_s, TICK_S), self._expire, run_id
            )
            return
        logger.warning("run %s of loop %s: max_duration reached", run_id, live.run.loop)
        if live.run.tier is Tier.REGISTERED or live.state is RunState.CREATED:
            self.finish(run_id, Reason.TIMED_OUT)
            return
        task = asyncio.ensure_future(self._revoke_expired(run_id))
        live.timer = None
        self._expiring.add(task)
        task.add_done_callback(self._expiring.discard)

    async def _revoke_expired(self, run_id: RunId) -> None:
        delay_s = FINISH_RETRY_FIRST_S
        while run_id in self.live:
            try:
                await self.revoke(run_id, Reason.TIMED_OUT)
                return
            except PeerGone:
                return
            except RunRefused as error:
                logger.warning("run %s cannot be ended yet: %s", run_id, error.detail)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, FINISH_RETRY_MOST_S)

    def _cut(self, run_id: RunId, reason: Reason) -> None:
        self._tell_workers(CutRun(run_id, reason))
        self._sessions.run_gone(run_id)
        self._leases.run_ended(run_id)

    async def _finish(self, live: LiveRun) -> None:
        """Stop the flows, then record the end, then forget; a refusing kernel is asked again."""
        run_id = live.run.run_id
        delay_s = FINISH_RETRY_FIRST_S
        recorded = False
        while True:
            try:
                await self.kernel.request(RevokeRun(run_id, kill=False), Done)
                self._leases.flows_stopped(run_id)
                if not recorded:
                    self._recorder.note(RunEnded(run_id, live.ended_because))
                    recorded = True
                await self.kernel.request(RemoveRun(run_id), Done)
                break
            except PeerGone:
                return  # this process ends with kernel; its successor reads the run back
            except (RequestFailed, TimeoutError) as error:
                logger.warning("run %s is not removed yet: %s", run_id, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, FINISH_RETRY_MOST_S)
        live.state = RunState.ENDED
        del self.live[run_id]
        self._leases.run_removed(run_id)
        logger.info("run %s ended: %s", run_id, live.ended_because)


def _new_id() -> RunId:
    return RunId(clock.fresh_ulid())


def _refused_by_kernel(error: RequestFailed, next_step: str = _NEXT) -> RunRefused:
    return RunRefused(error.failed.reason, error.failed.detail, next_step)
