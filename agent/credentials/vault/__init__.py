"""What an OpenBao or HashiCorp Vault server makes for each run, and takes away at its end."""

from agent.credentials.spec import ProviderSpec
from agent.credentials.vault.provider import VaultProvider
from agent.model.credential import Shape
from agent.policy.vault_words import VAULT_KEYS

SPEC = ProviderSpec(
    name="vault",
    shapes=frozenset(Shape) - {Shape.AWS_KEYS},  # provider aws_sts makes them, without a vault
    settings=VAULT_KEYS,
    make=VaultProvider,
)
