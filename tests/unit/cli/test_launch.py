"""What the command finds: powers, user, files, variables; and what the host keeps."""

import contextlib
import errno
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import launch, namespace
from agent.cli.environment import BUNDLE_VARIABLES
from agent.cli.launch import DROPPED_CAPABILITIES, LaunchError, find_user
from tests.unit.broker.harness import Host, run_async
from tests.unit.cli.launcher import Ended, cli, command, daemon, finish, run_words, start

NOBODY = pwd.getpwnam("nobody")


async def _shell(made: Host, script: str, *options: str) -> Ended:
    ended = await cli(made, "run", "--loop", "job", *options, "--", "sh", "-c", script)
    assert ended.code == 0, ended.err
    return ended


def test_root_of_a_run_has_no_power_over_its_bounds() -> None:
    """The dropped capabilities are in no set, and no exec brings them back."""

    async def main() -> None:
        async with daemon() as made:
            ended = await _shell(made, "cat /proc/self/status")
        fields = dict(line.split(":\t", 1) for line in ended.out.splitlines() if ":\t" in line)
        for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
            held = int(fields[name], 16)
            assert [each for each, bit in DROPPED_CAPABILITIES.items() if held >> bit & 1] == []
        assert fields["NoNewPrivs"] == "1"

    run_async(main())


def test_the_bundle_stands_over_the_usual_paths_in_the_run_alone() -> None:
    """The run's /etc/ssl/certs has our CA, read-only; the host's has not."""
    script = (
        "ls /etc/ssl/certs/loopwarden.pem && "
        "cmp /etc/ssl/certs/ca-certificates.crt $SSL_CERT_FILE && "
        "! touch /etc/ssl/certs/x 2>/dev/null && "
        "openssl verify -no-CAfile -no-CAstore -CApath /etc/ssl/certs $NODE_EXTRA_CA_CERTS"
    )

    async def main() -> None:
        async with daemon() as made:
            await _shell(made, script)

    run_async(main())
    assert not Path("/etc/ssl/certs/loopwarden.pem").exists()


def test_kernel_interfaces_are_out_of_reach() -> None:
    """No bpffs, no writable cgroup2, and neither can be mounted anew."""
    script = (
        "ls -A /sys/fs/bpf 2>/dev/null; "
        "grep -c ' - bpf ' /proc/self/mountinfo; "
        "for d in $(awk '/ - cgroup2 /{print $5}' /proc/self/mountinfo); do "
        "  mkdir $d/lw-test 2>/dev/null && echo WRITABLE $d; done; "
        "mount -t bpf none /mnt 2>/dev/null && echo MOUNTED; "
        "mount -t cgroup2 none /mnt 2>/dev/null && echo MOUNTED; "
        "umount /sys/fs/bpf 2>/dev/null && echo UNMOUNTED; true"
    )

    # counted in a mount namespace of its own, where no other test can mount anything meanwhile
    alone = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    count = 'grep -c " - bpf " /proc/self/mountinfo; exec "$@"'

    async def main() -> Ended:
        async with daemon() as made:
            line = command(made, *run_words("sh", "-c", script))
            return await finish(await start([*alone, count, "sh", *line]))

    ended = run_async(main())
    assert ended.code == 0, ended.err
    before, *inside = ended.out.splitlines()
    assert inside == [before]  # covered, and nothing else was printed


LOOKS_UP = """
import os, socket, sys
from agent.cli import namespace
path, trust = sys.argv[1:]
closed = os.path.dirname(path) + "-closed/socket"
namespace.LOOKUP_SOCKETS = (path, path + "-none", closed)
def ask():
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path)
before = ask()
namespace.isolate(trust)
print(before, ask(), open(os.path.dirname(path) + "/resolv.conf").read(), flush=True)
sys.stdin.readline()
print(ask())
"""


@pytest.mark.parametrize("uid", [0, NOBODY.pw_uid])
def test_programs_that_look_up_names_are_out_of_reach(uid: int) -> None:
    """nscd and its kin would ask name servers for the run, outside of it: there is no socket.

    Nor is there one when the program is started anew, while the run lives. The files beside it
    stay, and a folder that the user can't look into is no trouble.
    """

    async def main() -> None:
        async with daemon() as made:
            folder, closed = (
                made.config.trust_dir / "lookup",
                made.config.trust_dir / "lookup-closed",
            )
            path = folder / "socket"
            folder.mkdir()
            closed.mkdir(mode=0o700)
            (folder / "resolv.conf").write_text("kept")
            with _listening(path), _listening(closed / "socket"):
                words = (sys.executable, "-c", LOOKS_UP, str(path), str(made.config.trust_dir))
                who = {"user": uid, "group": uid, "extra_groups": []}
                child = await start(words, stdin=subprocess.PIPE, **who)
                assert child.stdout is not None
                first = await child.stdout.readline()
                path.unlink()
                with _listening(path):
                    ended = await finish(child, b"\n")
            assert first == f"0 {errno.ENOENT} kept\n".encode(), ended.err
            assert ended.out == f"{errno.ENOENT}\n", ended.err

    run_async(main())


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as host:
        host.bind(str(path))
        host.listen()
        path.chmod(0o666)
        yield


