"""Who started a run, as a person reads it."""

from typing import Any

from agent.cli.collector_show import _origin, initiator

LOCAL: dict[str, Any] = {"uid": 1000, "user": "ci", "pid": 7, "exe": "/usr/bin/lw", "tty": ""}
BEARER = LOCAL | {
    "token": {"issuer": "https://ci.example", "subject": "repo:acme", "claims": {"ref": "main"}},
    "service": "ci.service",
    "invocation": "0" * 32,
    "container": "docker/3f2a",
    "parents": [{"pid": 6, "uid": 0, "comm": "sh", "exe": ""},
                {"pid": 1, "uid": 0, "comm": "init", "exe": "/sbin/init"}],
}  # fmt: skip


def test_a_bearer_is_named_before_the_local_user() -> None:
    """The verified identity is who it was; the user is what it came as."""
    assert initiator(BEARER) == "repo:acme of https://ci.example, as ci (/usr/bin/lw[7])"
    assert _origin(BEARER) == [
        ("claims", "ref=main"),
        ("unit", f"ci.service (invocation {'0' * 32})"),
        ("container", "docker/3f2a"),
        ("below", "sh[6] ← /sbin/init[1]"),
    ]


def test_runs_of_earlier_versions_are_shown() -> None:
    """Their records have none of it."""
    assert initiator(LOCAL) == "ci (/usr/bin/lw[7])"
    assert _origin(LOCAL) == _origin(None) == []
    assert initiator(None) == "unknown"
