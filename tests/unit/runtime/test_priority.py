"""Who has to act at once is run at once, and what it starts is not."""

import os
import re
import subprocess
import sys

PROGRAM = """
import os, struct, sys
from agent.runtime import priority
def state():
    buffer = bytearray(48)
    import ctypes
    raw = (ctypes.c_char * 48).from_buffer(buffer)
    ctypes.CDLL(None).syscall({"x86_64": 315, "aarch64": 275}[os.uname().machine], 0, raw, 48, 0)
    fields = struct.unpack("=IIQiIQQQ", bytes(buffer))
    return fields[3], fields[5]
def child():
    read, write = os.pipe()
    if not os.fork():
        os.write(write, repr(state()).encode())
        os._exit(0)
    os.wait()
    return eval(os.read(read, 100))
print(priority.prompt(-10), state(), child())
print(priority.prompt(-5, children=True), state(), child())
priority.ordinary()
print(state(), child())
"""


def said(*before: str) -> list[str]:
    """Return what the program says, a line each."""
    return subprocess.run(
        [*before, sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()


def slices() -> tuple[int, int]:
    """Return the slice of a prompt process and of any other, as this kernel has them."""
    short = 100_000 if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12) else 0
    return short, int(re.findall(r"\d+", said()[2])[1])


def test_the_process_is_prompt_and_its_children_are_not() -> None:
    """A nice value and the kernel's shortest slice; a child has them only if it is meant to."""
    short, usual = slices()
    one, both, back = said()
    assert one == f"True (-10, {short or usual}) (0, {usual})"
    assert both == f"True (-5, {short or usual}) (-5, {short or usual})"
    assert back == f"(0, {usual}) (0, {usual})"


def test_without_power_the_slice_is_what_can_be_had() -> None:
    """Without CAP_SYS_NICE the nice value stays, and it says so; nothing fails."""
    short, usual = slices()
    drop = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", "--reuid=65534"]
    one, *_ = said(*drop, "--clear-groups")
    assert one == f"False (0, {short or usual}) (0, {usual})"
