"""Invariant: any text as an identity token is refused by a named check; only signed ones pass.

It is read as it stands, as header and payload below a real signature, and as header and payload
signed by the issuer: those may pass, and then say what they say once.
"""

import asyncio
import functools
import json

from agent.broker.identity.refusal import Unverified
from agent.broker.identity.token import parse_token
from tests.fuzz.engine import main
from tests.servers.issuer import ec_key, part, sign
from tests.unit.broker.identity.rig import Rig

SEEDS = (
    b'{"alg":"ES256","typ":"JWT","kid":"ec"}\n{"iss":"https://issuer.example","aud":"loopwarden"}',
    b'{"alg":"none","kid":"ec"}\n{"iss":"https://issuer.example","exp":1e400}',
    b'{"alg":"ES256","kid":"ec","crit":["b64"],"b64":false}\n{"sub":7,"sub":8}',
    b'{"alg":"ES256","kid":"ec"}\n{"iss":["https://issuer.example"],"aud":["loopwarden",1]}',
    b'{"alg":"ES256","kid":"ec"}\n' + b"[" * 3_000,
    b'\xff{"alg":"HS256"}\n"\\ud800"',
    b"a.b.c\n=.=.=",
)


@functools.cache
def _rig() -> tuple[Rig, str]:
    rig = Rig(now_s=1_800_000_000)
    rig.issuer.keys = {"ec": ("ES256", ec_key())}
    return rig, rig.issuer.mint("ec")


def _check(text: str) -> None:
    rig, _ = _rig()
    try:
        verified = asyncio.run(rig.ask(text))
    except Unverified:
        return
    claims = parse_token(text).claims
    assert verified.identity.subject == claims["sub"]
    assert claims["aud"] in ("loopwarden", ["loopwarden"])


def check(data: bytes) -> None:
    """Read it in each of the ways."""
    _, good = _rig()
    head, _, body = data.partition(b"\n")
    at = int.from_bytes(data[:2], "big") % len(good)
    signature = good.rpartition(".")[2]
    for text in (
        data.decode("utf-8", "replace"),
        f"{part(head)}.{part(body)}.{signature}",
        good[:at] + head[:4].decode("latin-1") + good[at:],
        sign(b'{"alg":"ES256","kid":"ec"}', body, ec_key(), "ES256"),
        sign(head, json.dumps(_rig()[0].issuer.claims()).encode(), ec_key(), "ES256"),
    ):
        _check(text)


if __name__ == "__main__":
    main("identity_token")
