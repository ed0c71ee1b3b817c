"""Invariant: whatever is around it and however it is cut, no form of a secret comes through."""

import base64

from agent.masking.near import is_broken
from agent.masking.scrubber import Scrubber
from agent.model.secret import Secret
from tests.fuzz.engine import main

SECRET = b'tok/EN+"1-\\a='
_PERCENT = "".join(f"%{byte:02x}" for byte in SECRET).encode()
_JSON = "".join(f"\\u{byte:04x}" for byte in SECRET).encode()
SEEDS = (
    b"<" + SECRET + b">" + SECRET,
    b"a" + base64.b64encode(b"u:" + SECRET + b"\n"),
    _PERCENT + SECRET[:-1] + SECRET,
    b'{"a": "' + _JSON + b'"}',
    SECRET.hex().encode() * 2,
    _PERCENT[:-5] + _JSON,
)
_SCRUBBER = Scrubber([Secret(SECRET)])


def check(data: bytes) -> None:
    """Scrub whole and in pieces."""
    whole = _SCRUBBER.scrub(data)
    assert len(whole) == len(data)
    assert not _SCRUBBER.spans(whole), "a form came through"
    for piece in (1, 3, 16):
        stream = _SCRUBBER.stream()
        parts = [stream.feed(data[at : at + piece]) for at in range(0, len(data), piece)]
        joined = b"".join(parts) + stream.flush()
        # a form that has its first byte alone on a line may be cut there (agent.masking.near)
        assert joined == whole or is_broken(data)


if __name__ == "__main__":
    main("scrubber")
