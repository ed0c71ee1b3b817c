"""collector.toml: where the collector keeps its state and listens. Options come before it."""

import argparse
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from agent.cli.collector_arguments import CONFIG, ENROLL_LISTEN, LISTEN, STATE_DIR
from agent.cli.streams import said
from agent.collector.main import Settings

PORT_MAX = 65_535


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    state_dir: str = str(STATE_DIR)
    listen: str = LISTEN
    enroll_listen: str = ENROLL_LISTEN
    log_level: Literal["debug", "info", "warning", "error"] = "info"


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
    except OSError as error:
        raise SettingsError(said(error)) from error
    except ValueError as error:  # decoding, TOML and validation
        raise SettingsError(f"{path}: {error}") from error


def state_dir(arguments: argparse.Namespace) -> Path:
    """Return the state directory for a command that reads it."""
    return arguments.state_dir or Path(read_file(arguments).state_dir)


def serve_settings(arguments: argparse.Namespace) -> Settings:
    """Return what `serve` needs.

    Raises:
        SettingsError: see read_file; or an address is none.
    """
    file = read_file(arguments)
    return Settings(
        arguments.state_dir or Path(file.state_dir),
        parse_address("listen", arguments.listen or file.listen),
        parse_address("enroll-listen", arguments.enroll_listen or file.enroll_listen),
    )


def parse_address(what: str, text: str) -> str:
    """Return HOST:PORT as it is; gRPC itself takes a port of 99999 for another one.

    Raises:
        SettingsError: it is none.
    """
    host, colon, port = text.rpartition(":")
    good = bool(host and colon) and port.isascii() and port.isdecimal() and len(port) <= 5
    if not good or int(port) > PORT_MAX:
        raise SettingsError(f"{what}: {text!r} is not HOST:PORT, such as {LISTEN}")
    return text
