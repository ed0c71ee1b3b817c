"""Invariant: any bytes are a ClientHello, none, or the beginning of one; more bytes change no yes.

What is longer than the peek's bound is never waited for.
"""

from agent.wire.clienthello import PEEK_BYTES_MAX, ClientHello, NeedMore, NotTls, peek_client_hello
from agent.wire.detect import detect
from tests.fuzz.engine import main
from tests.unit.wire.hello import extension, message, real, records, server_name

SEEDS = (
    real(alpn=["h2", "http/1.1"]),
    real(None),
    records(message(server_name(b"a.example") + extension(0xFE0D, b"\0"))),
    records(message(server_name(b"a.example")), 7),
)


def check(data: bytes) -> None:
    """Look at all of it, and at its beginnings."""
    found = peek_client_hello(data)
    detect(data)
    if isinstance(found, NeedMore):
        assert len(data) < PEEK_BYTES_MAX
    if isinstance(found, ClientHello):
        assert peek_client_hello(data + b"\x17\x03\x03") == found
    for cut in (len(data) // 3, len(data) // 2):
        part = peek_client_hello(data[:cut])
        if not isinstance(part, NeedMore):
            assert part == found or isinstance(part, NotTls)


if __name__ == "__main__":
    main("client_hello")
