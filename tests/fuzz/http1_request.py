"""Invariant: a request is refused, or what is forwarded is that one request to h11 too.

The relay is played whole, the policy allows all: so the forwarded bytes are judged by somebody
else's parser, and the conductor checks the relay contract at every command.
"""

from agent.protocols.http1 import SPEC
from tests.conformance.conductor import Conductor, World
from tests.fuzz.engine import main
from tests.protocols.http1.malformed import MALFORMED
from tests.protocols.http1.samples import SAMPLES
from tests.protocols.http1.server import Server

SEEDS = tuple(sample.downstream for sample in SAMPLES) + tuple(row[1] for row in MALFORMED)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def check(data: bytes) -> None:
    """Play the bytes whole, and end."""
    server = Server((OK,))
    conductor = Conductor(SPEC, World(server=server))
    conductor.down(data)
    conductor.down_eof()
    conductor.check_ended()
    judged = [(operation.verb, operation.resource) for operation in conductor.judged]
    read = [
        (seen.method.decode(), seen.target.partition(b"?")[0].decode()) for seen in server.requests
    ]
    assert read == judged[: len(read)]
    assert len(judged) - len(read) <= 1, "a request was judged, and arrived as none or as part"


if __name__ == "__main__":
    main("http1_request")
