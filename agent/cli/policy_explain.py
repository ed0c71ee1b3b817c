"""`loopwarden policy explain`: would it be allowed, and by which rule? No daemon is needed.

The words are a method and a URL, or with --target the text of a query (`-`: from stdin), which is
classified in a process that may crash over it, as the proxy does.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any, assert_never
from urllib.parse import urlsplit

import msgspec

from agent.cli.classify import classify
from agent.cli.collector_text import clean, json_line
from agent.cli.help import Commands, add_command
from agent.model.grant import Grant, Rule
from agent.model.ids import LoopName, RunId, TargetName
from agent.model.sql import Classified
from agent.model.verdict import Allow, Deny, Verdict
from agent.policy.address import DEFAULT_PORTS, AddressError, canonical_host
from agent.policy.compile import assign_synthetic, compile_grant, compile_target, targets_of
from agent.policy.evaluate import SQL_PROTOCOLS, Evaluator
from agent.policy.evaluate_sql import Judgement, SqlEvaluator
from agent.policy.schema import LoopPolicy, Policy, TargetPolicy
from agent.policy.sql import in_order
from agent.policy.sql_names import write_name
from agent.protocols.http1.malformed import Malformed
from agent.protocols.http1.request_target import canonical_path

TEXT_BYTES_MAX = 1 << 20  # of a query from stdin
LOOPS_SHOWN_MAX = 20


class NoAnswer(Exception):
    """The question can't be answered; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict and how it came about, for print and for JSON."""

    target: TargetPolicy
    verdict: Verdict
    matched: tuple[Rule, ...]
    judgements: tuple[Judgement, ...] = ()


def add_parser(actions: Commands) -> argparse.ArgumentParser:
    """Add `explain`, and return its parser."""
    parser = add_command(
        actions,
        "explain",
        "would the loop's request or query be allowed, and by which rule?",
        "loopwarden policy explain --loop nightly-report GET https://api.github.com/repos/a/b",
        'loopwarden policy explain --loop nightly-report --target orders-db "DELETE FROM orders"',
        more="Say what the policy would decide on a loop's request or query, by which rule, and "
        "why. Exit status: 0 allowed, 1 denied or no answer. No daemon is needed.",
    )
    parser.add_argument("--loop", required=True, metavar="NAME", help="the loop of the policy")
    parser.add_argument("--target", metavar="NAME", help="of a query: the target that it is for")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument(
        "words", nargs="+", metavar="WORD", help="METHOD URL, or with --target one SQL text or -"
    )
    return parser


def explain(arguments: argparse.Namespace, policy: Policy) -> int:
    """Print the verdict and the rules that match; 0 allowed, 1 denied or no answer."""
    loop = policy.loops.get(LoopName(arguments.loop))
    if loop is None:
        known = ", ".join(sorted(policy.loops)[:LOOPS_SHOWN_MAX]) or "none"
        text = f"the policy has no loop {arguments.loop!r} (it has: {known})"
        if arguments.json:
            print(json_line({"verdict": "deny", "explanation": text}))
        else:
            sys.stderr.write(f"{clean(text)}\n")
        return 1
    try:
        if arguments.target is None:
            answer = _of_request(policy, loop, arguments.words)
        else:
            answer = _of_query(policy, loop, TargetName(arguments.target), arguments.words)
    except NoAnswer as error:
        print(json_line({"verdict": "deny", "explanation": str(error)}) if arguments.json
              else f"denied: {clean(str(error))}")  # fmt: skip
        return 1
    if arguments.json:
        print(json_line(_document(loop, answer)))
    else:
        _print(answer)
    return 0 if isinstance(answer.verdict, Allow) else 1


def _of_request(policy: Policy, loop: LoopPolicy, words: list[str]) -> Answer:
    if len(words) != 2:
        raise NoAnswer("write METHOD URL, or --target NAME and one SQL text in quotes")
    try:
        target, path = _target_of(policy, loop, words[1])
    except ValueError as error:
        raise NoAnswer(str(error)) from error
    if target.protocol in SQL_PROTOCOLS:
        raise NoAnswer(f"target {target.name} speaks {target.protocol}: ask with --target")
    explanation = Evaluator(_grant(policy, loop, target)).explain(words[0], path)
    return Answer(target, explanation.verdict, explanation.matched)


def _of_query(policy: Policy, loop: LoopPolicy, name: TargetName, words: list[str]) -> Answer:
    target = policy.targets.get(name)
    if target is None or name not in targets_of(loop):
        if target is None:
            raise NoAnswer(f"the policy has no target {name!r}")
        raise NoAnswer(f"no rule of loop {loop.name} names target {name}")
    if target.protocol not in SQL_PROTOCOLS:
        raise NoAnswer(f"target {name} speaks {target.protocol}: ask with METHOD URL")
    if len(words) != 1:
        raise NoAnswer("write the SQL text as one word, in quotes")
    text = _text(words[0])
    classified: Classified = classify(target.protocol, text)
    explanation = SqlEvaluator(_grant(policy, loop, target)).explain(text, classified.statements)
    return Answer(target, explanation.verdict, (), explanation.judgements)


