"""Invariant: any frame is a request that is written and read again the same, or it is refused."""

from msgspec import MsgspecError

from agent.broker.control import (
    AdmitRun,
    GetStatus,
    ListLoops,
    RegisterLoop,
    Revoke,
    StartRun,
    decode_reply,
    decode_request,
    encode,
)
from agent.model.ids import RunId
from tests.fuzz.engine import main

# what the server takes for another language
REFUSED = (MsgspecError, UnicodeDecodeError, RecursionError)
SEEDS = (
    encode(StartRun("nightly", ("curl", "-v"), "")),
    encode(AdmitRun(RunId("0" * 26))),
    encode(RegisterLoop("nightly", "/a.slice")),
    encode(Revoke("nightly")),
    encode(ListLoops()),
    encode(GetStatus()),
    b"\x92" + encode("GetStatus") + b"\x91" * 2_000,
    b"\xdd\xff\xff\xff\xff" + encode("StartRun"),
)


def check(data: bytes) -> None:
    """Read it as the broker, and as the CLI reads replies."""
    try:
        request = decode_request(data)
    except REFUSED:
        pass
    else:
        assert decode_request(encode(request)) == request
    try:
        decode_reply(data)
    except REFUSED:
        return


if __name__ == "__main__":
    main("control_request")
