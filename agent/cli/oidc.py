"""Where `loopwarden run` gets an identity token from; it goes to the broker, and nowhere else.

A source that was asked for by name must give one. `auto` takes what is there without asking
anybody but GitHub Actions, whose job has to allow it; if that fails, the run goes on without, as
its local user. Only when the policy does not let that user start the loop, and the firmware says
that this is a machine of Google's or Azure's, its metadata server is asked.
"""

import argparse
import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.cli import oidc_http
from agent.cli.launch import LaunchError
from agent.cli.oidc_http import NoToken

VARIABLE = "LOOPWARDEN_OIDC_TOKEN"
KUBERNETES = Path("/var/run/secrets/loopwarden/token")  # where a pod mounts its projected token
AUDIENCE = "loopwarden"
TOKEN_BYTES_MAX = 16_384
SOURCES: dict[str, Callable[[Mapping[str, str], str], str]] = {
    "github": oidc_http.github,
    "google": oidc_http.google,
    "azure": oidc_http.azure,
}
DMI = Path("/sys/class/dmi/id")  # Linux ABI/testing/sysfs-class-dmi; readable for everybody
# Compute Engine's and Azure's documentation: how a machine knows that it is theirs
MACHINES = (
    ("google", "product_name", "Google Compute Engine"),
    ("azure", "chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),
)
CHOICES = ("auto", "none", "kubernetes", *SOURCES)
# tokens, and what fetches more of them: a loop gets none of these
SECRET_VARIABLES = (
    VARIABLE,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "IDENTITY_HEADER",
    "IDENTITY_ENDPOINT",
    "MSI_SECRET",
    "MSI_ENDPOINT",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a token is."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--oidc-token-file", type=Path, metavar="FILE", help="an identity token to show"
    )
    which.add_argument(
        "--oidc-token-env",
        metavar="NAME",
        help=f"the variable that holds it, as GitLab's id_tokens do (auto: {VARIABLE})",
    )
    which.add_argument(
        "--oidc",
        choices=CHOICES,
        default="auto",
        help="ask this place for one; auto (default): the variable, GitHub Actions if the job "
        f"allows it, {KUBERNETES}, else none; refused without one, the metadata server of Google's "
        "or Azure's machine",
    )
    parser.add_argument(
        "--oidc-audience",
        default=AUDIENCE,
        metavar="NAME",
        help=f"whom it is asked for (default: {AUDIENCE})",
    )


def find(arguments: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Return the token, "" for none.

    Raises:
        LaunchError: there is none where there should be one.
    """
    try:
        if arguments.oidc_token_file is not None:
            return _from_file(arguments.oidc_token_file)
        if arguments.oidc_token_env is not None:
            return _from_variable(arguments.oidc_token_env, environment)
        return _from_place(arguments.oidc, arguments.oidc_audience, environment)
    except NoToken as error:
        raise LaunchError(f"no identity token: {error}") from None


def of_machine(arguments: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Return the token of the machine of a cloud that we are on, "" where there is none.

    Asked after a refusal, and only if nobody said where a token is to come from.
    """
    named = arguments.oidc_token_file is not None or arguments.oidc_token_env is not None
    if named or arguments.oidc != "auto":
        return ""
    for cloud, file, said in MACHINES:
        try:
            if (DMI / file).read_text("ascii", "replace").strip() == said:
                return _checked(SOURCES[cloud](environment, arguments.oidc_audience), cloud)
        except OSError:
            continue
        except NoToken as error:
            sys.stderr.write(f"loopwarden: warning: no identity token: {error}\n")
    return ""


def without_tokens(variables: Mapping[str, str], token: str, named: str | None) -> dict[str, str]:
    """Return the loop's variables: none that is a token, holds this one, or fetches another."""
    secret = {*SECRET_VARIABLES, *([named] if named else [])}
    return {
        name: value
        for name, value in variables.items()
        if name not in secret and not (token and token in value)
    }


def _from_place(source: str, audience: str, environment: Mapping[str, str]) -> str:
    if source == "none":
        return ""
    if source == "kubernetes":
        return _from_file(KUBERNETES)
    if source != "auto":
        return _checked(SOURCES[source](environment, audience), source)
    if environment.get(VARIABLE):
        return _from_variable(VARIABLE, environment)
    if oidc_http.is_github(environment):
        try:
            return _checked(oidc_http.github(environment, audience), "github")
        except NoToken as error:
            sys.stderr.write(f"loopwarden: warning: no identity token: {error}\n")
            return ""
    return _from_file(KUBERNETES) if KUBERNETES.exists() else ""


def _from_variable(name: str, environment: Mapping[str, str]) -> str:
    return _checked(environment.get(name, ""), f"the variable {name}")


def _from_file(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NoToken(f"{path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NoToken(f"{path} is no regular file")
        raw = os.read(fd, TOKEN_BYTES_MAX + 2)
    except OSError as error:
        raise NoToken(f"{path}: {error.strerror}") from None
    finally:
        os.close(fd)
    return _checked(raw.decode("ascii", "replace"), str(path))


def _checked(text: str, where: str) -> str:
    """Return a text without the space around it; whether it is a token is the broker's to say."""
    token = text.strip()
    if not token:
        raise NoToken(f"{where} holds none")
    if len(token.encode()) > TOKEN_BYTES_MAX:
        raise NoToken(f"{where} holds more than {TOKEN_BYTES_MAX} bytes")
    return token
