"""--help of every command of both programs: what it does, and examples that are command lines."""

import argparse
import shlex
from collections.abc import Iterator

import pytest

from agent.cli import loopwarden
from agent.cli.collector_arguments import parser as collector_parser

PROGRAMS = {"loopwarden": loopwarden._parser(), "loopwarden-collector": collector_parser()}


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers that have no commands below them."""
    below = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        for one in action.choices.values():
            yield from _commands(one)


COMMANDS = [one for parser in PROGRAMS.values() for one in _commands(parser)]


def _examples(command: argparse.ArgumentParser) -> list[str]:
    """Return the lines behind the words that announce them."""
    title, *lines = (command.epilog or "").splitlines()
    assert title in {"example:", "examples:"}
    return [line.strip() for line in lines]


def test_every_command_is_looked_at() -> None:
    """All 24 of them: a command that another way adds is found, too."""
    assert len(COMMANDS) == 24


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.prog)
def test_help_says_what_a_command_does(command: argparse.ArgumentParser) -> None:
    """A sentence, and something about each argument."""
    assert (command.description or "").endswith((".", "?"))
    silent = [one.dest for one in command._actions if not one.help]
    assert not silent
    assert all(len(line) <= 80 for line in (command.description or "").splitlines())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.prog)
def test_examples_are_command_lines(command: argparse.ArgumentParser) -> None:
    """Each is of this command, and its program understands it."""
    examples = _examples(command)
    assert examples
    for line in examples:
        assert line in command.format_help()  # not wrapped
        words = shlex.split(line.removeprefix("sudo "))
        assert words[: len(command.prog.split())] == command.prog.split()
        if words[0] == "loopwarden":
            loopwarden._parse(words[1:])
        else:
            PROGRAMS[words[0]].parse_args(words[1:])
