"""Credentials that a program of the operator prints as JSON."""

from agent.credentials.exec.provider import ExecProvider
from agent.credentials.spec import ProviderSpec
from agent.model.credential import Shape
from agent.policy.parse_exec import EXEC

SPEC = ProviderSpec(
    name="exec",
    shapes=frozenset(Shape) - {Shape.SSH_CERTIFICATE},
    settings=tuple(EXEC.kinds),
    make=ExecProvider,
)
