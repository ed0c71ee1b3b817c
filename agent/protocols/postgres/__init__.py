"""PostgreSQL's protocol 3: sessions opened by us, every statement judged, answers checked."""

from agent.model.credential import Shape
from agent.protocols.postgres.answers import NAME
from agent.protocols.postgres.relay import PostgresRelay
from agent.protocols.postgres.sql import classify, is_shared, kin
from agent.wire.relay import Kinship, ProtocolSpec

SPEC = ProtocolSpec(
    name=NAME,
    accepts=(Shape.PASSWORD, Shape.CLIENT_CERTIFICATE),
    relay=PostgresRelay,
    alpn=("postgresql",),
    alpn_required=True,
    in_band_tls=True,
    classify=classify,
    kinship=Kinship(kin, is_shared),
)
