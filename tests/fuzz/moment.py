"""Invariant: any text is a time, a ULID or an address in its one form, or a ValueError says why."""

from agent.cli.collector_time import parse_moment_ms, parse_span_s
from agent.model.ids import decode_ulid, encode_ulid
from agent.policy.address import Address, parse_host_port, parse_url
from tests.fuzz.engine import main

NOW_MS = 1_800_000_000_000
SEEDS = (
    b"now",
    b"90s",
    b"999999d",
    b"2026-11-30T14:05:00+01:00",
    b"0001-01-01T00:00:00",
    b"9999-12-31T23:59:59.999999-23:59",
    b"01ARZ3NDEKTSV4RRFFQ69G5FAV",
    b"7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
    b"https://api.example.com:8443/",
    b"http://[::ffff:10.0.0.9]:80",
    b"[fe80::1%1]:443",
    b"xn--bcher-kva.example.:443",
)


def check(data: bytes) -> None:
    """Read it as each; what was read, written again, reads the same."""
    for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        _check_times(text)
        _check_ulid(text)
        _check_address(text)


def _check_times(text: str) -> None:
    try:
        assert parse_span_s(text) >= 0
    except ValueError:
        pass
    try:
        parse_moment_ms(text, NOW_MS)
    except ValueError:
        return


def _check_ulid(text: str) -> None:
    try:
        raw = decode_ulid(text)
    except ValueError:
        return
    assert encode_ulid(raw) == text


def _check_address(text: str) -> None:
    for parse, prefix in ((parse_host_port, ""), (parse_url, "http")):
        try:
            found = parse(text)
        except ValueError:
            continue
        host = f"[{found.host}]" if ":" in found.host else found.host
        again = f"{found.scheme}://{host}:{found.port}" if prefix else f"{host}:{found.port}"
        assert parse(again) == found == Address(found.scheme, found.host, found.port)


if __name__ == "__main__":
    main("moment")
