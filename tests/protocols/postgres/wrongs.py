"""Clients whose first bytes have no one meaning, or ask for what no loop may have.

Each row: what is wrong, what the loop sends, and the SQLSTATE of the answer. Nothing is leased,
opened or sent upstream for any of them.
"""

from agent.protocols.postgres import limits
from agent.protocols.postgres.messages import SSL_REQUEST, startup_message
from tests.protocols.postgres.world import query, startup

V30, V32 = 3 << 16, 3 << 16 | 2
GSS_REQUEST = (8).to_bytes(4, "big") + (1234 << 16 | 5680).to_bytes(4, "big")
CANCEL_CODE = (1234 << 16 | 5678).to_bytes(4, "big")
PROTOCOL, DENIED = "08P01", "42501"


def packet(body: bytes, length: int | None = None, code: int = V30) -> bytes:
    """Return a startup packet of this body; length as told."""
    told = len(body) + 8 if length is None else length
    return told.to_bytes(4, "big", signed=told < 0) + code.to_bytes(4, "big") + body


def _pairs(*pairs: tuple[str, str]) -> bytes:
    return startup_message(V30, pairs)


def _raw(body: bytes) -> bytes:
    return packet(b"user\0agent\0" + body)


def _sized(total: int) -> bytes:
    fixed = len(startup(application_name=""))
    return startup(application_name="x" * (total - fixed))


