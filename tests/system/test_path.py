"""The unbroken path: an unmodified program's call, from connect() to the collector."""

import json
import subprocess
import textwrap
import time

import pytest

from agent.policy.synthetic import assign
from tests.system.conftest import API_NAME, TOKEN, Stage
from tests.system.host import DONE_WITHIN_S, ENDED_WITHIN_S

CURL = ["curl", "-sS", "--max-time", "60", "-i"]
URLLIB = textwrap.dedent(
    """
    import sys, urllib.request
    with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
        sys.stdout.write(f"{answer.status} {answer.read().decode()}")
    """
)
JAVA = """
class Call { public static void main(String[] args) throws Exception {
  var call = (java.net.HttpURLConnection) new java.net.URL(args[0]).openConnection();
  System.out.println(call.getResponseCode());
} }
"""
NODE = """
fetch(process.argv[1]).then((answer) => console.log(answer.status));
"""
SYNTHETIC4, SYNTHETIC6 = assign([API_NAME])[API_NAME]


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_curl_gets_in_without_a_secret(whole: Stage, scheme: str) -> None:
    """curl in a loop, over TLS and in clear text, is answered 200; the API saw the token."""
    path = f"/v1/{scheme}-by-curl"
    done = whole.host.run("job", [*CURL, f"{scheme}://{API_NAME}{path}"])
    assert done.returncode == 0, done.stderr
    assert "HTTP/1.1 200" in done.stdout
    assert json.loads(done.stdout.split("\n\n")[-1]) == {"method": "GET", "path": path}
    assert TOKEN not in done.stdout + done.stderr
    (line,) = [line for line in whole.site.api.requests() if path in line]
    assert f"Bearer {TOKEN}" in line


def test_urllib_gets_in_without_a_secret(whole: Stage) -> None:
    """Python's urllib in a loop, with no change to it, is answered 200 over TLS."""
    url = f"https://{API_NAME}/v1/urllib"
    done = whole.host.run("job", ["/usr/bin/python3", "-c", URLLIB, url])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("200 ")


@pytest.mark.parametrize(
    "command",
    [
        ["wget", "-q", "-S", "-O", "/dev/null"],
        ["node", "-e", NODE],
        ["git", "-c", "http.followRedirects=false", "ls-remote"],
    ],
    ids=lambda command: command[0],
)
def test_other_clients_trust_what_a_run_trusts(whole: Stage, command: list[str]) -> None:
    """wget (GnuTLS), Node and git verify our leaf without an option of theirs."""
    url = f"https://{API_NAME}/v1/{command[0]}"
    done = whole.host.run("job", [*command, url])
    assert done.returncode == 0, done.stdout + done.stderr


def test_java_trusts_what_a_run_trusts(whole: Stage) -> None:
    """Java's own trust store, as the distribution lays it out, has our CA in a run."""
    source = whole.site.folder / "Call.java"
    source.write_text(JAVA)
    url = f"https://{API_NAME}/v1/java"
    done = whole.host.run("job", ["java", "-Djava.net.preferIPv4Stack=false", str(source), url])
    assert done.stdout.strip() == "200", done.stderr


@pytest.mark.parametrize(
    "command",
    [CURL, ["/usr/bin/python3", "-c", URLLIB], ["node", "-e", NODE], ["git", "ls-remote"]],
    ids=["curl", "urllib", "node", "git"],
)
def test_the_variables_are_enough_for_those_who_read_them(whole: Stage, command: list[str]) -> None:
    """Without a mount namespace, as on a host that gives users none, they trust our leaf too."""
    line = whole.host.run_command("job", [*command, f"https://{API_NAME}/v1/variables"])
    at = line.index("--user")
    line[at:at] = ["--trust", "environment"]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=DONE_WITHIN_S, check=False,
        env=whole.host.loop_environment(), cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "403" not in done.stdout


@pytest.mark.parametrize("bare", [CURL, ["/usr/bin/python3", "-c", URLLIB]])
def test_the_trust_does_not_hang_on_variables(whole: Stage, bare: list[str]) -> None:
    """A program that was started with an empty environment trusts our leaf too."""
    done = whole.host.run("job", ["env", "-i", *bare, f"https://{API_NAME}/v1/bare"])
    assert done.returncode == 0, done.stderr
    assert "200" in done.stdout


