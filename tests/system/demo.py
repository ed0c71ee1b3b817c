"""`make demo`: what loops do, from connect() to the collector, shown fact by fact.

Everything is real and on this machine: a collector on SQLite, the daemon with its roles, nginx
that checks a bearer token, PostgreSQL and OpenBao on a host of their own (a network namespace), and
programs that know nothing of any of it. Every fact is checked, not only shown: the exit code is 1
when one does not hold. With --untimed the durations are shown and not judged: for a machine that
does other things too.
"""

import contextlib
import datetime as dt
import secrets
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.servers.certificates import Authority
from tests.servers.netns import far_host
from tests.servers.nginx import Api, nginx_api
from tests.servers.openbao import Refused, lasting_openbao
from tests.servers.openbao_setup import Vault, set_up
from tests.servers.postgres import ADMIN_PASSWORD, Postgres, postgres_server
from tests.system import demo_database as database
from tests.system import demo_vault as vault
from tests.system.demo_interrupts import Interrupts
from tests.system.demo_parts import Collector, collector, sweep
from tests.system.demo_screen import Screen, shorten
from tests.system.demo_stage import LOOP, Stage, run, write_secret
from tests.system.host import Host

INSTANCE = "lw-demo"
PROXY_PORT, MARK_PREFIX = 15_001, 0x5DE  # no test takes them
UNTIMED = "--untimed"
NAME = "api.demo.internal"
NAMES = "*.demo.internal"  # of the database server's certificate
URL = f"https://{NAME}/v1/reports/today"
RECORDS_WITHIN_S = LOGGED_WITHIN_S = 60.0  # past this it hangs
LOG_LINES = 40
CURL_NO_HOST = 6  # curl(1), exit codes
OUTSIDE = "GET /v1/outside"
Step = Callable[[str], contextlib.AbstractContextManager[None]]
FAULTS = (
    RuntimeError, OSError, AssertionError, LookupError, ValueError, Refused,
    subprocess.SubprocessError,
)  # fmt: skip
SCRIPT = f"""
import json, urllib.request
with urllib.request.urlopen({f"https://{NAME}/v1/reports/2026"!r}) as answer:
    print(answer.status, json.load(answer))
"""
POLICY = """
targets:
  api:
    protocol: http
    address: https://{name}
    dial: {address}:443
    ca: {ca}
    credential: {{provider: static, file: {token}, shape: bearer}}
{database}loops:
  {loop}:
    who: [{{user: nobody}}]
    max_duration: 10m
    rules:
      - {{target: api, allow: {{method: GET, path: /v1/reports/**}}}}
{rules}"""


def main() -> int:
    """Show it all; return 0 when every fact holds."""
    interrupts = Interrupts()
    screen = Screen()
    began = time.monotonic()
    screen.title("Loopwarden", "What a loop does, from connect() to the collector")
    stack = contextlib.ExitStack()
    try:
        stage = _set_up(screen, stack, interrupts)
        for fact in (
            curl_works, python_works, outside_is_refused, rules_hold, rest_is_closed,
            database.psql_works, database.destruction_is_refused, database.hidden_write_is_caught,
            database.run_was_its_identity, vault.login_comes_and_goes,
        ):  # fmt: skip
            fact(stage)
        records(stage)
        database.records(stage, RECORDS_WITHIN_S)
        if screen.failures:
            screen.section("The end of the daemon's log")
            screen.output(
                "\n".join(stage.host.log.read_text().splitlines()[-LOG_LINES:]), LOG_LINES
            )
        screen.line()
        interrupts.ignore()
        with screen.step("Everything stopped and removed"):
            stack.close()
    except KeyboardInterrupt:
        screen.failures.append("interrupted")
    except FAULTS as error:  # a Ctrl-C on a terminal reaches the servers too
        screen.failures.append("interrupted" if interrupts.came else str(error))
    finally:
        interrupts.ignore()
        stack.close()
    screen.verdict(time.monotonic() - began)
    return 1 if screen.failures else 0