WRONGS: tuple[tuple[str, bytes, str], ...] = (
    # lengths
    ("length 0", packet(b"", 0), PROTOCOL),
    ("length 3", packet(b"", 3), PROTOCOL),
    ("length 4", packet(b"", 4), PROTOCOL),
    ("length 7", packet(b"", 7), PROTOCOL),
    ("length -1", packet(b"", -1), PROTOCOL),
    ("length -2^31", packet(b"", -(2**31)), PROTOCOL),
    ("length 2^31-1", packet(b"", 2**31 - 1), PROTOCOL),
    ("length 65536", packet(b"", 65_536), PROTOCOL),
    ("one byte too long", _sized(limits.STARTUP_BYTES_MAX + 1), PROTOCOL),
    # not PostgreSQL
    ("HTTP", b"GET / HTTP/1.1\r\nHost: orders.internal\r\n\r\n", PROTOCOL),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", PROTOCOL),
    ("TLS where none was asked for", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", PROTOCOL),
    ("a query at once", query("SELECT 1"), PROTOCOL),
    ("a password at once", b"p\0\0\0\x08abc\0", PROTOCOL),
    # versions
    ("protocol 2", packet(bytes(280), code=2 << 16), "0A000"),
    ("protocol 4", packet(b"\0", code=4 << 16), "0A000"),
    ("protocol 0", packet(b"\0", code=0), "0A000"),
    ("an unknown request", packet(b"", code=1234 << 16 | 5681), "0A000"),
    # requests
    ("SSLRequest with bytes", packet(b"x", code=1234 << 16 | 5679), PROTOCOL),
    ("GSSENCRequest with bytes", packet(b"x", code=1234 << 16 | 5680), PROTOCOL),
    ("startup behind SSLRequest", SSL_REQUEST + startup(), PROTOCOL),
    ("one byte behind SSLRequest", SSL_REQUEST + b"\0", PROTOCOL),
    ("SSLRequest twice", SSL_REQUEST + SSL_REQUEST, PROTOCOL),
    ("GSSENCRequest twice", GSS_REQUEST + GSS_REQUEST, PROTOCOL),
    ("a cancel key of no bytes", packet(b"\0\0\0\1", code=1234 << 16 | 5678), PROTOCOL),
    ("a cancel key of 3 bytes", packet(b"\0\0\0\1abc", code=1234 << 16 | 5678), PROTOCOL),
    ("a cancel key of 257 bytes", packet(bytes(261), code=1234 << 16 | 5678), PROTOCOL),
    # parameters
    ("no end", packet(b"user\0agent\0"), PROTOCOL),
    ("no end of a value", packet(b"user\0agent"), PROTOCOL),
    ("a name without value", _raw(b"database\0"), PROTOCOL),
    ("nothing", packet(b""), PROTOCOL),
    ("bytes behind the end", _raw(b"\0x"), PROTOCOL),
    ("parameters behind the end", _raw(b"\0database\0secret\0\0"), PROTOCOL),
    ("a query within the packet", _raw(b"\0" + query("DROP TABLE a")), PROTOCOL),
    ("user twice", _raw(b"user\0postgres\0\0"), PROTOCOL),
    ("a setting twice", _raw(b"DateStyle\0ISO\0datestyle\0SQL\0\0"), PROTOCOL),
    ("a value not in UTF-8", _raw(b"application_name\0\xff\0\0"), PROTOCOL),
    ("an overlong UTF-8", _raw(b"application_name\0\xc0\x80\0\0"), PROTOCOL),
    ("a name not in ASCII", _raw("größe\0".encode() + b"1\0\0"), PROTOCOL),
    ("a name with a space", _raw(b"search path\0a\0\0"), PROTOCOL),
    ("a name with a line end", _raw(b"search_path\n\0a\0\0"), PROTOCOL),
    ("a name of 64 bytes", _raw(b"a" * 64 + b"\0x\0\0"), PROTOCOL),
    ("too many", _raw(b"".join(b"_pq_.a%d\0\0" % n for n in range(64)) + b"\0"), PROTOCOL),
    ("no user", _pairs(("database", "orders")), "28000"),
    ("an empty user", _pairs(("user", ""), ("database", "orders")), "28000"),
    ("a database of 64 bytes", startup(database="d" * 64), "42622"),
    ("replication=maybe", startup(replication="maybe"), PROTOCOL),
    # settings that change what a text means, or who the session is
    ("SJIS", startup(client_encoding="SJIS"), DENIED),
    ("GBK in capitals", startup(CLIENT_ENCODING="GBK"), DENIED),
    ("SQL_ASCII", startup(client_encoding="SQL_ASCII"), DENIED),
    ("LATIN1 in options", startup(options="-c client_encoding=latin1"), DENIED),
    ("strings", startup(standard_conforming_strings="off"), DENIED),
    ("strings in options", startup(options="-c standard_conforming_strings=off"), DENIED),
    ("strings, long", startup(options="--standard-conforming-strings=off"), DENIED),
    ("strings, joined", startup(options="-cstandard_conforming_strings=off"), DENIED),
    ("strings, escaped", startup(options=r"-c\ standard_conforming_strings=off"), DENIED),
    ("strings, tabs", startup(options="\t-c\tstandard_conforming_strings=0\t"), DENIED),
    ("strings, second", startup(options="-c jit=off -c Standard_Conforming_Strings=no"), DENIED),
    ("backslash_quote", startup(backslash_quote="on"), DENIED),
    ("role", startup(role="postgres"), DENIED),
    ("role in options", startup(options="-c role=postgres"), DENIED),
    ("session_authorization", startup(session_authorization="postgres"), DENIED),
    ("session_replication_role", startup(session_replication_role="replica"), DENIED),
    ("row_security", startup(row_security="off"), DENIED),
    ("transaction_read_only", startup(transaction_read_only="off"), DENIED),
    ("local_preload_libraries", startup(local_preload_libraries="x"), DENIED),
    ("an unknown setting", startup(whatever="1"), DENIED),
    ("an extension's setting", startup(options="-c pg_stat.x=1"), DENIED),
    ("User with a capital", _raw(b"User\0postgres\0\0"), PROTOCOL),
    ("Options with a capital", startup(Options="-c role=postgres"), DENIED),
    # options
    ("a switch", startup(options="-d 5"), PROTOCOL),
    ("a switch -f", startup(options="-fs"), PROTOCOL),
    ("-c without value", startup(options="-c"), PROTOCOL),
    ("-c without =", startup(options="-c jit"), PROTOCOL),
    ("-- alone", startup(options="--"), PROTOCOL),
    ("--=x", startup(options="--=x"), PROTOCOL),
    ("a word", startup(options="jit=off"), PROTOCOL),
    ("two values", startup(options="-c jit=on -c jit=off"), PROTOCOL),
    ("two values, two ways", startup(options="-c jit=on", jit="off"), PROTOCOL),
    ("too many options", startup(options="-c jit=on " * 65), PROTOCOL),
    # floods
    ("endless passwords", startup() + b"p\0\0\0\x05\0" * 5, PROTOCOL),
    ("a password of length 3", startup() + b"p\0\0\0\x03\0", PROTOCOL),
    ("an endless password", startup() + b"p\x7f\xff\xff\xff\0", PROTOCOL),
)