def test_the_same_call_from_outside_is_refused_by_the_api(whole: Stage) -> None:
    """The same user, outside the loop, to the API itself: 401."""
    site = whole.site
    where = f"{API_NAME}:443:{site.far.address4}"
    done = whole.host.bystander(
        [
            *CURL,
            "--resolve",
            where,
            "--cacert",
            str(site.folder / "ca.pem"),
            f"https://{API_NAME}/v1/outside",
        ]
    )
    assert "HTTP/1.1 401" in done.stdout, done.stderr
    assert TOKEN not in done.stdout


@pytest.mark.parametrize("address", [SYNTHETIC4, SYNTHETIC6])
def test_outside_gets_nothing_at_the_address_that_the_loop_uses(whole: Stage, address: str) -> None:
    """The same user and address as the loop's flow: no answer at all."""
    host = f"[{address}]" if ":" in address else address
    where = f"{API_NAME}:80:{host}"
    done = whole.host.bystander([*CURL, "--resolve", where, f"http://{API_NAME}/v1/outside2"])
    assert done.returncode != 0
    assert done.stdout == ""
    assert not [line for line in whole.site.api.requests() if "outside2" in line]


def test_outside_may_not_talk_to_the_proxy(whole: Stage) -> None:
    """A process that is no loop's is refused at the proxy's own port."""
    url = f"http://127.0.0.1:{whole.host.proxy_port}/v1/direct"
    done = whole.host.bystander([*CURL, "-H", f"Host: {API_NAME}", url])
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("path", "rule"), [("/v1/secret/keys", "job/1"), ("/admin", "default-deny")]
)
def test_a_denied_path_says_rule_and_next_step(whole: Stage, path: str, rule: str) -> None:
    """A path that a rule denies, or none allows: 403 with rule, reason and next step."""
    before = len(whole.site.api.requests())
    done = whole.host.run("job", [*CURL, f"https://{API_NAME}{path}"])
    assert "HTTP/1.1 403" in done.stdout, done.stderr
    answer = json.loads(done.stdout.split("\n\n")[-1])
    assert answer["rule"] == rule
    assert answer["reason"] == "policy-denied"
    assert answer["next_step"]
    assert len(whole.site.api.requests()) == before
    assert whole.operations(1, resource=path, verdict="deny")


@pytest.mark.parametrize(
    "url",
    [
        "https://unlisted.example/",
        "http://unlisted.example/",
        "https://{far}:8443/",
        "http://{far}:81/",
    ],
)
def test_an_unlisted_host_fails_closed(whole: Stage, url: str) -> None:
    """A name or an address that is no target's never gets an answer of that host."""
    done = whole.host.run("job", [*CURL, url.format(far=whole.site.far.address4)])
    assert "HTTP/1.1 200" not in done.stdout
    assert done.returncode != 0 or "HTTP/1.1 4" in done.stdout


def test_an_echo_of_the_token_is_scrubbed(whole: Stage) -> None:
    """An API that repeats the request's headers does not give the token to the loop."""
    done = whole.host.run("job", [*CURL, f"https://{API_NAME}/echo-headers"])
    assert "HTTP/1.1 200" in done.stdout, done.stderr
    assert TOKEN not in done.stdout


def test_a_loop_cannot_send_a_credential_of_its_own(whole: Stage) -> None:
    """Authorization from the loop is replaced, not forwarded."""
    url = f"https://{API_NAME}/v1/own-credential"
    done = whole.host.run("job", [*CURL, "-H", "Authorization: Bearer mine", url])
    assert "HTTP/1.1 200" in done.stdout, done.stderr
    (line,) = [line for line in whole.site.api.requests() if "own-credential" in line]
    assert "mine" not in line


def test_rules_are_of_the_loop(whole: Stage) -> None:
    """What one loop may, another may not."""
    allowed = whole.host.run("other", [*CURL, f"https://{API_NAME}/v1/other"])
    denied = whole.host.run("other", [*CURL, f"https://{API_NAME}/v1/curl"])
    assert "HTTP/1.1 200" in allowed.stdout
    assert "HTTP/1.1 403" in denied.stdout


