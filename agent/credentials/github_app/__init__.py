"""Tokens of a GitHub App's installation, narrowed to repositories and permissions."""

from agent.credentials.github_app.provider import GitHubAppProvider
from agent.credentials.spec import ProviderSpec
from agent.model.credential import Shape
from agent.policy.parse_github_app import GITHUB_APP

SPEC = ProviderSpec(
    name="github_app",
    shapes=frozenset({Shape.BEARER, Shape.BASIC}),  # basic: git over HTTPS takes nothing else
    settings=tuple(GITHUB_APP.kinds),
    make=GitHubAppProvider,
)
