"""What the collector's queries look like to a person."""

from typing import Any

from agent.cli import collector_query as query_text
from agent.cli.collector_text import Cell, Paint, clean, duration, moment, size, table

Row = dict[str, Any]
_ID_TAIL = 10  # the random end of an id tells more than its time; queries take it


def short(identifier: str) -> str:
    """Return the end of an id, enough to name it in a query."""
    return identifier[-_ID_TAIL:]


def hosts(rows: list[Row], paint: Paint) -> str:
    """Hosts with the state of their chains."""
    cells = [
        [
            row["name"],
            row["host_id"],
            str(row["seq"]),
            Cell(moment(row["seen_ms"]) + " silent", "red")
            if row["silent"]
            else moment(row["seen_ms"]),
            row["version"] or "-",
            _count(row["alarms"]),
            _count(row["gaps"]),
            _count(row["refusals"]),
        ]
        for row in rows
    ]
    header = ("HOST", "ID", "RECORDS", "LAST SEEN", "VERSION", "ALARMS", "GAPS", "REFUSED")
    return table(header, cells, paint)


def _count(number: int) -> Cell:
    return Cell(str(number), "red" if number else "dim")


def sessions(rows: list[Row], paint: Paint) -> str:
    """One line a session."""
    cells = [
        [
            moment(row["opened_ms"]),
            short(row["session_id"]),
            row["host"] or row["host_id"],
            row["loop"] or "-",
            short(row["run_id"]) or "-",
            row["target"] or Cell(row["destination"] or "-", "yellow"),
            _process(row),
            str(row["operations_seen"]),
            _count(row["denied"]),
            _state(row),
        ]
        for row in rows
    ]
    header = (
        "OPENED", "SESSION", "HOST", "LOOP", "RUN", "TARGET", "PROCESS", "OPS", "DENIED", "END",
    )  # fmt: skip
    return table(header, cells, paint, width=40)


def _process(row: Row) -> str:
    return f"{row['exe'].rpartition('/')[2] or '?'}[{row['pid']}]" if row["pid"] else "-"


def _state(row: Row) -> Cell:
    if row["closed_ms"] is None:
        return Cell("open", "cyan")
    fine = row["reason"] in ("done", "downstream-closed", "upstream-closed", "run-ended")
    return Cell(row["reason"], "green" if fine else "red")


def runs(rows: list[Row], paint: Paint) -> str:
    """One line a run."""
    cells = [
        [
            moment(row["started_ms"]),
            short(row["run_id"]),
            row["host"] or row["host_id"],
            row["loop"],
            row["tier"],
            initiator(row["initiator"]),
            str(row["operations"]),
            Cell("live", "cyan") if row["ended_ms"] is None else row["end_reason"],
            " ".join(row["argv"]) or row["cgroup_path"],
        ]
        for row in rows
    ]
    header = ("STARTED", "RUN", "HOST", "LOOP", "TIER", "BY", "OPS", "END", "COMMAND")
    return table(header, cells, paint)


def initiator(by: Row | None) -> str:
    """Who triggered a run, in one line."""
    if not by:
        return "unknown"
    name = by["user"] or f"uid {by['uid']}"
    where = f" on {by['tty']}" if by["tty"] else ""
    local = f"{name} ({by['exe'] or '?'}[{by['pid']}]{where})"
    token = by.get("token")
    return f"{token['subject']} of {token['issuer']}, as {local}" if token else local


def _origin(by: Row | None) -> list[tuple[str, str]]:
    """What else is known of who started a run; runs of earlier versions have none of it."""
    if not by:
        return []
    token, facts = by.get("token"), []
    if token and token["claims"]:
        claims = (f"{name}={value}" for name, value in sorted(token["claims"].items()))
        facts.append(("claims", ", ".join(claims)))
    if by.get("service"):
        facts.append(("unit", f"{by['service']} (invocation {by['invocation'] or 'unknown'})"))
    if by.get("container"):
        facts.append(("container", by["container"]))
    above = [f"{one['exe'] or one['comm']}[{one['pid']}]" for one in by.get("parents", ())]
    return [*facts, ("below", " ← ".join(above))] if above else facts


def who(rows: list[Row], paint: Paint) -> str:
    """Who had access to a target."""
    cells = [
        [
            row["host"] or row["host_id"],
            row["loop_name"] or row.get("loop") or "-",
            short(row["run_id"]),
            initiator(row["initiator"]),
            row["via"] + " " + short(row.get("session_id") or row["lease_id"]),
            _process(row) if row["via"] == "session" else " ".join(row["argv"] or []) or "-",
            moment(row["since_ms"]),
            Cell("still", "cyan") if row["until_ms"] is None else moment(row["until_ms"]),
        ]
        for row in rows
    ]
    header = ("HOST", "LOOP", "RUN", "BY", "VIA", "PROCESS", "SINCE", "UNTIL")
    return table(header, cells, paint)


