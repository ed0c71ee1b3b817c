"""The ABI mirror is what the compiler made of abi.h: names, offsets, sizes, numbers."""

import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.kernel import abi
from agent.kernel.objects import FALLBACK, FULL, OBJECT_DIR

HEADER = Path(__file__).parents[2] / "bpf" / "include" / "abi.h"
Btf = dict[int, dict[str, Any]]


def _btf(name: str) -> Btf:
    tool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    argv = [tool, "btf", "dump", "-j", "file", str(OBJECT_DIR / name)]
    dump = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return {one["id"]: one for one in dump["types"]}


@pytest.mark.parametrize("name", [FULL, FALLBACK])
@pytest.mark.parametrize("struct", abi.MIRRORS)
def test_struct_mirrors_equal_btf(name: str, struct: str) -> None:
    """Every member has the same name, offset and size on both sides, and nothing is implicit."""
    btf = _btf(name)
    found = [t for t in btf.values() if t["kind"] == "STRUCT" and t["name"] == struct]
    if not found:
        assert (name, struct) == (FALLBACK, "lw_tag")
        return
    mirror = abi.MIRRORS[struct]
    members = [(m["name"], m["bits_offset"] // 8) for m in found[0]["members"]]
    fields = [(field[0], getattr(mirror, field[0]).offset) for field in mirror._fields_]
    assert fields == members
    assert ctypes.sizeof(mirror) == found[0]["size"]
    assert sum(getattr(mirror, name).size for name, _ in fields) == ctypes.sizeof(mirror)


@pytest.mark.parametrize("enum", abi.ENUMS)
def test_enums_equal_the_header(enum: str) -> None:
    """Every enumerator has the same number in both."""
    prefix, mirror = abi.ENUMS[enum]
    body = re.search(rf"enum {enum} \{{(.*?)\}}", HEADER.read_text(), re.DOTALL)
    assert body is not None
    named = re.findall(rf"{prefix}(\w+) = (\d+)", body.group(1))
    numbers = {name: int(number) for name, number in named if name != "COUNT"}
    assert numbers == {one.name: one.value for one in mirror if one.name}


def test_defines_equal_the_header() -> None:
    """ABI number and sizes are the header's."""
    defines = dict(re.findall(r"#define LW_(\w+) (\d+)", HEADER.read_text()))
    wanted = (
        "PENDING_MAX",
        "DNS_STEP_NS",
        "DNS_BURST_NS",
        "CHAIN_MAX",
        "EXE_MAX",
        "ARGV_MAX",
        "RUNS_MAX",
        "FLOWS_MAX",
        "PROCS_MAX",
    )
    assert int(defines["ABI"]) == abi.ABI
    assert int(defines["META_BYTES"]) == abi.META_BYTES
    assert {name: int(defines[name]) for name in wanted} == {
        name: getattr(abi, name) for name in wanted
    }
