"""Finds the providers: each folder beside this file that exports a `SPEC`. No third-party code."""

import functools
import importlib
import pkgutil
from collections.abc import Mapping

import agent.credentials
from agent.credentials.spec import ProviderSpec


@functools.cache
def providers() -> Mapping[str, ProviderSpec]:
    """Return the providers of this installation by name."""
    found: dict[str, ProviderSpec] = {}
    for module in pkgutil.iter_modules(agent.credentials.__path__):
        if module.ispkg:
            spec = importlib.import_module(f"agent.credentials.{module.name}").SPEC
            if not isinstance(spec, ProviderSpec) or spec.name != module.name:
                raise AssertionError(f"agent.credentials.{module.name} has no SPEC of its name")
            found[spec.name] = spec
    return found
