"""agent/pb is what protos/ says: generated, never edited."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.checks.tree import ROOT

FILES = ("audit", "collector")


def test_generated_code_has_not_drifted(tmp_path: Path) -> None:
    """Generating again gives the same stubs and the same descriptors."""
    (tmp_path / "agent/pb").mkdir(parents=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-Iagent/pb=protos/loopwarden/v1"),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            *(f"agent/pb/{name}.proto" for name in FILES),
        ],
        cwd=ROOT,
        check=True,
    )
    for name in FILES:
        for suffix in ("_pb2.pyi", "_pb2.py"):
            path = f"agent/pb/{name}{suffix}"
            fresh, kept = (tmp_path / path).read_text(), (ROOT / path).read_text()
            assert _without_version(fresh) == _without_version(kept), f"{path}: run `make protos`"


def test_an_installation_gets_a_runtime_that_takes_the_generated_code() -> None:
    """The floor is the generator's version (an older runtime refuses), the bound one major more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (protobuf,) = (one for one in project["dependencies"] if one.startswith("protobuf"))
    for name in FILES:
        text = (ROOT / f"agent/pb/{name}_pb2.py").read_text()
        match = re.search(r"^# Protobuf Python Version: ((\d+)\.[\d.]+)$", text, re.MULTILINE)
        assert match is not None
        assert protobuf == f"protobuf>={match[1]},<{int(match[2]) + 2}"


def _without_version(text: str) -> list[str]:
    """Leave out what names the generator's version: another one generates the same messages."""
    lines = text.splitlines()
    kept, skip = [], False
    for line in lines:
        skip = skip or "ValidateProtobufRuntimeVersion(" in line
        if not skip and not line.startswith("# Protobuf Python Version"):
            kept.append(line)
        skip = skip and line.strip() != ")"
    return kept
