"""A verifier whose issuer, clocks and policy are a test's."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.broker.identity.issuers import FetchFailed, Issuers
from agent.broker.identity.refusal import Unverified
from agent.broker.identity.verify import Verified, Verifier
from agent.policy.parse_issuer import default_issuer
from agent.policy.schema import Claim, Token
from agent.policy.schema import Issuer as IssuerPolicy
from tests.servers.issuer import AUDIENCE, SUBJECT, Issuer, ec_key, rsa_key

URL = "https://issuer.example"
CLAIMS = (Claim("sub", (SUBJECT,)), Claim("repository", ("acme/orders",)))


@dataclass
class Rig:
    """The verifier, with an issuer that is asked directly."""

    issuer: Issuer = field(default_factory=lambda: Issuer(URL, Path()))
    entries: tuple[Token, ...] = (Token(URL, AUDIENCE, CLAIMS),)
    policy: IssuerPolicy = field(default_factory=lambda: default_issuer(URL))
    now_s: int = 0  # 0: as the wall says
    boot_s: float = 1_000.0

    def __post_init__(self) -> None:
        self.issuer.now_s = self.now_s
        self.issuer.keys = {"one": ("RS256", rsa_key()), "ec": ("ES256", ec_key())}
        self.issuers = Issuers(self.fetch, lambda: self.boot_s)
        self.verifier = Verifier(self.issuers, lambda: self.now_s or int(time.time()))

    async def fetch(self, url: str, ca: str) -> bytes:
        """Answer as the issuer does."""
        del ca
        status, body = self.issuer.answer(url.removeprefix(URL))
        if status != 200:
            raise FetchFailed(f"{url} answers {status}")
        return body

    def change(self, **changes: Any) -> None:
        """Change what the policy says of the issuer."""
        self.policy = replace(self.policy, **changes)

    async def ask(self, token: str) -> Verified:
        """Verify one token."""
        return await self.verifier.verify(token, self.entries, {URL: self.policy})

    def verify(self, token: str) -> Verified:
        """Verify one token, from a place without an event loop."""
        return asyncio.run(self.ask(token))

    def refused(self, token: str) -> Unverified:
        """Return why it is refused."""
        with pytest.raises(Unverified) as caught:
            self.verify(token)
        return caught.value
