"""Leaving the run by its cgroup, by the kernel's own files, or by descriptors of others."""

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

from tests.escape.conftest import PYTHON, Loop
from tests.escape.ways import PROXIED
from tests.kernel.farside import FAR4, FarSide
from tests.system.host import Host

MOVE = """
def move():
    mount = MOUNT
    with open(mount + PLACE + '/cgroup.procs', 'w') as file:
        file.write(str(os.getpid()))
attempt(move)
"""


def cgroup_mount(host: Host) -> str:
    """Return where cgroup v2 is mounted."""
    return str(host.cgroup.parent)


def test_a_run_can_not_move_itself(inside: Loop, host: Host) -> None:
    """Neither to a bystander's cgroup nor to the root: the tree is root's, and read-only here."""
    for place in ("", f"/{host.instance}/bystander", f"/{host.instance}/user"):
        code = f"MOUNT, PLACE = {cgroup_mount(host)!r}, {place!r}\n" + MOVE
        assert inside.try_(code) in {"EACCES", "EROFS", "EPERM"}


def test_a_mount_of_its_own_shows_no_way_out(inside: Loop, host: Host) -> None:
    """In a user namespace of its own: cgroup2 can't be mounted, or shows its subtree alone."""
    code = """
if libc.unshare(0x10000000 | 0x20000 | 0x2000000):
    print('EPERM')
else:
    place = '/tmp'
    r = libc.mount(b'none', place.encode(), b'cgroup2', 0, None)
    if r: print('EPERM')
    else: print('subtree' if not os.path.exists(place + '/INSTANCE') else os.listdir(place))
"""
    assert inside.try_(code.replace("INSTANCE", host.instance)) in {"EPERM", "subtree"}


def test_the_pins_are_out_of_reach(inside: Loop, host: Host) -> None:
    """bpffs shows nothing of ours: no pin can be opened or removed."""
    code = f"attempt(lambda: os.listdir('/sys/fs/bpf/{host.instance}'))"
    assert inside.try_(code) in {"EACCES", "ENOENT", "EPERM"}
    assert Path("/sys/fs/bpf", host.instance).is_dir()


def test_a_nested_cgroup_is_the_same_run(host: Host, far: FarSide) -> None:
    """Twenty levels down, a process of the run is proxied as before."""
    slice_ = host.cgroup / f"{host.instance}.slice"
    line = host.run_command("job", ["/bin/sh", "-c", f"read go; {DIAL}"], user="nobody")
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=host.loop_environment(),
        cwd="/",
    ) as process:
        assert process.stdin is not None
        child = _child_in(slice_, process.pid)
        deep = _cgroup_of(child)
        for _ in range(20):
            deep /= "x"
            deep.mkdir()
        (deep / "cgroup.procs").write_text(str(child))
        far.take()
        out, _ = process.communicate("go\n", timeout=120)
    assert out.strip() in PROXIED
    assert far.take() == []


DIAL = (
    f"{PYTHON} -I -S -c 'import socket\n"
    f'try:\n s=socket.create_connection(("{FAR4}",8080),60);s.send(b"GET /");s.shutdown(1)\n'
    f" print(s.recv(64)[:12])\n"
    f'except ConnectionResetError: print("ECONNRESET")\''
)


def _child_in(slice_: Path, _: int) -> int:
    """Return the pid of the run's only process, once it is there."""
    while True:  # the launcher's own words have those of its command in them
        for procs in slice_.glob("run-*/cgroup.procs"):
            with contextlib.suppress(OSError):  # another run, or process, that has just ended
                for word in procs.read_text().split():
                    line = Path(f"/proc/{word}/cmdline").read_bytes()
                    if line.startswith(b"/bin/sh\0-c\0read go"):
                        return int(word)
        time.sleep(0.02)


def _cgroup_of(pid: int) -> Path:
    path = Path(f"/proc/{pid}/cgroup").read_text().split("0::")[1].splitlines()[0]
    root = next(
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup2 " in line
    )
    return Path(root, path.lstrip("/"))


def test_no_descriptor_of_the_caller_gets_in(host: Host, far: FarSide) -> None:
    """A connected socket that was left open is refused at the door or closed, never used."""
    with socket.create_connection((FAR4, 8080)) as sock:
        os.set_inheritable(sock.fileno(), True)
        code = (
            f"import os\ntry: os.write({sock.fileno()}, b'out'); print('sent')\n"
            "except OSError: print('closed')"
        )
        line = host.run_command("job", [PYTHON, "-I", "-S", "-c", code])
        far.take()
        done = subprocess.run(
            line,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(sock.fileno(),),
            env=host.loop_environment(),
            cwd="/",
        )
    assert "sent" not in done.stdout
    assert done.stdout == "closed\n" or done.returncode == 125
    assert not [one for one in far.take() if "Raw" in one]


def test_a_socket_of_the_run_is_dead_outside(host: Host, inside: Loop, far: FarSide) -> None:
    """Passed to a process outside, a run's unconnected socket can't be connected there."""
    path = str(host.base / f"pass-{inside.user}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        os.chmod(path, 0o777)
        server.listen()
        said = inside.try_(
            "u=socket.socket(1); u.connect('PATH'); s=socket.socket()\n"
            "socket.send_fds(u,[b'x'],[s.fileno()]); print('passed')".replace("PATH", path)
        )
        assert said == "passed"
        peer, _ = server.accept()
        with peer:
            _, (fd,), _, _ = socket.recv_fds(peer, 1, 1)
    far.take()
    with socket.socket(fileno=fd):
        # we are not below the host's cgroup, where hooks look: a bystander there tries it
        os.set_inheritable(fd, True)
        code = (
            f"import socket\ns=socket.socket(fileno={fd})\n"
            f"try: s.connect(({FAR4!r},8080)); print('out')\nexcept OSError as e: print(e.errno)"
        )
        done = subprocess.run(
            host.inside("bystander", [PYTHON, "-I", "-S", "-c", code]),
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(fd,),
        )
    assert done.stdout == "1\n", done.stderr
    assert far.take() == []
