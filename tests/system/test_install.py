"""Installed as a person installs it, in a real container with systemd: it runs, and runs again.

The claims build on each other, in the order in which they stand here.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.nspawn import Bind, Container

pytestmark = [
    pytest.mark.nspawn,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

NAME = "api.demo.internal"
TOKEN = "canary-5d1e0b7f42c94a36"
UNITS = ("loopwarden-collector.service", "loopwarden.service")
# Another host: a network namespace with nginx that checks a bearer token.
API = f"""
ip netns add api
ip link add veth0 type veth peer name eth0 netns api
ip address add 10.9.0.1/24 dev veth0
ip link set veth0 up
ip -n api address add 10.9.0.2/24 dev eth0
ip -n api link set eth0 up
mkdir -p /srv/api && cd /srv/api
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem \
    -out ca.pem -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} 2>/dev/null
cat > nginx.conf <<'END'
events {{}}
http {{
  access_log /srv/api/access.log;
  map $http_authorization $granted {{ default 0; "Bearer @TOKEN@" 1; }}
  server {{
    listen 10.9.0.2:443 ssl;
    ssl_certificate /srv/api/ca.pem;
    ssl_certificate_key /srv/api/key.pem;
    if ($granted = 0) {{ return 401 "a token is required\\n"; }}
    location / {{ return 200 "hello\\n"; }}
  }}
}}
END
sed -i "s/@TOKEN@/$(cat /root/token)/" nginx.conf
systemd-run --quiet --unit=api --property=NetworkNamespacePath=/run/netns/api \
    nginx -c /srv/api/nginx.conf -g 'daemon off;'
until curl --silent --insecure --output /dev/null https://10.9.0.2/; do sleep 0.1; done
"""
POLICY = f"""
targets:
  api:
    protocol: http
    address: https://{NAME}
    dial: 10.9.0.2:443
    ca: /srv/api/ca.pem
    credential: {{provider: static, file: /etc/loopwarden/secrets/api-token, shape: bearer}}
