"""The policy directory: every *.yaml and *.yml of it, in the order of names, is one policy."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.broker.files import Untrusted, check_writers, read_public
from agent.broker.identity.key_file import BadKeyFile, read_keys
from agent.policy.document import SOURCE_BYTES_MAX, Source
from agent.policy.errors import Place, PolicyError, Problem
from agent.policy.parse import parse_policy
from agent.policy.parse_target import CA_PEM_BYTES_MAX
from agent.policy.schema import Policy

FILES_MAX = 1_000
SUFFIXES = (".yaml", ".yml")


def load_policy(paths: list[Path], *, directory: Path | None = None) -> Policy:
    """Return the policy of these files, or of a directory's files.

    Raises:
        PolicyError: a file can't be read or trusted, or the policy is wrong.
    """
    problems: list[Problem] = []
    if directory is not None:
        paths = _listed(directory)
    sources: list[Source] = []
    for path in paths:
        try:
            sources.append(Source(str(path), read_public(str(path), SOURCE_BYTES_MAX).decode()))
        except (OSError, ValueError) as error:
            problems.append(_problem(path, error))
    if problems:
        raise PolicyError(tuple(problems))
    policy = parse_policy(sources, read_ca)
    return replace(policy, warnings=(*policy.warnings, *_without_keys(policy)))


def read_ca(path: str) -> str:
    """Return a CA file's text.

    Raises:
        OSError: it can't be read.
        ValueError: it can't be trusted, or is not text.
    """
    return read_public(path, CA_PEM_BYTES_MAX).decode()


def _without_keys(policy: Policy) -> Iterator[Problem]:
    """Say which issuers' files have no keys now: their tokens are refused until they have."""
    for issuer in policy.issuers.values():
        try:
            if issuer.jwks_file:
                read_keys(issuer.jwks_file)
        except BadKeyFile as error:
            said = f"{error}: tokens of {issuer.url} are refused"
            yield Problem(Place(issuer.jwks_file, 1, 1), said)


def _listed(directory: Path) -> list[Path]:
    try:
        check_writers(str(directory), os.stat(directory))
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIXES))
    except (OSError, ValueError) as error:
        raise PolicyError((_problem(directory, error),)) from error
    if len(names) > FILES_MAX:
        raise PolicyError((_problem(directory, Untrusted(f"more than {FILES_MAX} files")),))
    return [directory / name for name in names if not name.startswith(".")]


def _problem(path: Path, error: Exception) -> Problem:
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    if isinstance(error, UnicodeDecodeError):
        text = "not UTF-8"
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        text = "permission denied: make it readable for whoever loads it (chmod o+r)"
    return Problem(Place(str(path), 1, 1), text)
