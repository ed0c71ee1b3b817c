"""A process that writes a spool as the reporter does, and says what is acknowledged.

    python -m tests.system.spool_writer MODE DIRECTORY

MODE is "sound", or a control that is wrong on purpose: "no-sync" acknowledges without a flush,
"roll-without-sync" opens the next segment while the old one is not on the disk. It prints
"acked N" when records up to N are acknowledged, "cursor N" before the cursor moves there. SIGUSR1
stops it after the next acknowledgement.
"""

import itertools
import os
import random
import signal
import sys
import zlib
from pathlib import Path

from agent.spool.cursor import Cursor
from agent.spool.recovery import recover
from agent.spool.writer import Spool, SpoolLimits

LIMITS = SpoolLimits(
    bytes_max=8_000_000, segment_bytes=12_000, headroom_bytes=500_000, reserve_bytes=65_536
)
CURSOR_EVERY = 40  # groups


class RollsWithoutSync(Spool):
    """The control: forgets to flush the old segment."""

    def _seal(self) -> None:
        """Do nothing."""


def content(seq: int) -> bytes:
    """The record of a number: 60 to 560 bytes that anyone can make again."""
    size = 60 + zlib.crc32(seq.to_bytes(8, "big")) % 500
    return f"{seq:010d}".encode().ljust(size, b".")


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(mode: str, directory: Path) -> None:
    """Write groups until killed."""
    asked: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: asked.append(number))
    kind = RollsWithoutSync if mode == "roll-without-sync" else Spool
    spool = kind(directory, recover(directory), boot=bytes(16), created_ms=1, limits=LIMITS)
    choose = random.Random(1)
    say("ready")
    for group in itertools.count(1):
        for _ in range(choose.randint(1, 6)):
            count = choose.randint(1, 5)
            spool.append([content(spool.next_seq + one) for one in range(count)])
        if mode != "no-sync":
            spool.sync()
        last = spool.next_seq - 1
        say(f"acked {last}")
        if asked:
            asked.clear()
            os.kill(os.getpid(), signal.SIGSTOP)
        if group % CURSOR_EVERY == 0:
            say(f"cursor {last}")
            spool.acknowledge(Cursor(last, spool.hash))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
