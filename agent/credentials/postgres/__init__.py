"""A database role for one run: made when it first connects, dropped when it ends."""

from agent.credentials.postgres.provider import PostgresProvider
from agent.credentials.spec import ProviderSpec
from agent.model.credential import Shape
from agent.policy.parse_role import ROLE_KEYS

SPEC = ProviderSpec(
    name="postgres",
    shapes=frozenset({Shape.PASSWORD}),
    settings=ROLE_KEYS,
    make=PostgresProvider,
)
