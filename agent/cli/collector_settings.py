"""collector.toml: where the collector keeps its state and listens. Options come before it."""

import argparse
import tomllib
from pathlib import Path

import msgspec

from agent.cli.collector_arguments import CONFIG, ENROLL_LISTEN, LISTEN, STATE_DIR
from agent.collector.main import Settings


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    state_dir: str = str(STATE_DIR)
    listen: str = LISTEN
    enroll_listen: str = ENROLL_LISTEN
    database: str = ""  # an SQLAlchemy URL; "" is SQLite in state_dir
    log_level: str = "info"


class SettingsError(Exception):
    """The file can't be used."""


def read_file(arguments: argparse.Namespace) -> File:
    """Return the file that was named, or the default one if there is one.

    Raises:
        SettingsError: it was named and is not there, or has an unknown key or a wrong type.
    """
    path: Path = arguments.config or CONFIG
    if arguments.config is None and not path.exists():
        return File()
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), File)
    except (OSError, ValueError) as error:  # decoding, TOML and validation are ValueErrors
        raise SettingsError(f"{path}: {error}") from error


def state_dir(arguments: argparse.Namespace) -> Path:
    """Return the state directory for a command that reads it."""
    return arguments.state_dir or Path(read_file(arguments).state_dir)


def serve_settings(arguments: argparse.Namespace) -> Settings:
    """Return what `serve` needs."""
    file = read_file(arguments)
    return Settings(
        arguments.state_dir or Path(file.state_dir),
        arguments.listen or file.listen,
        arguments.enroll_listen or file.enroll_listen,
        file.database,
    )
