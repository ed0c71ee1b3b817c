"""Runs as map values, addresses as text, configuration limits."""

import ctypes
import ipaddress
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import abi
from agent.kernel.argv import ARGUMENTS_MAX
from agent.kernel.config import PlaneConfig
from agent.kernel.events import Emptied, parse_event
from agent.kernel.flows import canonical_address, canonical_text
from agent.kernel.runs import (
    ARGV_BYTES_MAX,
    RunTable,
    fitted,
    fresh_tag,
    parse_run,
    serialize_run,
    shorten_argv,
)
from agent.model.flow import Tier
from agent.model.ids import CgroupId, LoopName, RunId, Tag
from agent.model.loop import Initiator, Parent, Run, TokenIdentity

RUN_ID = RunId("01J00000000000000000000000")


def _run(path: str = "/loopwarden.slice/run-x") -> Run:
    who = Initiator(1000, "ada", 7, "/bin/sh", "pts/0", "/user.slice")
    return Run(
        RUN_ID, LoopName("nightly"), Tag(9), CgroupId(3), path, Tier.LAUNCHED, False, who, ("a",), 5
    )


def test_a_run_survives_the_map() -> None:
    """What is written is what a restarted daemon reads."""
    assert parse_run(serialize_run(_run())) == _run()


def test_a_description_is_bounded() -> None:
    """A description of exactly the map's room fits; one byte more is refused."""
    size = serialize_run(_run("/")).size
    fitting = "/" + "x" * (abi.META_BODY_MAX - size - 2)
    assert serialize_run(_run(fitting)).size == abi.META_BODY_MAX
    with pytest.raises(ValueError, match="exceeds"):
        serialize_run(_run(fitting + "x"))


def _long_run() -> Run:
    parents = tuple(Parent(1 << 22, 1000, "c" * 16, "/" + "e" * 95) for _ in range(6))
    claims = tuple((f"claim{number}", "v" * 64) for number in range(16))
    token = TokenIdentity("https://" + "i" * 192, "s" * 512, claims[:10])
    who = Initiator(1000, "ada", 7, "/" + "x" * 511, "pts/0", "/" + "u" * 511, "a.service",
                    "0" * 32, "docker/" + "f" * 64, parents, token)  # fmt: skip
    return replace(_run(), argv=("a" * 90,) * 10, initiator=who)


def test_who_started_a_run_stays_when_room_is_short() -> None:
    """Programs of parents go first, then parents, then arguments; never a token's identity."""
    run = _long_run()
    assert parse_run(serialize_run(fitted(run))) == fitted(run)
    kept = fitted(run).initiator
    assert kept.token == run.initiator.token
    assert (kept.exe, kept.unit, kept.service) == (
        run.initiator.exe, run.initiator.unit, run.initiator.service)  # fmt: skip
    assert all(not parent.exe for parent in kept.parents)
    short = replace(run, argv=("a",))
    room = fitted(replace(short, initiator=replace(short.initiator, exe="", unit="")))
    assert len(room.initiator.parents) == 6


def test_a_run_that_has_room_is_whole() -> None:
    """Nothing is left out of it."""
    assert fitted(_run()) == _run()


def test_a_run_of_an_earlier_version_is_read() -> None:
    """What its description lacks is empty: a daemon that is upgraded keeps its runs."""
    tree = msgspec.to_builtins(_run())
    for name in ("service", "invocation", "container", "parents", "token"):
        del tree["initiator"][name]
    body = msgspec.msgpack.encode(tree)
    meta = abi.Meta(size=len(body))
    ctypes.memmove(meta.body, body, len(body))
    assert parse_run(meta) == _run()


def test_the_command_is_bounded() -> None:
    """Arguments are kept up to the limit; then an ellipsis says that more were given."""
    fitting = ("a" * (ARGV_BYTES_MAX // 8 - 3),) * 8
    assert shorten_argv(fitting) == fitting
    assert shorten_argv((*fitting, "")) == (*fitting, "…")
    many = ("a",) * ARGUMENTS_MAX
    assert shorten_argv(many) == many
    assert shorten_argv((*many, "a")) == (*many, "…")


def test_tags_are_never_zero() -> None:
    """Zero means bystander."""
    assert all(fresh_tag() for _ in range(1000))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:0.0.0.0", "127.0.0.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%lo", "fe80::1"),
    ],
)
def test_addresses_have_one_text(text: str, canonical: str) -> None:
    """Mapped and unspecified addresses are written as what is dialled."""
    assert canonical_text(text) == canonical


@given(st.ip_addresses())
def test_canonical_text_is_stable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Canonical text of canonical text is itself, and equals that of the packed form."""
    once = canonical_text(str(address))
    assert canonical_text(once) == once
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    assert canonical_address(packed) == once


@pytest.mark.parametrize(
    "wrong",
    [
        {"instance": "a/b"},
        {"instance": ""},
        {"instance": "x" * 25},
        {"mark_prefix": 0},
        {"mark_prefix": 1 << 12},
        {"proxy_port": 0},
        {"dns_port": 65536},
        {"proxy_port": 5, "dns_port": 5},
        {"attach_cgroup": "relative"},
        {"slice_name": "a/b"},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    """Each number and name is checked at its limit."""
    with pytest.raises(ValueError, match=r"."):
        PlaneConfig(**wrong)  # type: ignore[arg-type]


def test_limits_of_a_configuration_are_included() -> None:
    """The largest values are fine."""
    config = PlaneConfig(instance="x" * 24, mark_prefix=0xFFF, proxy_port=65535, dns_port=1)
    assert config.mark_base == 0xFFF00000


class _NoMaps:
    """Stands where maps would be: parse_event asks only the runs in memory."""


def test_events_are_parsed() -> None:
    """A sample of a known run is its event; of an unknown run nothing; too short is an error."""
    runs = RunTable(_NoMaps(), {Tag(9): _run()})  # type: ignore[arg-type]
    sample = abi.Event(type=abi.EventType.EMPTIED, at_ns=4, tag=9)
    assert parse_event(bytes(sample), runs) == Emptied(RUN_ID, 4)
    assert parse_event(bytes(abi.Event(type=1, at_ns=4, tag=8)), runs) is None
    with pytest.raises(ValueError, match="bytes"):
        parse_event(bytes(ctypes.sizeof(abi.Event) - 1), runs)
    with pytest.raises(ValueError, match="99"):
        parse_event(bytes(abi.Event(type=99, tag=9)), runs)
