"""Access tokens of an OAuth 2.0 token endpoint, one for each lease."""

from agent.credentials.oauth2.provider import OAuth2Provider
from agent.credentials.spec import ProviderSpec
from agent.model.credential import Shape
from agent.policy.parse_oauth2 import OAUTH2

SPEC = ProviderSpec(
    name="oauth2",
    shapes=frozenset({Shape.BEARER}),
    settings=tuple(OAUTH2.kinds),
    make=OAuth2Provider,
)