def _set_up(screen: Screen, stack: contextlib.ExitStack, interrupts: Interrupts) -> Stage:
    """Start all parts; the stack stops them in the other order."""
    with interrupts.starting():
        sweep(INSTANCE)
        folder = Path(tempfile.mkdtemp(prefix=f"{INSTANCE}-"))
        host = Host(INSTANCE, folder, proxy_port=PROXY_PORT, mark_prefix=MARK_PREFIX)
        stack.callback(host.remove)
    folder.chmod(0o755)
    tempfile.tempdir = str(folder)  # what is left of a demonstration that was killed is in it

    @contextlib.contextmanager
    def step(text: str) -> Iterator[None]:
        with screen.step(text), interrupts.starting():
            yield

    authority = Authority("demo API CA")
    ca = folder / "api-ca.pem"
    ca.write_text(authority.pem)
    with step("Collector, on its SQLite default"):
        central = stack.enter_context(collector(folder))
    with step("This host enrolled: a join token became a certificate for mutual TLS"):
        central.enroll("demo-host", folder / "identity")
    api, server, bao = _far_side(step, stack, folder / "api", authority)
    with step("Daemon: kernel, broker, proxy and reporter, each with its own user"):
        host.collector_address = central.address
        host.identity_dir = str(folder / "identity")
        write_secret(folder / "token", api.token)
        write_secret(folder / "admin", ADMIN_PASSWORD)
        write_secret(folder / "secret-id", bao.secret_id())
        host.prepare(
            POLICY.format(
                name=NAME,
                address=api.address,
                ca=ca,
                token=folder / "token",
                loop=LOOP,
                database=database.target(server, ca, folder / "admin")
                + vault.target(server, bao, ca, folder / "secret-id"),
                rules=database.RULES + vault.RULES,
            )
        )
        host.start()
    return Stage(screen, host, api, server, bao, central, ca, timed=UNTIMED not in sys.argv[1:])


def _far_side(
    step: Step, stack: contextlib.ExitStack, folder: Path, authority: Authority
) -> tuple[Api, Postgres, Vault]:
    """Start the servers, on one far host."""
    with step("API on a host of its own: nginx, wants a bearer token"):
        far = stack.enter_context(far_host())
        folder.mkdir()
        api = stack.enter_context(
            nginx_api(
                folder,
                authority,
                name=NAME,
                token=secrets.token_urlsafe(24),
                address=far.address4,
                ports=(443, 80),
                inside=far.inside,
            )
        )
    with step("PostgreSQL on the same host: TLS, passwords by SCRAM"):
        server = stack.enter_context(
            postgres_server(
                authority,
                name=NAMES,
                address=far.address4,
                port=5432,
                inside=far.inside,
                settings={"log_statement": "all"},
            )
        )
    with step("OpenBao on the same host, allowed to make logins at that PostgreSQL"):
        bao = stack.enter_context(
            lasting_openbao(authority, address=far.address4, inside=far.inside)
        )
        made = set_up(bao, server)
    return api, server, made


def _logged(stage: Stage, prefix: str) -> int:
    """Return how many requests of the API's log begin so; it writes them after it answered."""
    deadline = time.monotonic() + LOGGED_WITHIN_S
    while True:
        count = sum(line.startswith(prefix) for line in stage.api.requests())
        if count or time.monotonic() > deadline:
            return count
        select.select([], [], [], 0.02)  # nginx tells nobody when it has written a line


def curl_works(stage: Stage) -> None:
    """Fact 1."""
    stage.screen.fact("An unmodified curl without any secret gets the report")
    answer = run(stage, ["curl", "--silent", "--show-error", URL])
    served = f'GET /v1/reports/today 200 "Bearer {stage.api.token}"'
    stage.screen.holds(
        answer.code == 0 and _logged(stage, served) == 1,
        "200, and the API's own log has the token that the loop never had",
        answer.took_s,
    )
    script = "cat /proc/self/environ /proc/self/cmdline /proc/self/mountinfo; env; id"
    seen = stage.host.run(LOOP, ["sh", "-c", script])
    stage.screen.holds(
        seen.returncode == 0 and stage.api.token not in seen.stdout + seen.stderr,
        "the token is not in the loop's environment, arguments or mounts",
    )


def python_works(stage: Stage) -> None:
    """Fact 2."""
    stage.screen.fact("So does a plain Python script with urllib")
    answer = run(stage, ["/usr/bin/python3", "-c", SCRIPT], ["python3", "report.py"])
    stage.screen.holds(
        answer.code == 0 and answer.stdout.startswith("200 "),
        "200, no SDK, no proxy variable, TLS verified by the script itself",
        answer.took_s,
    )


