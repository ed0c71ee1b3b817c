"""What a target says of its role, checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.credentials.settings import check_settings
from agent.policy.declared import SOURCES, items_of
from agent.policy.parse_aws_sts import AWS_STS, compact_policy

DURATION_S = 3_600


@dataclass(frozen=True, slots=True)
class RoleSettings:
    """Checked. Without an identity token it is AssumeRole with the operator's keys."""

    role_arn: str
    region: str
    endpoint: str
    ca: str
    access_key_id: str
    source: tuple[str, str]
    token_file: str
    of_run: bool  # the identity token is the one that let the run start
    session_policy: str  # as it is sent; "" for none
    policy_arns: tuple[str, ...]
    duration_s: int
    external_id: str
    source_identity: str
    session_tags: tuple[tuple[str, str], ...]

    @property
    def by_token(self) -> bool:
        """Whether it is AssumeRoleWithWebIdentity."""
        return self.of_run or bool(self.token_file)


def read_settings(settings: Mapping[str, str]) -> RoleSettings:
    """Check and return the settings.

    Raises:
        CredentialError: one is missing, unknown or wrong.
    """
    check_settings("aws_sts", settings, AWS_STS)
    said = settings.get
    tags = [each.partition("=") for each in items_of(settings, "session_tags")]
    written = said("session_policy", "")
    return RoleSettings(
        settings["role_arn"],
        settings["region"],
        said("endpoint", "") or _regional(settings["region"]),
        said("ca", ""),
        said("access_key_id", ""),
        next(((key, settings[key]) for key in SOURCES if key in settings), ("", "")),
        said("token_file", ""),
        "web_identity" in settings,
        compact_policy(written) if written else "",
        items_of(settings, "policy_arns"),
        int(said("duration", str(DURATION_S))),
        said("external_id", ""),
        said("source_identity", ""),
        tuple((key, value) for key, _, value in tags),
    )


def _regional(region: str) -> str:
    """Return the region's own endpoint: keys of the global one are not good in every region."""
    china = ".cn" if region.startswith("cn-") else ""
    return f"https://sts.{region}.amazonaws.com{china}"
