"""Runs every fuzz target in turn: `python -m tests.fuzz [--seconds N] [NAME...]`."""

import argparse
import os
import random

from tests.fuzz.engine import DEFAULT_SECONDS, run
from tests.fuzz.targets import names


def main() -> None:
    """Run the named targets, or all; FUZZ_SECONDS is the default of --seconds."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    default = float(os.environ.get("FUZZ_SECONDS", DEFAULT_SECONDS))
    parser.add_argument("--seconds", type=float, default=default, help="of CPU time, for each")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("name", nargs="*", help=f"of {', '.join(names())}")
    options = parser.parse_args()
    for name in options.name or names():
        print(f"{name}: seed {options.seed}", flush=True)
        print(f"{name}: {run(name, options.seconds, options.seed)} inputs", flush=True)


if __name__ == "__main__":
    main()
