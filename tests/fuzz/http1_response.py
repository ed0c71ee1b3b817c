"""Invariant: an answer is passed on so that h11 reads it, without the secret, or it is refused."""

import h11

from agent.protocols.http1 import SPEC
from tests.conformance.conductor import CANARY, Conductor, World, silent
from tests.fuzz.engine import main
from tests.protocols.http1.samples import SAMPLES
from tests.protocols.http1.test_answers import BAD_ANSWERS

GET = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
SEEDS = tuple(a for sample in SAMPLES for a in sample.answers) + tuple(a for _, a in BAD_ANSWERS)


def check(data: bytes) -> None:
    """Play the bytes as the answer to one request, and end."""
    conductor = Conductor(SPEC, World(server=silent))
    conductor.down(GET)
    conductor.up(data)
    conductor.up_eof()
    conductor.down_eof()
    conductor.check_ended()
    assert CANARY not in conductor.to_loop
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(conductor.to_loop)
    whole = conductor.outcomes[0].outcome == "answered" or b"HTTP/1.1 502 " in conductor.to_loop
    while True:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            break
        if event is h11.NEED_DATA or event is h11.PAUSED:
            assert not whole, "an answer that counts as whole does not end"
            break


if __name__ == "__main__":
    main("http1_response")
