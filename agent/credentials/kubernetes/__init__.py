"""Tokens of a Kubernetes service account that die with a Secret of ours."""

from agent.credentials.kubernetes.provider import KubernetesProvider
from agent.credentials.spec import ProviderSpec
from agent.model.credential import Shape
from agent.policy.parse_kubernetes import KUBERNETES

SPEC = ProviderSpec(
    name="kubernetes",
    shapes=frozenset({Shape.BEARER}),
    settings=tuple(KUBERNETES.kinds),
    make=KubernetesProvider,
)