loops:
  job:
    who: [{{user: root}}, {{user: nobody}}]
    adopt_joiners: true
    rules:
      - {{target: api, allow: {{method: GET, path: /v1/**}}}}
  deploy:
    who: [{{unit: lw-deploy.service}}]
    rules: []
"""
CONFIGURE = f"""
systemctl start loopwarden-collector
token=$(loopwarden-collector token create --host container)
printf %s "$token" |
  loopwarden-collector enroll --collector 127.0.0.1:7444 --token - --out /etc/loopwarden/identity
cat > /etc/loopwarden/loopwarden.toml <<'END'
[collector]
address = "127.0.0.1:7443"
END
cat > /etc/loopwarden/policy.d/job.yaml <<'END'
{POLICY}
END
install -m 600 -o loopwarden -g loopwarden /root/token /etc/loopwarden/secrets/api-token
systemctl start loopwarden
"""


@pytest.fixture(scope="module")
def wheels(repository: Path) -> Path:
    """Every wheel that the installation needs, so that it needs no network."""
    subprocess.run(["make", "wheelhouse"], cwd=repository, check=True, capture_output=True)
    return repository / "build/wheels"


@pytest.fixture(scope="module")
def host(repository: Path, wheels: Path) -> Iterator[Container]:
    """A container in which `make install` was done."""
    binds = [Bind(repository, "/src"), Bind(wheels, "/wheels")]
    with Container("lw-test-install", binds) as container:
        container.shell("make -C /src install WHEELS=/wheels", timeout_s=900)
        yield container


def curl(path: str = "/v1/hello") -> tuple[str, ...]:
    """Return the unmodified loop's command."""
    return ("curl", "--silent", "--show-error", "--max-time", "120", f"https://{NAME}{path}")


def sessions(host: Container) -> list[dict[str, object]]:
    """Return the sessions that the collector knows to have ended with an answer."""
    said = host.run("loopwarden-collector", "sessions", "list", "--verdict", "allow", "--json")
    return [json.loads(line) for line in said.stdout.splitlines()]


def run_and_record(host: Container, count: int) -> None:
    """Run the loop, and wait until the collector has the count-th session."""
    answer = host.run("loopwarden", "run", "--loop", "job", "--", *curl())
    assert answer.stdout == "hello\n"
    await_sessions(host, count)


def await_sessions(host: Container, count: int) -> None:
    """Wait until the collector has so many sessions."""
    script = (
        "for i in $(seq 200); do"
        ' n=$(loopwarden-collector sessions list --verdict allow --json | wc -l); [ "$n" -ge "$0" ]'
        " && exit 0; done; exit 1"
    )
    host.run("/bin/sh", "-c", script, str(count))


def test_installed_commands_answer(host: Container) -> None:
    """Every command is on the path, for every user, and says its version or its use."""
    for command in ("loopwarden", "loopwardend", "loopwarden-collector"):
        assert "usage" in host.run(command, "--help", user="nobody").stdout


def test_users_and_directories_are_made(host: Container) -> None:
    """Each role has its user, secrets are the broker's alone."""
    made = host.run("getent", "passwd").stdout
    for user in ("loopwarden", "loopwarden-proxy", "loopwarden-report", "loopwarden-collector"):
        assert f"\n{user}:" in made
    modes = host.run("stat", "-c", "%U %a", "/etc/loopwarden/secrets", "/etc/loopwarden/identity")
    assert modes.stdout == "loopwarden 700\nroot 700\n"


def test_installing_again_keeps_what_was_edited(host: Container) -> None:
    """A second `make install` replaces the code and leaves the configuration."""
    host.shell(
        "echo 'proxy_workers = 1' >> /etc/loopwarden/loopwarden.toml\n"
        "make -C /src install WHEELS=/wheels\n"
        "grep -q '^proxy_workers = 1' /etc/loopwarden/loopwarden.toml",
        timeout_s=900,
    )


def test_units_are_accepted(host: Container) -> None:
    """`systemd-analyze verify` accepts the units with their commands in place."""
    for unit in UNITS:
        host.run("systemd-analyze", "verify", "--man=no", unit)


def test_a_run_works_after_installation(host: Container) -> None:
    """An unmodified curl gets the answer with a token it does not have, and is recorded."""
    # not by a command: systemd writes those into the journal
    host.path("/root/token").write_text(TOKEN + "\n", encoding="ascii")
    host.shell(API)
    host.shell(CONFIGURE)
    refused = host.run(*curl(), "--cacert", "/srv/api/ca.pem", "--resolve", f"{NAME}:443:10.9.0.2")
    assert refused.stdout == "a token is required\n"
    assert host.run("loopwarden", "doctor").stdout.endswith("all claimed layers hold\n")
    run_and_record(host, 1)


def test_the_roles_have_no_power(host: Container) -> None:
    """Each child of the daemon has its own user, no capability, and no way to get one."""
    script = (
        "main=$(systemctl show -P MainPID loopwarden)\n"
        'for pid in $(cat /proc/$main/task/$main/children); do echo "$(stat -c %U /proc/$pid)'
        " $(sed -n 's/^\\(CapEff\\|CapBnd\\|NoNewPrivs\\|Seccomp\\):\\s*//p' /proc/$pid/status |"
        ' tr "\\n" " ")"; done'
    )
    roles = dict(line.split(" ", 1) for line in host.shell(script).stdout.splitlines())
    assert set(roles) == {"loopwarden", "loopwarden-proxy", "loopwarden-report"}
    none = "0" * 16
    assert {power.strip() for power in roles.values()} == {f"{none} {none} 1 2"}


def test_a_run_works_after_a_restart(host: Container) -> None:
    """After `systemctl restart` the next run works, with the same policy and identity."""
    host.run("systemctl", "restart", "loopwarden.service")
    run_and_record(host, 2)


def test_the_daemon_survives_a_kill(host: Container) -> None:
    """After SIGKILL of everything systemd brings it back, and a run works."""
    script = (
        "before=$(systemctl show -P MainPID loopwarden)\n"
        # it may miss one that another's death just took with it, and says so
        "systemctl kill --kill-whom=all --signal=KILL loopwarden || true\n"
        'for i in $(seq 300); do now=$(systemctl show -P MainPID loopwarden); [ "$now" != 0 ] &&'
        ' [ "$now" != "$before" ] && [ "$(systemctl is-active loopwarden)" = active ] && exit 0;'
        " sleep 0.1; done; exit 1"
    )
    host.shell(script)
    run_and_record(host, 3)


def test_a_units_cgroup_can_be_registered(host: Container) -> None:
    """A systemd unit that somebody else runs becomes a run, and its calls are attributed."""
    command = " ".join((*curl(), "--cacert", "/run/loopwarden/trust/ca-bundle.pem"))
    host.shell(
        "mkfifo -m 666 /tmp/go /tmp/answer\n"
        f"systemd-run --quiet --unit=theirs --uid=nobody sh -c 'read go < /tmp/go; {command}"
        " > /tmp/answer; exec sleep 60'\n"
        "loopwarden register --loop job --cgroup /sys/fs/cgroup/system.slice/theirs.service\n"
    )
    assert host.shell("echo > /tmp/go; cat /tmp/answer").stdout == "hello\n"
    await_sessions(host, 4)
    assert sessions(host)[0]["loop"] == "job"
    host.run("systemctl", "stop", "theirs.service")


def test_a_unit_may_start_what_its_name_lets_it(host: Container) -> None:
    """By cgroup and invocation, whatever user it has; another unit of that user may not."""
    start = "systemd-run --quiet --wait --pipe --uid=nobody --unit={} loopwarden run --loop deploy"
    host.shell(f"{start.format('lw-deploy')} -- true")
    fake = "--property=Delegate=yes sh -c 'loopwarden run --loop deploy -- true'"
    other = "systemd-run --quiet --wait --pipe --uid=nobody --unit=lw-other {}"
    refused = host.shell(f"{other.format(fake)} 2>&1 || true").stdout
    assert "nobody may not start loop deploy" in refused
    script = (
        "for i in $(seq 100); do loopwarden-collector runs --loop deploy --json | grep . && exit"
    )
    host.shell(f"{script}; sleep 0.1; done; exit 1")
    said = host.run("loopwarden-collector", "runs", "--loop", "deploy", "--json").stdout
    [run] = [json.loads(line) for line in said.splitlines()]
    assert run["initiator"]["service"] == "lw-deploy.service"
    assert len(run["initiator"]["invocation"]) == 32
    assert run["initiator"]["parents"][-1]["exe"].endswith("/systemd")


def test_no_secret_is_in_the_journal(host: Container) -> None:
    """The token is neither in the journal nor in what the collector or the spool keep."""
    found = host.run(
        *("grep", "-rlaFf", "/root/token", "/var/lib", "/var/log", "/run/log", "/run/loopwarden"),
        check=False,
    )
    assert found.stdout == ""
    assert TOKEN not in host.journal(lines=100_000)


LEFTOVERS = """
find /sys/fs/bpf -mindepth 1 -not -name '*.debug'
nft list tables
ip -4 route show table local proto 76
ip -6 route show table local proto 76
find /sys/fs/cgroup/loopwarden.slice -mindepth 1 -type d 2>/dev/null || true
"""


@pytest.mark.parametrize("python", ["", "/usr/lib/loopwarden/bin/python"])
def test_kernel_state_can_be_cleaned(host: Container, python: str) -> None:
    """A host without its daemon is freed, with our Python and without any; then it serves."""
    host.shell("systemctl kill --signal=KILL loopwarden || true; systemctl stop loopwarden")
    before = host.shell(LEFTOVERS).stdout
    assert "links/connect4" in before
    assert "table inet loopwarden" in before
    assert "198.18.0.0/15" in before
    said = host.shell(f"/src/.ci/clean-kernel-state {python}").stdout
    assert "loopwarden" in said
    assert host.shell(LEFTOVERS).stdout == ""
    host.run("systemctl", "start", "loopwarden")
    assert host.run("loopwarden", "run", "--loop", "job", "--", *curl()).stdout == "hello\n"


def test_uninstalling_leaves_nothing_of_the_program(host: Container) -> None:
    """After `make uninstall` there is no pin, no table, no slice and no command left."""
    host.shell("make -C /src uninstall")
    pins = host.shell("find /sys/fs/bpf -mindepth 1 -not -name '*.debug'")  # the kernel's own
    assert pins.stdout == ""
    left = host.shell("ls -d /usr/lib/loopwarden /usr/bin/loopwarden* 2>/dev/null || true")
    assert left.stdout == ""
    cgroups = host.shell("ls -d /sys/fs/cgroup/loopwarden.slice/*/ 2>/dev/null || true")
    assert cgroups.stdout == ""
    host.run("test", "-f", "/etc/loopwarden/loopwarden.toml")  # what a person wrote stays
