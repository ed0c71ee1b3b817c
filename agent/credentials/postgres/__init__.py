"""A database role for one run: made when it first connects, dropped when it ends."""

from agent.credentials.postgres.provider import PostgresProvider
from agent.credentials.postgres.settings import SETTINGS
from agent.credentials.spec import ProviderSpec
from agent.model.credential import Shape

SPEC = ProviderSpec(
    name="postgres",
    shapes=frozenset({Shape.PASSWORD}),
    settings=SETTINGS,
    make=PostgresProvider,
)
