"""One daemon an instance, whatever its other settings; and none that died is in the way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.kernel import claims, sole
from agent.kernel.clean import clean
from agent.kernel.config import PlaneConfig
from agent.kernel.errors import PlaneError
from tests.servers.netns import namespace
from tests.system.host import BIN, Host, fresh_numbers, running

pytestmark = [pytest.mark.kernel]
HOLDER = """
import subprocess, sys
from pathlib import Path
from agent.kernel import sole
from agent.kernel.config import PlaneConfig
held = sole.hold(PlaneConfig(instance=sys.argv[1], bpffs=Path(sys.argv[2])))
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)  # as roles are started
print(child.pid, flush=True)
sys.stdin.read()
"""
POLICY = "targets: {}\nloops: {job: {who: [{user: nobody}], rules: []}}\n"


@contextmanager
def held(config: PlaneConfig) -> Iterator[None]:
    """Be the instance's daemon, as far as others can tell."""
    descriptors = sole.hold(config)
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_nothing_is_cleaned_under_a_daemon(config: PlaneConfig) -> None:
    """Its locks would go with its pins: whoever stops it first may clean, nobody before."""
    command = [sys.executable, "-m", "agent.kernel.clean", "--instance", config.instance]
    command += ["--bpffs", str(config.bpffs), "--attach-cgroup", config.attach_cgroup]
    command += ["--slice", config.slice_name]
    with held(config):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert "stop it" in done.stderr
        assert sole.lock_dir(config.pin_dir).is_dir()
        assert config.instance in claims.claimed()
    subprocess.run(command, check=True, capture_output=True)
    assert not config.pin_dir.exists()
    assert config.instance not in claims.claimed()


@pytest.fixture
def elsewhere(config: PlaneConfig, tmp_path: Path) -> Iterator[PlaneConfig]:
    """The same name, on a BPF file system of its own."""
    point = tmp_path / "bpffs"
    point.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", point], check=True)
    yield replace(config, bpffs=point)
    subprocess.run(["umount", "-l", point], check=True)


def test_the_second_of_a_name_is_refused(config: PlaneConfig) -> None:
    """While the first lives; another name is another instance; nothing is left by clean."""
    other = replace(config, instance=f"{config.instance}-b")
    with held(config):
        with pytest.raises(PlaneError, match=f"is the instance '{config.instance}'"):
            sole.hold(config)
        with held(other):
            pass
    with held(config):
        pass
    clean(other)
    clean(config)
    assert not config.pin_dir.exists()
    assert not claims.claimed() & {config.instance, other.instance}


def test_another_bpf_file_system_is_no_way_out(config: PlaneConfig, elsewhere: PlaneConfig) -> None:
    """They would share the table; the refused one holds nothing."""
    with held(config), pytest.raises(PlaneError, match="another loopwardend"):
        sole.hold(elsewhere)
    with held(elsewhere):
        pass


def test_another_network_namespace_is_no_way_out(config: PlaneConfig) -> None:
    """They would share the pins. A process is asked, as its namespace tells where claims are."""
    with namespace("sole") as inside, held(config):
        done = subprocess.run(
            inside.argv(sys.executable, "-c", HOLDER, config.instance, str(config.bpffs)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "another loopwardend is the instance" in done.stderr


def test_a_killed_one_is_not_in_the_way(config: PlaneConfig) -> None:
    """SIGKILL: the lock is free as soon as the process is, though a child of its lives on."""
    argv = [sys.executable, "-c", HOLDER, config.instance, str(config.bpffs)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        pidfd = os.pidfd_open(child)
        try:
            with pytest.raises(PlaneError, match="another loopwardend"):
                sole.hold(config)
            os.kill(child, signal.SIGSTOP)  # it does not end with its standard input
            process.kill()
            process.wait()
            assert Path(f"/proc/{child}").exists()
            with held(config):
                pass
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


def test_a_second_daemon_says_why_and_changes_nothing(tmp_path: Path) -> None:
    """Other state, ports and mark, the same name: exit code 2. The first goes on, and restarts."""
    name = f"lwsole{os.getpid() % 10_000}"
    with running(name, POLICY) as first:
        numbers = fresh_numbers()
        second = Host(
            name,
            tmp_path,
            proxy_port=numbers["proxy_port"],
            mark_prefix=numbers["mark_prefix"],
        )
        second.prepare(POLICY)
        done = subprocess.run(
            [str(BIN / "loopwardend"), "--config", str(second.config)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 2
        assert f"another loopwardend is the instance '{name}'" in done.stderr
        assert first.run("job", ["true"]).returncode == 0
        first.kill_role("kernel")
        assert first.daemon is not None
        first.daemon.wait(60)
        first.start()
        assert first.run("job", ["true"]).returncode == 0
        assert "another loopwardend" not in first.log.read_text()
