"""Provider aws_sts through the whole product: AWS' own SDK in a loop, with keys of nobody.

The server checks every signature, with botocore, before moto answers.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.aws import BUCKET, KEY_ID, NAMES, REGION, SECRET, Aws, aws_server
from tests.servers.clients import aws_python
from tests.servers.netns import far_host
from tests.system.conftest import Stage
from tests.system.provider_site import Servers, folder, nobody_was_told, wait_for, worker

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(1800)]
ROLE = "arn:aws:iam::123456789012:role/reports"
TARGET = """
  {name}:
    protocol: http
    address: https://{host}
    ca: {ca}
    dial: "{dial}"
    durability: DURABILITY
    aws: {{service: {service}, region: eu-west-1}}
    credential:
      provider: aws_sts
      shape: aws-keys
      region: eu-west-1
      role_arn: {role}
      endpoint: {sts}
      ca: {ca}
      duration: 15m
      {who}
      session_policy: '{{"Statement": [{{"Effect": "Allow", "Action": "*", "Resource": "*"}}]}}'
"""
OWN_KEYS = "access_key_id: {key_id}\n      file: {file}"
LOOPS = """
loops:
  job:
    who: [{user: nobody}]
    rules:
      - {target: bucket, allow: {method: [GET, HEAD, PUT, POST]}}
      - {target: s3, allow: {method: [GET, PUT], path: /reports/**}}
      - {target: dynamodb, allow: {method: POST, path: /}}
      - {target: sqs, allow: {method: POST}}
      - {target: sns, allow: {method: POST}}
      - {target: sts, deny: {path: /**}}
      - {target: secretsmanager, deny: {path: /**}}
"""
ENVIRONMENT = ("AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none", f"AWS_REGION={REGION}",
               f"AWS_DEFAULT_REGION={REGION}", "AWS_EC2_METADATA_DISABLED=true")  # fmt: skip


@dataclass(frozen=True)
class World:
    """Everything that runs."""

    whole: Stage
    aws: Aws
    script: Path

    def use(self, *parts: str) -> dict[str, Any]:
        """Run parts of aws_use.py in a loop; return what they said."""
        done = self.run(*parts)
        assert done.returncode == 0, done.stdout + done.stderr[-3_000:]
        said: dict[str, Any] = {}
        for line in done.stdout.splitlines():
            said |= json.loads(line)
        return said

    def run(self, *parts: str) -> subprocess.CompletedProcess[str]:
        """Run parts of aws_use.py in a loop."""
        python = [str(aws_python()), str(self.script), *parts]
        return self.whole.host.run("job", ["env", *ENVIRONMENT, *python], timeout_s=900)

    def leases(self) -> list[dict[str, Any]]:
        """Return all leases, live and past."""
        found = self.whole.host.json("leases", "--all")
        assert isinstance(found, list)
        return found


def _policy(servers: Servers, aws: Aws) -> str:
    dial = f"{servers.far.address4}:443"
    own = OWN_KEYS.format(key_id=KEY_ID, file=servers.secret("key", SECRET))
    shown = f"token_file: {servers.secret('token', 'eyJhbGciOiJub25lIn0.e30.c4n4ry')}"
    targets = {"bucket": ("s3", BUCKET)}
    for host in NAMES[:-1]:
        service = host.partition(".")[0]
        targets[service] = (service, host)
    text = "".join(
        TARGET.format(
            name=name, host=host, service=service, ca=aws.ca, dial=dial, role=ROLE,
            sts=f"https://{servers.far.address4}", who=shown if name == "sqs" else own,
        )
        for name, (service, host) in targets.items()
    )  # fmt: skip
    return f"targets:{text}{LOOPS}"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """AWS on a far host, and a worker host."""
    with ExitStack() as opened:
        enter = opened.enter_context
        far, place = enter(far_host()), enter(folder("aws"))
        aws = enter(aws_server(far, place))
        script = place / "aws_use.py"
        shutil.copy(Path(__file__).with_name("aws_use.py"), script)
        script.chmod(0o644)
        servers = Servers(far, place, "")
        text = _policy(servers, aws)
        yield World(enter(worker(Servers(far, place, text))), aws, script)


def _wrong(world: World) -> list[dict[str, Any]]:
    loops = (each for each in world.aws.requests() if each["target"] != "/reports/outside")
    return [each for each in loops if "wrong" in each]


def test_objects(world: World) -> None:
    """boto3 puts and gets what it likes: all under the leased keys, all bytes the same."""
    said = world.use("buckets")
    assert said.pop("metadata") == {"a": "1  2"}
    assert said.pop("range") == [206, True]
    assert said == dict.fromkeys(
        ("small", "stream", "odd", "listed", "big", "hashed", "nobody", "path style", "copy"), True
    )
    assert _wrong(world) == []
    words = {each.get("payload") for each in world.aws.requests()}
    digest = hashlib.sha256(b"hashed").hexdigest()
    assert {"STREAMING-UNSIGNED-PAYLOAD-TRAILER", digest} <= words
    kinds = {each["key"][:4] for each in world.aws.requests() if each.get("service") == "s3"}
    assert kinds == {"ASIA"}


def test_presigned_urls(world: World) -> None:
    """Of versions 4 and 2: what they say is taken out, and the head has our signature."""
    assert world.use("presigned") == {"presigned s3v4": True, "presigned s3": True}
    assert _wrong(world) == []
    targets = [each["target"] for each in world.aws.requests() if "/by%20" in each["target"]]
    assert len(targets) == 4
    assert "UNSIGNED-PAYLOAD" in {each.get("payload") for each in world.aws.requests()}
    assert not [one for one in targets if "ignature" in one or "xpires" in one]


def test_signed_chunks(world: World) -> None:
    """Each chunk, and the trailer, is under our signature."""
    said = world.use("chunked")
    assert list(said.values()) == [[200, True], [200, True]]
    assert _wrong(world) == []


def test_other_services(world: World) -> None:
    """JSON and forms: the body is held for its hash. SQS by an identity token instead of keys."""
    said = world.use("services")
    assert said == {"dynamodb": 300_000, "nine megabytes": True, "sqs": "hello", "sns": "n"}
    assert _wrong(world) == []
    asked = [each["asked"] for each in world.aws.requests() if "asked" in each]
    assert any("Action=AssumeRoleWithWebIdentity" in one for one in asked)
    (operation, *_) = world.whole.operations(1, target="dynamodb")
    assert "DynamoDB_20120810." in json.dumps(operation)


def test_denials_are_what_the_sdk_shows(world: World) -> None:
    """A code, our rule and what to do, in XML, JSON and form; another region is refused too."""
    said = world.use("denied")
    assert "(AccessDenied) when calling the DeleteObject" in said["delete"]
    assert "default-deny" in said["delete"]
    assert "(AccessDenied) when calling the CreateSession" in said["session"]
    assert "(AccessDenied) when calling the GetCallerIdentity" in said["form"]
    assert "job/5" in said["form"]
    assert "(AccessDeniedException) when calling the GetSecretValue" in said["json"]
    assert "job/6" in said["json"]
    assert "(DestinationMismatch)" in said["region"]
    assert "eu-west-1" in said["region"]
    assert _wrong(world) == []


def test_keys_of_nobody_are_told_apart(world: World) -> None:
    """The same program outside of the loop is refused by the server: its keys are nobody's."""
    far = world.whole.site.far
    url = f"https://{far.address4}/reports/outside"
    done = world.whole.host.bystander(
        ["curl", "-sS", "-k", "-H", f"Host: s3.{REGION}.amazonaws.com", url]
    )
    assert "SignatureDoesNotMatch" in done.stdout, done.stderr


def test_keys_end_by_themselves_and_are_nowhere(world: World) -> None:
    """After the run: draining, not revocable, until STS's own end; no one saw a part of them."""
    before = {each["lease_id"] for each in world.leases()}
    script = world.script.with_name("seen.py")
    text = "import os,boto3\nboto3.client('s3').put_object(Bucket='reports',Key='seen',Body=b'1')\n"
    script.write_text(text + "print(dict(os.environ), open('/proc/self/environ').read())\n")
    script.chmod(0o644)
    made = len(world.aws.made())
    line = ["env", *ENVIRONMENT, str(aws_python()), str(script)]
    done = world.whole.host.run("job", line)
    assert done.returncode == 0, done.stderr
    [keys] = world.aws.made()[made:]

    def lease() -> dict[str, Any]:
        [found] = [each for each in world.leases() if each["lease_id"] not in before]
        return found

    wait_for(lambda: lease()["state"] == "draining", "it is not shown as draining")
    assert not lease()["revocable"]
    assert lease()["run_id"] in lease()["provider_id"]
    for secret in (*keys.values(), SECRET):
        assert secret not in done.stdout + done.stderr
    nobody_was_told(world.whole, *keys.values(), SECRET, "e30.c4n4ry")


def test_curl_s_own_signatures(world: World) -> None:
    """curl signs with keys of nobody, and without any; both are signed anew."""
    url = f"https://{BUCKET}/by-curl"
    sign = ["--aws-sigv4", f"aws:amz:{REGION}:s3", "--user", "none:none"]
    put = ["curl", "-sS", "-f", *sign, "-T", str(world.script), url]
    done = world.whole.host.run("job", put)
    assert done.returncode == 0, done.stdout + done.stderr
    done = world.whole.host.run("job", ["curl", "-sS", "-f", url])
    assert done.stdout == world.script.read_text(encoding="utf-8")
    done = world.whole.host.run("job", ["curl", "-sS", *sign, "-X", "DELETE", url])
    assert "<Code>AccessDenied</Code>" in done.stdout
    assert _wrong(world) == []
