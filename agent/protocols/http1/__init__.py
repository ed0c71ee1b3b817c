"""HTTP/1.1 (RFC 9110, 9112): strict requests, canonical forwarding, scrubbed answers."""

from agent.model.credential import Shape
from agent.protocols.http1.ending import NAME
from agent.protocols.http1.relay import HttpRelay
from agent.wire.relay import ProtocolSpec

SPEC = ProtocolSpec(
    name=NAME,
    accepts=(
        Shape.BEARER,
        Shape.BASIC,
        Shape.HEADER,
        Shape.QUERY_PARAMETER,
        Shape.CLIENT_CERTIFICATE,
        Shape.AWS_KEYS,
    ),
    relay=HttpRelay,
    alpn=("http/1.1", "http/1.0"),  # `curl -0` asks for the second alone
    answers_strays=True,  # 421
)
