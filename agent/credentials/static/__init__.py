"""A secret that exists already: from a file, a systemd credential, or the broker's environment."""

from agent.credentials.spec import ProviderSpec
from agent.credentials.static.provider import SETTINGS, StaticProvider
from agent.model.credential import Shape

SHAPES = frozenset(Shape) - {Shape.CLIENT_CERTIFICATE}  # which is a chain and a key, not one secret
SPEC = ProviderSpec(
    name="static", shapes=SHAPES, settings=SETTINGS, make=StaticProvider, revocable=False
)
