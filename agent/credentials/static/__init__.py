"""A secret that exists already: from a file, a systemd credential, or the broker's environment."""

from agent.credentials.spec import ProviderSpec
from agent.credentials.static.provider import SETTINGS, StaticProvider
from agent.model.credential import Shape

# without those that are more than one secret
SHAPES = frozenset(Shape) - {Shape.CLIENT_CERTIFICATE, Shape.AWS_KEYS, Shape.SSH_CERTIFICATE}
SPEC = ProviderSpec(
    name="static", shapes=SHAPES, settings=SETTINGS, make=StaticProvider, revocable=False
)
