"""agent/pb is what protos/ says: generated, never edited."""

import subprocess
import sys
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