def test_the_collector_tells_who_ran_what(whole: Stage) -> None:
    """One operation: initiator, loop, process of the tree, its ancestors, rule, lease, status."""
    command = f"curl -sS https://{API_NAME}/v1/told; true"
    assert whole.host.run("job", ["/bin/sh", "-c", command]).returncode == 0
    (operation,) = whole.operations(1, resource="/v1/told")
    (session,) = whole.collector.ask("sessions", "show", operation["session_id"])
    text = json.dumps(session)
    assert session["loop"] == "job"
    assert session["process"]["exe"].endswith("/curl")
    assert session["process"]["argv"][:2] == ["curl", "-sS"]
    assert session["ancestors"][0]["comm"] == "sh"
    assert '"initiator"' in text
    assert operation["status"] == "200"
    assert operation["rule"] == "job/0"
    assert operation["lease_id"]
    assert TOKEN not in text


def test_one_shot_processes_are_attributed_in_full(whole: Stage) -> None:
    """A process that is gone before accept is recorded with exe, argv and ancestors."""
    send = (
        f"exec 3<>/dev/tcp/{SYNTHETIC4}/80; "
        f"printf 'GET /v1/one-shot HTTP/1.0\\r\\nHost: {API_NAME}\\r\\n\\r\\n' >&3"
    )
    waiting = f'/bin/bash -c "{send}" one-shot-argument; read line'
    with subprocess.Popen(
        whole.host.run_command("job", ["/bin/bash", "-c", waiting]),
        stdin=subprocess.PIPE,
        env=whole.host.loop_environment(),
        cwd="/",
    ):  # the run is not over before it is recorded: its end would cut the call
        found = whole.operations(1, resource="/v1/one-shot")
    assert found
    (session,) = whole.collector.ask("sessions", "show", found[0]["session_id"])
    assert session["process"]["exe"].endswith("bash")
    assert "one-shot-argument" in session["process"]["argv"]


def test_exit_code_and_signals_pass_through(whole: Stage) -> None:
    """The command's exit code is the CLI's; a signal sent to the CLI reaches the command."""
    assert whole.host.run("job", ["/bin/sh", "-c", "exit 7"]).returncode == 7
    assert whole.host.run("job", ["/no/such/program"]).returncode == 127
    waiting = "trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    with subprocess.Popen(
        whole.host.run_command("job", ["/bin/sh", "-c", waiting]),
        stdout=subprocess.PIPE,
        text=True,
        env=whole.host.loop_environment(),
        cwd="/",
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.terminate()
        assert running.stdout.readline() == "caught\n"
        assert running.wait(ENDED_WITHIN_S) == 3


def test_a_run_ends_and_leaves_nothing(whole: Stage) -> None:
    """After the last process, the run, its cgroup and its leases are gone by themselves."""
    whole.host.run("job", [*CURL, f"https://{API_NAME}/v1/last"])
    deadline = time.monotonic() + ENDED_WITHIN_S
    while whole.host.json("loops") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert whole.host.json("loops") in ([], {"runs": []})
    slice_ = whole.host.cgroup / f"{whole.host.instance}.slice"
    assert not [each for each in slice_.iterdir() if each.is_dir()]


def test_an_unknown_loop_is_refused_with_a_reason(whole: Stage) -> None:
    """No policy, no run: exit 125 and one clear line."""
    done = whole.host.run("no-such-loop", ["/bin/true"])
    assert done.returncode == 125
    assert "no-such-loop" in done.stderr


def test_status_has_what_each_role_uses(whole: Stage) -> None:
    """The whole daemon's roles, each by its name, with resident memory, for people and programs."""
    roles = json.loads(whole.host.cli("status", "--json").stdout)["roles"]
    assert [role["name"] for role in roles] == ["broker", "kernel", "proxy@0", "reporter"]
    assert all(role["memory_bytes"] > 8 << 20 for role in roles)
    assert "roles     broker    pid " in whole.host.cli("status").stdout
