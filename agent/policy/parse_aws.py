"""What the requests to a target are signed for: its `aws` key."""

import re

from agent.model.credential import Shape
from agent.model.grant import AwsOptions
from agent.policy.document import Node
from agent.policy.reading import Fields, Problems, text
from agent.policy.schema import CredentialSource

_SERVICE = re.compile(r"[a-z][a-z0-9-]{0,62}")
_REGION = re.compile(r"[a-z]{2,4}(-[a-z0-9]{1,16}){1,4}")
# signs with keys of its own, which CreateSession would give to the loop
_OTHER_AUTH = frozenset({"s3express"})


def read_aws(
    fields: Fields, problems: Problems, credential: CredentialSource | None
) -> AwsOptions | None:
    """Return it; what is wrong is added to problems. Shape aws-keys and this key go together."""
    wanted = credential is not None and credential.shape is Shape.AWS_KEYS
    if "aws" not in fields:
        if wanted:
            said = "shape aws-keys needs the target's key 'aws': {service: s3, region: eu-west-1}"
            problems.add(fields.place, said)
        return None
    found = fields.optional("aws", _options, None)
    if not wanted:
        fields.problem("aws", "only credentials of shape aws-keys sign requests")
        return None
    return found


def _options(node: Node, problems: Problems) -> AwsOptions | None:
    fields = Fields(node, "aws", ("service", "region"), problems)
    service = fields.required("service", text, "")
    region = fields.required("region", text, "")
    if service and not _SERVICE.fullmatch(service):
        fields.problem("service", "write the service's name in signatures: s3, dynamodb, sqs")
    if service in _OTHER_AUTH:
        fields.problem("service", f"{service} has another way to sign, which is not supported")
    if region and not _REGION.fullmatch(region):
        fields.problem("region", "write a region, such as eu-west-1")
    return AwsOptions(service, region)
