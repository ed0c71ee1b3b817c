"""Tokens at the door: verified, used once, and what was refused told to the operator alone.

Whoever shows a token that is refused gets one sentence, whatever the cause, and a name of the
refusal; the journal and the alarm of that name have the cause. Alarms are bounded, since whoever
may use the control socket can show as many bad tokens as he likes.
"""

import collections
import logging
from collections.abc import Callable, Mapping

from agent.broker.identity.issuers import Issuers
from agent.broker.identity.refusal import Check, Unverified
from agent.broker.identity.seen import Seen
from agent.broker.identity.verify import Verified, Verifier
from agent.broker.peer import Peer
from agent.broker.who import tokens_of
from agent.model.secret import Secret
from agent.policy.schema import Issuer, LoopPolicy
from agent.runtime import clock

ALARMS_A_MINUTE = 20  # of all callers together; what is more is counted
_MINUTE_S = 60.0

logger = logging.getLogger(__name__)


class Gate:
    """All methods run on the event loop."""

    def __init__(
        self,
        issuers: Issuers,
        seen: Seen,
        alarm: Callable[[str], None],
        now_s: Callable[[], int] = lambda: clock.unix_ms() // 1000,
    ) -> None:
        self._verifier = Verifier(issuers, now_s)
        self._issuers = issuers
        self._seen = seen
        self._alarm = alarm
        self._now_s = now_s
        self._told: collections.deque[float] = collections.deque(maxlen=ALARMS_A_MINUTE)
        self.counters: collections.Counter[str] = collections.Counter()

    async def verify(
        self, token: Secret, loop: LoopPolicy, issuers: Mapping[str, Issuer]
    ) -> Verified:
        """Return who shows this token, if it fits an entry of the loop.

        Raises:
            Unverified: a check failed.
        """
        self._issuers.forget_others(issuers)
        try:
            text = token.reveal().decode("ascii")
        except UnicodeDecodeError:
            raise Unverified(Check.FORM, "not three base64url parts") from None
        return await self._verifier.verify(text, tokens_of(loop), issuers)

    def use(self, verified: Verified, loop: LoopPolicy, peer: Peer) -> None:
        """Take the token as used; the loop is as the policy has it now.

        Raises:
            Unverified: POLICY, REPLAYED, REPLAY_UNKNOWN.
        """
        if not set(verified.fits) & set(tokens_of(loop)):
            raise Unverified(Check.POLICY, "the policy changed meanwhile")
        self._seen.add(
            verified.digest,
            issued_s=verified.issued_s,
            ends_s=verified.ends_s,
            uid=peer.uid,
            reusable=verified.reusable,
            now_s=self._now_s(),
        )

    def refused(self, error: Unverified, loop: LoopPolicy, peer: Peer) -> str:
        """Tell the operator; return the refusal's name, which tells nothing."""
        name = clock.fresh_ulid()
        self.counters[f"token-refused.{error.check}"] += 1
        by = peer.initiator
        whose = f"loop {loop.name}, {by.user} (uid {by.uid}, pid {by.pid})"
        text = f"token {name} refused: {error.check}: {error.detail}; {whose}"
        now_s = clock.boot_ns() / 1e9
        if len(self._told) == ALARMS_A_MINUTE and now_s - self._told[0] < _MINUTE_S:
            self.counters["token-refused.not-alarmed"] += 1
            return name
        self._told.append(now_s)
        self._alarm(text)
        return name
