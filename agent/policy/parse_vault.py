"""A credential of provider vault: what an OpenBao or HashiCorp Vault server makes for each run."""

from agent.model.credential import Shape
from agent.policy.declared import Settings, read_declared
from agent.policy.reading import Fields, Problems
from agent.policy.vault_words import VAULT


def read_vault(fields: Fields, problems: Problems, shape: Shape) -> Settings:
    """Return the provider's settings, in the order of keys; what is wrong is added to problems."""
    _check_shape(fields, problems, shape)
    return read_declared(fields, problems, VAULT)


def _check_shape(fields: Fields, problems: Problems, shape: Shape) -> None:
    if shape is Shape.CLIENT_CERTIFICATE:
        if "common_name" not in fields:
            problems.add(
                fields.place, f"shape {shape} needs a common_name: whose certificate it is"
            )
    elif "common_name" in fields:
        fields.problem("common_name", f"shape {shape} has no common_name")
    if shape is Shape.CLIENT_CERTIFICATE and "field" in fields:
        fields.problem("field", f"shape {shape} has its own fields")
    if shape not in {Shape.PASSWORD, Shape.BASIC} and "user_field" in fields:
        fields.problem("user_field", f"shape {shape} has no user_field")