def outside_is_refused(stage: Stage) -> None:
    """Fact 3."""
    stage.screen.fact("The same call from outside the loop, by the same user, has no token")
    curl = ["curl", "--silent", "--show-error", "--cacert", str(stage.ca_file)]
    curl += ["--resolve", f"{NAME}:443:{stage.api.address}", "--write-out", "%{http_code}", URL]
    stage.screen.command(["curl", "--silent", URL], who="nobody")
    done = stage.host.bystander(curl)
    stage.screen.output(done.stdout or done.stderr)
    stage.screen.holds(
        done.stdout.endswith("401") and _logged(stage, 'GET /v1/reports/today 401 "-"') == 1,
        "401 by the API itself: Loopwarden neither helped nor stood in the way",
    )


def rules_hold(stage: Stage) -> None:
    """Fact 4."""
    stage.screen.fact("A path that the policy does not allow is refused, with the reason")
    url = f"https://{NAME}/v1/payroll"
    answer = run(
        stage,
        ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", url],
        ["curl", "--silent", url],
    )
    said = answer.stdout.lower()
    stage.screen.holds(
        answer.stdout.endswith("403") and "rule" in said and "next" in said,
        "403 that names the rule and the next step",
        answer.took_s,
    )
    # the API writes its log in order: what came before this is there when this is
    stage.host.bystander(["curl", "--silent", f"http://{stage.api.address}/v1/marker"])
    marked = _logged(stage, "GET /v1/marker")
    reached = any("payroll" in line for line in stage.api.requests())
    stage.screen.holds(marked == 1 and not reached, "not a byte of it reached the API")


def rest_is_closed(stage: Stage) -> None:
    """Fact 5."""
    stage.screen.fact("Every other host is closed to the loop: by name, and by address")
    by_name = ["curl", "--silent", "--show-error", "--max-time", "10", "https://example.com/"]
    answer = run(stage, by_name, ["curl", "--silent", "--show-error", by_name[-1]])
    unresolved = answer.code == CURL_NO_HOST
    stage.screen.holds(unresolved, "the name does not resolve", answer.took_s)
    by_address = ["curl", "--silent", "--show-error", "--max-time", "10"]
    by_address += ["--write-out", "\n%{http_code}", f"http://{stage.api.address}/v1/outside"]
    reachable = stage.host.bystander(by_address)
    answer = run(stage, by_address, ["curl", "--silent", by_address[-1]])
    outside = _logged(stage, f"{OUTSIDE} 401")
    stage.screen.holds(
        reachable.stdout.endswith("401") and answer.stdout.endswith(("403", "421")),
        "the API's address without its name is refused; outside the loop it answers",
        answer.took_s,
    )
    stage.screen.holds(
        outside == 1 and _logged(stage, OUTSIDE) == 1, "not a byte of either reached its host"
    )


def records(stage: Stage) -> None:
    """The end: what the collector knows."""
    allowed = _await_records(stage)
    if allowed is None:
        stage.screen.holds(ok=False, text=f"the collector has the calls in {RECORDS_WITHIN_S} s")
        return
    row = stage.collector.rows("sessions", "show", allowed)[0]
    moment = dt.datetime.fromtimestamp(row["opened_ms"] / 1000, dt.UTC)
    questions = (
        ["sessions", "list"],
        ["sessions", "show", allowed],
        ["who", "--target", "api", "--at", moment.isoformat(timespec="milliseconds")],
    )
    for words in questions:
        stage.screen.section(f"loopwarden-collector {' '.join(words)}")
        for line in stage.collector.text(*words).splitlines():
            stage.screen.line(f"     {shorten(line)}")
    stage.screen.line()
    stage.screen.holds(
        stage.collector.rows("verify")[0]["intact"],
        "the chain of records is unbroken (loopwarden-collector verify)",
    )
    kept = b"".join(path.read_bytes() for path in stage.collector.state_dir.glob("*.sqlite*"))
    stage.screen.holds(stage.api.token.encode() not in kept, "and the token is in none of them")


def _await_records(stage: Stage) -> str | None:
    """Wait until the collector has an allowed and a denied call; return the former's session."""
    deadline = time.monotonic() + RECORDS_WITHIN_S
    while time.monotonic() < deadline:
        first = {
            verdict: _closed_session(stage.collector, verdict) for verdict in ("allow", "deny")
        }
        if all(first.values()):
            return first["allow"]
        select.select([], [], [], 0.1)  # the collector tells nobody when it has stored a record
    return None


def _closed_session(central: Collector, verdict: str) -> str:
    """Return the id of the loop's first closed session with such a call, "" without one."""
    rows = central.rows(
        *("sessions", "list", "--loop", LOOP, "--target", "api", "--verdict", verdict)
    )
    return next((str(row["session_id"]) for row in reversed(rows) if row["closed_ms"]), "")


if __name__ == "__main__":
    sys.exit(main())
