"""One folder a protocol, each with a SPEC (layer 2). No protocol imports another."""

import pkgutil
from collections.abc import Mapping
from importlib import import_module

from agent.wire.relay import ProtocolSpec


def discover() -> Mapping[str, ProtocolSpec]:
    """Return the SPEC of every folder of this package, by name. Nobody else's code is looked for.

    Raises:
        TypeError: a folder has no SPEC, or two have one name.
    """
    found: dict[str, ProtocolSpec] = {}
    for module in pkgutil.iter_modules(__path__):
        spec = getattr(import_module(f"{__name__}.{module.name}"), "SPEC", None)
        if not isinstance(spec, ProtocolSpec) or spec.name in found:
            raise TypeError(f"agent/protocols/{module.name} has no SPEC of its own name")
        found[spec.name] = spec
    return found
