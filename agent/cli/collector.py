"""`loopwarden-collector`: serve, enroll hosts, and ask what happened."""

import argparse
import sys
from pathlib import Path

import msgspec
from sqlalchemy.exc import DBAPIError

from agent.cli import streams
from agent.cli.collector_arguments import parser
from agent.cli.collector_ask import ask
from agent.cli.collector_kill import kill
from agent.cli.collector_settings import (
    SettingsError,
    parse_address,
    read_file,
    serve_settings,
    state_dir,
)
from agent.cli.collector_text import out
from agent.cli.collector_time import parse_span_s
from agent.collector.authority import AuthorityError, give_to_owner, load_authority, open_authority
from agent.collector.enrollment import EnrollmentRefused, join
from agent.collector.main import serve
from agent.collector.query import NotFound
from agent.collector.store import FILE_NAME, StoreError, open_store, store_url
from agent.collector.tokens import create_token, fingerprint, utc_now
from agent.runtime import log

NAME_CHARACTERS_MAX = 255


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code (see --help)."""
    words = sys.argv[1:] if argv is None else argv
    return streams.guarded("loopwarden-collector", lambda: _act(words), 3)


def _act(words: list[str]) -> int:
    arguments = parser().parse_args(words)
    try:
        return _run(arguments)
    except (NotFound, EnrollmentRefused, FileExistsError) as error:
        return _fail(error, 1)
    except UnicodeEncodeError:
        raise  # a ValueError of another kind
    except (SettingsError, ValueError) as error:
        return _fail(error, 2)
    except (StoreError, AuthorityError, RuntimeError) as error:
        return _fail(error, 3)
    except DBAPIError as error:
        return _fail(StoreError(f"the store can't be used: {error.orig}"), 3)


def _fail(error: Exception, code: int) -> int:
    text = streams.said(error) if isinstance(error, OSError) else str(error)
    streams.complain("loopwarden-collector", text)
    return code


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "serve":
            file = read_file(arguments)
            log.configure("collector", arguments.log_level or file.log_level)
            return serve(serve_settings(arguments))
        case "init":
            return _init(arguments)
        case "token":
            return _token(arguments)
        case "enroll":
            return _enroll(arguments)
        case "kill":
            return kill(arguments)
        case _:
            return ask(arguments)


def _init(arguments: argparse.Namespace) -> int:
    directory = state_dir(arguments)
    authority = open_authority(directory, utc_now())
    open_store(store_url(directory)).dispose()
    give_to_owner(directory / FILE_NAME)
    facts = {"state_dir": str(directory), "ca_sha256": fingerprint(authority.ca)}
    _print_facts(facts, arguments)
    return 0


def _token(arguments: argparse.Namespace) -> int:
    if not 0 < len(arguments.host) <= NAME_CHARACTERS_MAX or not arguments.host.isprintable():
        raise ValueError(f"a host's name has 1 to {NAME_CHARACTERS_MAX} printable characters")
    now = utc_now()
    authority = load_authority(state_dir(arguments))
    ttl_s = parse_span_s(arguments.ttl)
    token = create_token(authority, arguments.host, ttl_s, int(now.timestamp()))
    if arguments.json:
        _print_facts({"token": token, "host": arguments.host, "ttl_s": str(ttl_s)}, arguments)
    else:
        out(token)
    return 0


def _enroll(arguments: argparse.Namespace) -> int:
    given: str = arguments.token
    if given == "-":
        given = sys.stdin.read()
    elif given.startswith("@"):
        given = Path(given[1:]).read_text(encoding="ascii")
    address = parse_address("--collector", arguments.collector)
    enrolled = join(address, given.strip(), arguments.out)
    facts = {
        "host": enrolled.host_name,
        "host_id": enrolled.host_id,
        "directory": str(enrolled.directory),
    }
    _print_facts(facts, arguments)
    return 0


def _print_facts(facts: dict[str, str], arguments: argparse.Namespace) -> None:
    if arguments.json:
        out(msgspec.json.encode(facts).decode())
        return
    for name, value in facts.items():
        out(f"{name.replace('_', ' '):<10} {value}")


if __name__ == "__main__":
    sys.exit(main())
