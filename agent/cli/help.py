"""How each command's --help looks: what it does, then lines that work as they stand."""

import argparse
import textwrap
from typing import TypeAlias

# what add_subparsers returns; typeshed gives it no public name
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001
WIDTH = 80
_INDENT = "  "


def add_command(
    commands: Commands, name: str, text: str, *examples: str, more: str = ""
) -> argparse.ArgumentParser:
    """Add a command and return its parser.

    text: what it does, in the list of commands. examples: of its own help, whole command lines.
    more: said in its own help instead of text.
    """
    said = more or f"{text[0].upper()}{text[1:]}."
    title = "example:" if len(examples) == 1 else "examples:"
    return commands.add_parser(
        name,
        help=text,
        description=textwrap.fill(said, WIDTH),
        epilog="\n".join([title, *(f"{_INDENT}{line}" for line in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