def _text(word: str) -> str:
    if word != "-":
        return word
    data = sys.stdin.buffer.read(TEXT_BYTES_MAX + 1)
    if len(data) > TEXT_BYTES_MAX:
        raise NoAnswer(f"the text has more than {TEXT_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NoAnswer("the text is not UTF-8") from error


def _grant(policy: Policy, loop: LoopPolicy, target: TargetPolicy) -> Grant:
    compiled = compile_target(target, assign_synthetic(policy))
    return compile_grant(policy, loop, compiled, RunId(""), 0)


def _target_of(policy: Policy, loop: LoopPolicy, url: str) -> tuple[TargetPolicy, str]:
    """Return the loop's target that a URL reaches, and the path as the proxy judges it.

    Raises:
        ValueError: no target, or no path that is forwarded; the message says why, for people.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("a URL begins with https:// or http://")
    try:
        host = canonical_host(parts.hostname or "")
    except AddressError as error:
        raise ValueError(str(error)) from error
    port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
    mine = targets_of(loop)
    # an https target on 443 is reached on port 80 in clear text as well
    for wanted in (port, 443 if (parts.scheme, port) == ("http", 80) else port):
        for target in policy.targets.values():
            if (target.host, target.port) == (host, wanted) and target.name in mine:
                return target, _judged(parts.path or "/")
    raise ValueError(
        f"{host}:{port} is the address of no target in the rules of loop {loop.name}; "
        "such a connection is refused"
    )


def _judged(path: str) -> str:
    """Return the canonical path.

    Raises:
        ValueError: it has none.
    """
    canonical = canonical_path(path.encode())
    if not isinstance(canonical, Malformed):
        return canonical.decode()
    raise ValueError(f"{canonical.detail}: such a request is answered 400, whatever rules say")


def _print(answer: Answer) -> None:
    total = len(answer.judgements)
    for number, judgement in enumerate(answer.judgements, 1):
        print(f"statement {number} of {total}: {clean(_kind(judgement))}")
        for name, said in _facts(judgement):
            print(f"  {name:<15} {clean(said)}")
        for rule in judgement.matched:
            print(f"  matches {rule.rule_id}: {rule.effect}, mode {rule.mode}")
    match answer.verdict:
        case Allow(rule_id, max_rows):
            limit = f", at most {max_rows} rows a result" if max_rows else ""
            print(f"allowed by rule {rule_id}, at target {answer.target.name}{limit}")
        case Deny(rule_id, _, text, next_step):
            print(f"denied ({rule_id}): {text}")
            print(f"  {next_step}")
        case _:
            assert_never(answer.verdict)
    for matched in answer.matched:
        print(f"  matches {matched.rule_id}: {matched.effect}, mode {matched.mode}")


def _kind(judgement: Judgement) -> str:
    return judgement.facts.statement.kind or "not parsed"


def _facts(judgement: Judgement) -> list[tuple[str, str]]:
    facts, statement = judgement.facts, judgement.facts.statement
    tables = {
        "reads": statement.reads,
        "writes": statement.writes,
    }
    columns = {
        "columns read": statement.columns_read,
        "columns written": statement.columns_written,
    }
    found = [("effects", ", ".join(in_order(facts.effects)))]
    found += [
        (name, ", ".join(write_name(one.schema, one.name) for one in relations))
        for name, relations in tables.items()
    ]
    found += [
        (name, ", ".join(write_name(one.table, one.name) for one in some))
        for name, some in columns.items()
    ]
    calls = [f"{write_name(one.schema, one.name)} ({one.effect})" for one in statement.calls]
    found += [
        ("calls", ", ".join(calls)),
        ("unbounded", "no WHERE condition that could be false" if statement.unbounded else ""),
        ("why", statement.why),
        ("verdict", _verdict(judgement.verdict)),
    ]
    return [(name, said) for name, said in found if said]


def _verdict(verdict: Verdict) -> str:
    return f"{'allowed' if isinstance(verdict, Allow) else 'denied'} by {verdict.rule}"


def _document(loop: LoopPolicy, answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = {
        "loop": loop.name,
        "target": answer.target.name,
        **_verdict_document(answer.verdict),
        "matched": _rules(answer.matched),
    }
    if answer.target.protocol in SQL_PROTOCOLS:
        del document["matched"]
        document["statements"] = [_statement(one) for one in answer.judgements]
    return document


def _verdict_document(verdict: Verdict) -> dict[str, Any]:
    kind = "allow" if isinstance(verdict, Allow) else "deny"
    fields = msgspec.to_builtins(verdict)
    del fields["statements"]  # they are told beside it
    return {"verdict": kind, **fields}


def _rules(rules: tuple[Rule, ...]) -> list[dict[str, str]]:
    return [{"rule": one.rule_id, "effect": one.effect, "mode": one.mode} for one in rules]


def _statement(one: Judgement) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(one.facts.statement),
        "effects": in_order(one.facts.effects),  # in force
        "syntax_effects": in_order(one.facts.statement.effects),
        **_verdict_document(one.verdict),
        "matched": _rules(one.matched),
    }
