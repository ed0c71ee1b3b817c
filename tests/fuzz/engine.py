"""Runs a fuzz target: by mutation in plain Python, or by coverage with atheris where it is there.

A target is a module with `SEEDS`, a tuple of inputs, and `check(data)`, which raises when its
invariant (the first line of its docstring) does not hold. A failing input is printed as a Python
literal: it becomes a regression test before the fix.
"""

import argparse
import importlib
import importlib.util
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

DEFAULT_SECONDS = 60.0
BATCH = 64  # inputs between two looks at the clock
PIECES = (
    b"\r\n", b"\r", b"\n", b"\x00", b"\xff", b" ", b"\t", b":", b",", b";", b"%", b"%2e", b"/",
    b"..", b"0", b"-1", b"ffffffffffffffff", b"9007199254740992", b"chunked", b"Content-Length: ",
    b"Transfer-Encoding: ", b"HTTP/1.1", b"\x16\x03\x01", b"\\u00", b"A" * 300,
)  # fmt: skip


class Target(Protocol):
    """A fuzz target's module."""

    SEEDS: Sequence[bytes]
    check: Callable[[bytes], None]


class Finding(Exception):
    """An input on which a target's invariant does not hold."""

    def __init__(self, target: str, data: bytes) -> None:
        super().__init__(f"{target} fails on {data!r}")


def mutate(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed with a few changes: bits, cuts, repeats, pieces that matter, other seeds."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(data))
        match rng.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + rng.randint(0, 8)] = b""
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                end = at + rng.randint(1, 40)
                data[at:at] = data[at:end] * rng.randint(1, 3)
            case 4:
                other = rng.choice(seeds)
                cut = rng.randint(0, len(other))
                data[at:] = other[cut:]
            case _:
                data[at:at] = rng.randbytes(rng.randint(1, 6))
    return bytes(data)


def run(name: str, seconds: float, seed: int) -> int:
    """Check the seeds and then mutations of them; return how many were checked.

    seconds: of this process's CPU time, so that a busy machine checks no less.

    Raises:
        Finding: the target's invariant does not hold.
    """
    target = load(name)
    rng = random.Random(seed)
    for data in target.SEEDS:
        _check(name, target, data)
    done = len(target.SEEDS)
    until = time.process_time() + seconds
    while time.process_time() < until:
        for _ in range(BATCH):
            _check(name, target, mutate(rng, target.SEEDS))
        done += BATCH
    return done


def load(name: str) -> Target:
    """Return the target module of this name."""
    target: Target = importlib.import_module(f"tests.fuzz.{name}")
    return target


def _check(name: str, target: Target, data: bytes) -> None:
    try:
        target.check(data)
    except Exception as error:
        raise Finding(name, data) from error


def main(name: str) -> None:
    """Run one target from the command line: --seconds, --seed, --coverage (with atheris)."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="of CPU time")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--coverage", action="store_true", help="by atheris, until stopped")
    options = parser.parse_args()
    if options.coverage:
        _run_atheris(name)
    print(f"{name}: seed {options.seed}", flush=True)
    print(f"{name}: {run(name, options.seconds, options.seed)} inputs, no finding", flush=True)


def _run_atheris(name: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("atheris is not installed: leave --coverage out")
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports():
        target = load(name)
    atheris.Setup(sys.argv[:1], target.check)
    atheris.Fuzz()
