"""Temporary keys of an AWS role, narrowed by a session policy. Nobody can end them early."""

from agent.credentials.aws_sts.provider import AwsStsProvider
from agent.credentials.spec import ProviderSpec
from agent.model.credential import Shape
from agent.policy.parse_aws_sts import AWS_STS

# `revocable` is said by each lease: keys whose answer was lost are waited for, not forgotten
SPEC = ProviderSpec(
    name="aws_sts",
    shapes=frozenset({Shape.AWS_KEYS}),
    settings=tuple(AWS_STS.kinds),
    make=AwsStsProvider,
)
