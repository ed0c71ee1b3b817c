"""The control socket in the hands of a user who starts loops: what is not theirs stays so."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from agent.broker.server import CONNECTIONS_A_USER_MAX
from tests.escape.conftest import PYTHON, Loop
from tests.system.host import Host

# Speaks the socket's language by hand: a user need not use our command.
SPEAK = """
import array, json, os, socket, sys
path, control = sys.argv[1], []
def pack(value):
    if isinstance(value, str):
        raw = value.encode(); return b'\\xdb' + len(raw).to_bytes(4, 'big') + raw
    return b'\\xdd' + len(value).to_bytes(4, 'big') + b''.join(map(pack, value))
def opened():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); sock.settimeout(120)
    sock.connect(path); return sock
def ask(sock, *message, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
    sock.sendmsg([pack(message)], rights)
    return sock.recv(65536)
"""


def as_nobody(host: Host, code: str, *arguments: str) -> str:
    """Run code with SPEAK as an unprivileged bystander; return what it printed."""
    socket_path = str(host.base / "run" / "control.sock")
    done = host.bystander([PYTHON, "-I", "-S", "-c", SPEAK + code, socket_path, *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nobody_can_bring_anothers_process_into_a_run(host: Host) -> None:
    """Admitting root's process, or no process at all: refused, and the process is untouched."""
    with subprocess.Popen(["sleep", "60"]) as roots:
        before = Path(f"/proc/{roots.pid}/cgroup").read_text()
        code = """
for victim in (int(sys.argv[2]), None):
    sock = opened()
    opened_run = ask(sock, 'StartRun', 'job', [], '')
    assert b'RunOpened' in opened_run, opened_run
    run_id = opened_run[opened_run.index(b'RunOpened') + 10:][:26].decode()
    fd = os.pidfd_open(victim) if victim else os.open('/dev/null', os.O_RDONLY)
    print(b'Refused' in ask(sock, 'AdmitRun', run_id, fds=[fd]))
"""
        assert as_nobody(host, code, str(roots.pid)) == "True\nTrue\n"
        assert Path(f"/proc/{roots.pid}/cgroup").read_text() == before
        roots.kill()


def test_what_is_roots_is_refused(host: Host, inside: Loop) -> None:
    """Register, reload, doctor, another user, another's run: each is refused to a user."""
    assert inside.try_("print('alive')") == "alive"
    [run] = the_live_run(host)
    assert run["initiator"]["uid"] == 0
    roots = [run["run_id"]]
    code = """
for message in (('StartRun', 'nosuch', [], ''), ('StartRun', 'job', [], 'root'),
                ('RegisterLoop', 'job', '/' + sys.argv[3]), ('ReloadPolicy',), ('Diagnose',),
                ('Revoke', sys.argv[2]), ('Unregister', sys.argv[2])):
    print(b'Refused' in ask(opened(), *message))
"""
    assert as_nobody(host, code, roots[0], host.instance) == "True\n" * 7
    assert inside.try_("print('alive')") == "alive"


def test_a_flood_of_idle_callers_keeps_nobody_else_out(host: Host) -> None:
    """With every place of the user taken, and garbage sent on some, root is served at once."""
    code = f"""
held = []
for number in range({CONNECTIONS_A_USER_MAX} * 2):
    try: held.append(opened())
    except OSError: break
for sock in held[:50]:
    try: sock.send(os.urandom(1000))
    except OSError: pass
sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.read()
"""
    path = str(host.base / "run" / "control.sock")
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    command = [*drop, PYTHON, "-I", "-S", "-c", SPEAK + code, path]
    with subprocess.Popen(
        host.inside("bystander", command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as flood:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "held\n"
        assert host.cli("status", "--json").returncode == 0
        assert flood.stdin is not None
        flood.stdin.close()


def test_descriptors_that_nobody_asked_for_are_closed(host: Host) -> None:
    """A thousand requests with descriptors leave the broker with as many as before."""
    pid = host.role_pid("broker")
    before = len(os.listdir(f"/proc/{pid}/fd"))
    code = """
fds = [os.open('/dev/null', os.O_RDONLY) for _ in range(200)]
for number in range(1000):
    try:
        sock = opened()
        ask(sock, 'GetStatus', fds=fds[: 1 + number % 200])
    except OSError: pass  # 6.16: not sent at all; and the queue of callers may be full
    sock.close()
"""
    as_nobody(host, code)
    deadline = time.monotonic() + 120
    while len(os.listdir(f"/proc/{pid}/fd")) > before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(os.listdir(f"/proc/{pid}/fd")) <= before + 2


def test_a_run_changes_nothing_by_the_control_socket(inside: Loop, host: Host) -> None:
    """No run of another loop, no end of a sibling, no reload: root's run neither. It may look."""
    ours = the_live_run(host)
    code = SPEAK.replace("sys.argv[1]", repr(str(host.base / "run" / "control.sock")))
    code += f"""
for message in (('StartRun', 'job', [], ''), ('StartRun', 'job', [], 'nobody'),
                ('RegisterLoop', 'job', {f"/{host.instance}/bystander"!r}), ('ReloadPolicy',),
                ('Revoke', {ours[0]["run_id"]!r}), ('Unregister', {ours[0]["run_id"]!r})):
    said = ask(opened(), *message)
    print(b'Refused' in said and b'a run may change nothing' in said, end=' ')
print(b'StatusView' in ask(opened(), 'GetStatus'))
"""
    assert inside.try_(code) == "True " * 6 + "True"
    assert the_live_run(host) == ours


def the_live_run(host: Host) -> list[dict[str, Any]]:
    """Return the one run that lives, once those of earlier tests are over."""
    deadline = time.monotonic() + 120
    while True:
        found = [one["run"] for one in json.loads(host.cli("loops", "--json").stdout)]
        if len(found) == 1:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


# A socket whose close(2) waits: nobody reads what it has sent. Who closes it last, waits for an
# hour, and answers nobody before the asker has given up.
LINGERS = """
import struct
server = socket.create_server(('127.0.0.1', 0))
lingering = socket.create_connection(server.getsockname()); kept = server.accept()[0]
lingering.setblocking(False)
try:
    while True: lingering.send(bytes(65536))
except BlockingIOError: pass
lingering.setsockopt(1, 13, struct.pack('ii', 1, 3600))
"""
ANSWERS = """
import time
time.sleep(0.5)
print(b'StatusView' in ask(opened(), 'GetStatus'))
"""


def in_a_child(code: str) -> str:
    """Return code that has a child do this and end: who exits waits for no lingering socket."""
    return f"""
if os.fork() == 0:
    try: exec({LINGERS + code!r})
    finally: os._exit(0)
os.wait()
"""


def test_a_descriptor_that_can_not_be_closed_hangs_nobody(host: Host) -> None:
    """Who may start loops sends a lingering socket as a pidfd, and one more behind it, unread."""
    code = """
sock = opened(); said = ask(sock, 'StartRun', 'job', [], '')
run_id = said[said.index(b'RunOpened') + 10:][:26].decode()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [lingering.fileno()]))]
for number in range(8): sock.sendmsg([pack(['AdmitRun', run_id])], rights)
"""
    assert as_nobody(host, in_a_child(code) + ANSWERS) == "True\n"


def test_a_run_can_send_no_descriptor_that_hangs(inside: Loop, host: Host) -> None:
    """The kernel refuses it (6.16), or it is closed where nobody waits for it."""
    speak = SPEAK.replace("sys.argv[1]", repr(str(host.base / "run" / "control.sock")))
    code = """
sock = opened()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [lingering.fileno()]))]
for number in range(8): sock.sendmsg([pack(['GetStatus'])], rights)
"""
    assert inside.try_(speak + in_a_child(code) + ANSWERS) == "True"
