"""What a session may do: attribution and policy → grant, or why not."""

from agent.broker.policies import Policies
from agent.ipc.messages import Authorized
from agent.model.audit import Alarm
from agent.model.flow import Attribution, Evidence
from agent.model.grant import Grant
from agent.model.ids import LoopName
from agent.model.loop import Run, RunState
from agent.model.reason import Reason
from agent.policy.compile import compile_grant
from agent.policy.resolve import Unlisted, resolve

ALARM_OF = {
    Evidence.TAG_ONLY: (Alarm.TAG_WITHOUT_CGROUP, Reason.TAG_WITHOUT_CGROUP),
    Evidence.CGROUP_ONLY: (Alarm.CGROUP_WITHOUT_TAG, Reason.CGROUP_WITHOUT_TAG),
}
_EXPLAINED = {
    Evidence.TAG_ONLY: "this process left the run's cgroup, so it gets no credential",
    Evidence.CGROUP_ONLY: "this process is not of the run's tree, so it gets no credential",
}


def authorize(
    policies: Policies, attribution: Attribution, run: Run | None, state: RunState, expires_ms: int
) -> Authorized:
    """Return the grant of a session, or why there is none, in words for the loop."""
    if run is None or state is RunState.ENDED:
        return _refused("", Reason.RUN_UNKNOWN, "this run is not known", "Start it again.")
    if state is RunState.REVOKED:
        return _refused(run.loop, Reason.RUN_REVOKED, "this run was revoked", "Start a new run.")
    loop = policies.loop(run.loop)
    if loop is None:
        return _refused(
            run.loop,
            Reason.POLICY_CHANGED,
            f"the policy has no loop {run.loop} any more",
            "Ask whoever keeps the policy.",
        )
    target = resolve(policies.policy, policies.synthetic, loop, attribution.destination)
    if isinstance(target, Unlisted):
        return _refused(run.loop, target.reason, target.explanation, target.next_step)
    if target.shape is not None and attribution.evidence is not Evidence.TAG_AND_CGROUP:
        return _refused(
            run.loop,
            ALARM_OF[attribution.evidence][1],
            _EXPLAINED[attribution.evidence],
            "Start the process within the run, and leave its cgroup alone.",
        )
    grant = compile_grant(policies.policy, loop, target, run.run_id, expires_ms)
    return Authorized(run.loop, grant, None, "", "")


def needs_lease(grant: Grant | None) -> bool:
    """Whether a session with this grant may take a lease."""
    return grant is not None and grant.target.shape is not None


def _refused(loop: str, reason: Reason, explanation: str, next_step: str) -> Authorized:
    return Authorized(LoopName(loop), None, reason, explanation, next_step)
