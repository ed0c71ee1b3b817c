"""Every way in which libpq asks for TLS, or for none, and for several hosts. One line each."""

import os
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from struct import pack

import psycopg

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
BUNDLE = os.environ["SSL_CERT_FILE"]
ASKED = [
    *(f"sslmode={mode}" for mode in ("disable", "allow", "prefer", "require", "verify-full")),
    f"sslmode=verify-ca sslrootcert={BUNDLE}",
    f"sslmode=verify-full sslrootcert={BUNDLE}",
    "sslmode=verify-full sslrootcert=system",
    "sslmode=verify-full sslrootcert=system sslnegotiation=direct",
    "sslmode=require sslnegotiation=direct",
    "sslmode=require ssl_min_protocol_version=TLSv1.3",
    "sslmode=require ssl_max_protocol_version=TLSv1.2",
    "sslmode=require channel_binding=prefer",
    "sslmode=require sslsni=0",
    "sslmode=require gssencmode=prefer",
    "sslmode=require max_protocol_version=latest",
    "sslmode=disable max_protocol_version=latest",
    "sslmode=require min_protocol_version=3.0",
    "sslmode=disable user=somebody password=else",
    f"host={HOST},{HOST} target_session_attrs=read-write",
    f"host=not-there.test.internal,{HOST}",
    f"host={HOST} load_balance_hosts=random",
    f"host={HOST} target_session_attrs=primary",
    "connect_timeout=60 keepalives_idle=30 tcp_user_timeout=60000",
]


def say(what: str, function: Callable[[], str]) -> None:
    """Print what it gives, or how it fails."""
    try:
        given = function()
    except (psycopg.Error, OSError) as error:
        given = f"{type(error).__name__}: {error}".splitlines()[0]
    print(what, "->", given, flush=True)


def asked(words: str) -> str:
    """Connect by libpq and say how."""
    with psycopg.connect(words, dbname="orders") as connection:
        raw = connection.pgconn
        found = connection.execute("SELECT count(*) FROM orders").fetchone()
        return f"tls {raw.ssl_in_use} {found} protocol {raw.protocol_version}"


def by_address(family: socket.AddressFamily, words: str) -> str:
    """Connect to the name's address of one family."""
    (found, *_) = socket.getaddrinfo(HOST, PORT, family, socket.SOCK_STREAM)
    return asked(f"host={HOST} hostaddr={found[4][0]} {words}")


def direct_tls() -> str:
    """Begin with a ClientHello, and speak PostgreSQL inside, by hand."""
    context = ssl.create_default_context(cafile=BUNDLE)
    context.set_alpn_protocols(["postgresql"])
    with (
        socket.create_connection((HOST, PORT), 60) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as inside,
    ):
        words = b"user\0postgres\0database\0orders\0\0"
        inside.sendall(pack("!ii", 8 + len(words), 196608) + words)
        return f"{inside.selected_alpn_protocol()} {inside.recv(1)!r}"


if __name__ == "__main__":
    for line in ASKED:
        say(line.replace(BUNDLE, "BUNDLE").replace(HOST, "HOST"), partial(asked, line))
    for kind in (socket.AF_INET, socket.AF_INET6):
        for mode in ("sslmode=disable", f"sslmode=verify-full sslrootcert={BUNDLE}"):
            say(f"{kind.name} {mode.split()[0]}",
                partial(by_address, kind, mode))  # fmt: skip
    say("direct by hand", direct_tls)
    sys.exit(0)
