"""A secret that exists already: from a file, a systemd credential, or the broker's environment."""

from agent.credentials.spec import ProviderSpec
from agent.credentials.static.provider import SETTINGS, StaticProvider
from agent.model.credential import Shape

SPEC = ProviderSpec(name="static", shapes=frozenset(Shape), settings=SETTINGS, make=StaticProvider)