def test_the_variables_are_set() -> None:
    """Each names a file that can be read; NODE's has our CA alone; the run knows its id."""

    async def main() -> None:
        async with daemon() as made:
            ended = await _shell(made, "env")
            found = dict(line.split("=", 1) for line in ended.out.splitlines() if "=" in line)
            for name in BUNDLE_VARIABLES:
                assert found[name] == str(made.config.trust_dir / "ca-bundle.pem")
            assert found["NODE_EXTRA_CA_CERTS"] == str(made.config.trust_dir / "ca.pem")
            assert found["SSL_CERT_DIR"] == str(made.config.trust_dir / "certs")
            assert made.kernel.admitted == [found["LOOPWARDEN_RUN"]]

    run_async(main())


def test_root_may_run_as_another_user() -> None:
    """Uid, gid, groups and HOME are the user's; no way back."""

    async def main() -> None:
        async with daemon() as made:
            ended = await _shell(made, "id -u; id -g; id -G; echo $HOME $USER", "--user", "nobody")
            uid, gid, groups, home = ended.out.splitlines()
            assert (int(uid), int(gid)) == (NOBODY.pw_uid, NOBODY.pw_gid)
            assert groups.split() == [str(NOBODY.pw_gid)]
            assert home == f"{NOBODY.pw_dir} nobody"

    run_async(main())


def test_an_unprivileged_caller_gets_the_bundle_or_one_warning() -> None:
    """With user namespaces the paths have it; without, the variables have, and a line says so."""
    script = "id -u; ls /etc/ssl/certs/loopwarden.pem 2>/dev/null; head -1 $SSL_CERT_FILE"

    async def main() -> None:
        async with daemon() as made:
            line = command(made, *run_words("sh", "-c", script))
            ended = await finish(await start(line, user=NOBODY.pw_uid, group=NOBODY.pw_gid,
                                             extra_groups=[]))  # fmt: skip
        assert ended.code == 0, ended.err
        uid, *there, first = ended.out.splitlines()
        assert int(uid) == NOBODY.pw_uid
        assert first == "-----BEGIN CERTIFICATE-----"
        assert ended.err.count("warning: no mount namespace here") == (0 if there else 1)

    run_async(main())


def test_an_unprivileged_caller_may_not_choose_a_user() -> None:
    """Refused by the daemon, by the kernel's word on who asks."""

    async def main() -> None:
        async with daemon() as made:
            line = command(made, "run", "--loop", "job", "--user", "root", "--", "id")
            ended = await finish(await start(line, user=NOBODY.pw_uid, group=NOBODY.pw_gid))
            assert (ended.code, ended.out) == (125, "")
            assert "only root may run as another user" in ended.err

    run_async(main())


def test_variables_alone_leave_the_mounts_alone() -> None:
    """--trust environment: no namespace."""

    async def main() -> None:
        async with daemon() as made:
            script = (
                "readlink /proc/self/ns/mnt; ls /etc/ssl/certs/loopwarden.pem 2>/dev/null; true"
            )
            ended = await _shell(made, script, "--trust", "environment")
            assert ended.out == f"{os.readlink('/proc/self/ns/mnt')}\n"

    run_async(main())


def test_users_are_found_by_name_and_number() -> None:
    """And nobody else."""
    assert find_user("nobody") == find_user(str(NOBODY.pw_uid))
    for name in ("no-such-user", "99999999999", "4000000000"):
        with pytest.raises(LaunchError):
            find_user(name)


def test_standard_streams_that_are_no_sockets_pass() -> None:
    """Closed ones too."""
    launch.check_standard_streams()


def test_the_attempt_leaves_this_process_alone(tmp_path: Path) -> None:
    """permitted() tries in a child: our namespaces stay, and a failure has its reason."""
    before = os.readlink("/proc/self/ns/mnt")
    assert namespace.permitted(str(tmp_path / "none")) == os.strerror(2)
    assert os.readlink("/proc/self/ns/mnt") == before
