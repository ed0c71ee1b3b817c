"""Invariant: whatever is around it, a secret of a known shape is cut out, and soon."""

import functools

from agent.model.redaction import LOOKED_AT_CHARACTERS_MAX, redact
from tests.fuzz.engine import main
from tests.unit.spent import is_quick

CANARY = "c4n4ry-value-123"
CPU_S_MAX = 0.25
ARGUMENTS = 40  # that stand before it: what is too far behind is not shown at all
WHOLE = (
    ("--api-key", CANARY),
    ("-u", f"bob:{CANARY}"),
    (f"--password={CANARY}",),
    (f"Authorization: Digest {CANARY}",),
)
INSIDE = (
    f"--password={CANARY}",
    f"X-Api-Key: {CANARY}",
    f"https://bob:{CANARY}@x/y",
    f"Authorization: Bearer {CANARY}",
    f'{{"password": "{CANARY}"}}',
    f'Authorization: Token token="{CANARY}"',
)
SEEDS = (
    b"curl\0-H\0Authorization: x\0https://x/?a=b",
    b"docker\0--password-stdin",
    b"sh\0-c\0token: 'a' secret=\"b\" x=token= bearer",
    b"psql\0postgresql://u:p@db/x\0-u\0--user\0-U",
    b"eyJaaaaaaaa.bbbbbbbb.c\0ghp_0123456789abcdef0123 AKIA0123456789ABCDEF sk- xoxb-",
    b"password=" + b"p" * 1_200 + b" https://u:",
)


def check(data: bytes) -> None:
    """Put each shape behind these arguments, and into the last of them."""
    given = data.decode("utf-8", "replace").split("\0")[:ARGUMENTS]
    assert is_quick(functools.partial(_check, given), CPU_S_MAX)


def _check(given: list[str]) -> None:
    for shape in WHOLE:
        _check_cut(("tool", *given, *shape))
    for inside in INSIDE:
        for room in (LOOKED_AT_CHARACTERS_MAX - len(inside) // 2, 900):
            before = given[-1][:room]
            _check_cut(("tool", *given[:-1], f"{before} {inside} {given[0]}"))


def _check_cut(argv: tuple[str, ...]) -> None:
    shown = " ".join(redact(argv))
    assert CANARY[:12] not in shown, argv


if __name__ == "__main__":
    main("redaction")