def operation_line(row: Row, paint: Paint) -> str:
    """One finished operation, or one session that ended without any, for `tail`."""
    host, process = row["host"] or row["host_id"], _process(row)
    if row["kind"] == "session":
        what = row["target"] or row["destination"] or row["detail"]
        text = f"session {short(row['session_id'])} {what}"
        verdict = paint(
            clean(row["reason"]), "red" if row["reason"] != "downstream-closed" else "dim"
        )
        at = row["opened_ms"]
    else:
        text = f"{row['target'] or '-'} {query_text.what(row, query_text.TAIL_CHARACTERS_MAX)}"
        verdict = outcome(row, paint)
        at = row["at_ms"]
    loop = row["loop"] or "-"
    said = clean(f"{host}  {loop}  {process}  {text}")
    did = f"{query_text.did(row, paint)}  " if query_text.is_query(row) else ""
    return f"{paint(moment(at), 'dim')}  {said}  {did}{verdict}"


def outcome(row: Row, paint: Paint) -> str:
    """Verdict and outcome of an operation in a few words."""
    if row["verdict"] == "deny":
        said = f"denied {query_text.code(row)} {row['reason']} by {row['rule']}"
        return paint(clean(said), "red")
    done = row["outcome"]
    if done is None:
        return paint("running", "cyan")
    text = clean(f"{query_text.code(row)} {done}".strip())
    failed = query_text.is_query(row) and row["status"]
    return paint(text, "green" if done == "answered" and not failed else "yellow")


def session(row: Row, paint: Paint) -> str:
    """Everything of one session."""
    lines = [f"{paint('session', 'bold')} {clean(row['session_id'])}  {clean(_state(row).text)}"]
    lines += _facts(row)
    lines += ["", paint("process tree", "bold"), *_tree(row)]
    lines += ["", paint("operations", "bold") + f" ({len(row['operations_list'])})"]
    for one in row["operations_list"]:
        lines += _operation(one, _process(row), paint)
    return "\n".join(lines)


def _facts(row: Row) -> list[str]:
    run = row["run"]
    facts = [
        ("host", f"{row['host']} ({row['host_id']})"),
        ("loop", row["loop"] or "-"),
        ("run", f"{row['run_id'] or '-'} ({row['tier']}, evidence {row['evidence']})"),
        ("started by", initiator(run["initiator"] if run else None)),
        *_origin(run["initiator"] if run else None),
        ("command", " ".join(run["argv"]) or run["cgroup_path"] if run else "-"),
        ("target", f"{row['target'] or 'none'} at {row['destination']}"),
        ("opened", moment(row["opened_ms"])),
        ("closed", f"{moment(row['closed_ms'])} {row['reason']} {row['detail']}".strip()),
        ("to loop", size(row["downstream_bytes"])),
        ("to target", size(row["upstream_bytes"])),
    ]
    return [f"  {name:<11} {clean(text)}" for name, text in facts]


def _tree(row: Row) -> list[str]:
    """The process that made the connection, below its ancestors."""
    chain = [*reversed(row["ancestors"]), row["process"]]
    lines = []
    for depth, process in enumerate(one for one in chain if one):
        command = " ".join(process["argv"]) or process["exe"] or process["comm"]
        mark = "  " * depth + ("└─ " if depth else "")
        exe = "" if command.startswith(process["exe"]) else f"{process['exe']}: "
        text = f"{process['pid']}  uid {process['uid']}  {exe}{command}"
        lines.append("  " + mark + clean(text))
    return lines or ["  unknown"]


def _operation(one: Row, process: str, paint: Paint) -> list[str]:
    head = query_text.what(one, query_text.SHOW_CHARACTERS_MAX)
    lines = [f"  {paint(moment(one['at_ms']), 'dim')}  {head}  {outcome(one, paint)}"]
    facts = [f"rule {one['rule']}", f"verdict {one['verdict']}"]
    if query_text.is_query(one):
        facts.insert(0, process)
        lines += [f"      {line}" for line in query_text.facts(one)]
        facts += query_text.result(one) if one["outcome"] not in (None, "denied") else []
    if one["outcome"] not in (None, "denied"):
        facts += [
            f"{size(one['request_bytes'])} up",
            f"{size(one['response_bytes'])} down",
            duration(one["duration_ns"]),
        ]
    facts += [f"lease {short(one['lease_id'])}"] if one["lease_id"] else []
    facts += [f"upstream {one['upstream']}"] if one["upstream"] else []
    facts += [f"durable on {one['durability']}"] if one["durability"] else []
    lines.append("      " + clean(", ".join(facts)))
    if one["explanation"]:
        lines.append("      " + clean(one["explanation"]))
    return lines


def verification(rows: list[Row], paint: Paint) -> str:
    """The result of `verify`, one line a host."""
    cells = [
        [
            row["host"],
            str(row["records"]),
            str(row["last_seq"]),
            _count(row["gaps"]),
            "-" if row["signed_seq"] is None else str(row["signed_seq"]),
            Cell("intact", "green")
            if row["bad_seq"] is None
            else Cell(f"BAD at {row['bad_seq']}: {row['detail']}", "red"),
        ]
        for row in rows
    ]
    return table(("HOST", "RECORDS", "LAST", "GAPS", "SIGNED", "CHAIN"), cells, paint, width=100)
