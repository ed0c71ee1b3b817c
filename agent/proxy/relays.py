"""The protocols that this worker can relay: every folder of agent/protocols that has a SPEC."""

import importlib
import pkgutil

from agent import protocols
from agent.wire.relay import ProtocolSpec


def discover() -> dict[str, ProtocolSpec]:
    """Import our own protocol folders and return their specs by name.

    Raises:
        TypeError: a SPEC is none, or two folders claim one name.
    """
    specs: dict[str, ProtocolSpec] = {}
    for module in pkgutil.iter_modules(protocols.__path__):
        spec = getattr(importlib.import_module(f"{protocols.__name__}.{module.name}"), "SPEC", None)
        if not isinstance(spec, ProtocolSpec) or spec.name in specs:
            raise TypeError(f"agent.protocols.{module.name} has no SPEC of its own")
        specs[spec.name] = spec
    return specs


SPECS = discover()  # at import: a confined role can read no file of ours any more
