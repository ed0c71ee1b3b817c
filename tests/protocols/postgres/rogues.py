"""Servers that must get nothing of a lease and harm nothing.

Each row: what is wrong, how the server differs from a proper one, and the SQLSTATE that the loop
gets. None of them may get a message with the password, its hash, or a proof behind the wrong.
"""

import base64

from agent.protocols.postgres import limits
from agent.protocols.postgres.messages import AUTHENTICATION_OK, message, parameter_status
from tests.protocols.postgres.server import (
    KEY,
    PARAMETERS,
    PID,
    READY,
    authentication,
    error,
    welcome,
)

SASL = authentication(10, b"SCRAM-SHA-256\0\0")
NONCE = b"r=%bserver,s=%b,i=%b"  # the test puts our nonce in front
Change = dict[str, object]
SALT = base64.b64encode(b"salt")


def _header(kind: bytes, length: int) -> bytes:
    return kind + length.to_bytes(4, "big", signed=True)


def _request(data: bytes) -> Change:
    return {"request": data}


def _behind(data: bytes) -> Change:
    return {"behind": data}


def _told(**changes: str) -> Change:
    return {"behind": welcome(parameters=PARAMETERS | changes)}


def _without(name: str) -> Change:
    told = {key: value for key, value in PARAMETERS.items() if key != name}
    return {"behind": welcome(parameters=told)}


def _first(nonce: bytes, salt: bytes = SALT, iterations: bytes = b"4096") -> Change:
    """`<nonce>` stands for the client's, which the test replaces."""
    return {"first": b"r=" + nonce + b",s=" + salt + b",i=" + iterations}


UNTRUSTED, PROTOCOL, CLOSED = "28000", "08P01", "08006"
FLOOD = limits.LOGIN_MESSAGES_MAX + 1
ROGUES: tuple[tuple[str, Change, str], ...] = (
    # TLS
    ("no TLS", {"tls": b"N"}, UNTRUSTED),
    ("error instead of TLS", {"tls": error(b"28000", b"you are not wanted")}, UNTRUSTED),
    ("bytes behind S", {"tls": b"S" + AUTHENTICATION_OK + READY}, UNTRUSTED),
    ("bytes behind N", {"tls": b"N" + SASL}, UNTRUSTED),
    ("G", {"tls": b"G"}, UNTRUSTED),
    ("small s", {"tls": b"s"}, UNTRUSTED),
    ("NUL", {"tls": b"\0"}, UNTRUSTED),
    ("TLS twice", {"tls": b"SS"}, UNTRUSTED),
    # methods that the lease does not allow
    ("cleartext", _request(authentication(3)), UNTRUSTED),
    ("md5", _request(authentication(5, b"salt")), UNTRUSTED),
    ("nothing", _request(AUTHENTICATION_OK + welcome()), UNTRUSTED),
    ("nothing, alone", _request(AUTHENTICATION_OK), UNTRUSTED),
    ("Kerberos 5", _request(authentication(2)), UNTRUSTED),
    ("SCM", _request(authentication(6)), UNTRUSTED),
    ("GSSAPI", _request(authentication(7)), UNTRUSTED),
    ("GSSAPI goes on", _request(authentication(8, b"x")), UNTRUSTED),
    ("SSPI", _request(authentication(9)), UNTRUSTED),
    ("crypt", _request(authentication(4, b"sa")), PROTOCOL),
    ("unknown method", _request(authentication(13)), PROTOCOL),
    ("negative method", _request(authentication(-1)), PROTOCOL),
    ("SCRAM-SHA-1", {"mechanisms": (b"SCRAM-SHA-1",)}, UNTRUSTED),
    ("OAUTHBEARER", {"mechanisms": (b"OAUTHBEARER",)}, UNTRUSTED),
    ("no mechanism", {"mechanisms": ()}, UNTRUSTED),
    ("PLAIN", {"mechanisms": (b"PLAIN", b"ANONYMOUS")}, UNTRUSTED),
    ("mechanisms without end", _request(authentication(10, b"SCRAM-SHA-256")), PROTOCOL),
    ("bytes behind mechanisms", _request(authentication(10, b"SCRAM-SHA-256\0\0x")), PROTOCOL),
    ("md5 with a short salt", _request(authentication(5, b"abc")), PROTOCOL),
    ("cleartext with bytes", _request(authentication(3, b"x")), PROTOCOL),
    ("SASL goes on first", _request(authentication(11, b"r=x,s=eA==,i=4096")), PROTOCOL),
    ("SASL ends first", _request(authentication(12, b"v=eA==")), PROTOCOL),
    ("no authentication code", _request(message(b"R", b"\0\0")), PROTOCOL),
    # SCRAM: what it says first
    ("iterations 1", _first(b"<nonce>x", iterations=b"1"), UNTRUSTED),
    ("iterations 4095", _first(b"<nonce>x", iterations=b"4095"), UNTRUSTED),
    ("iterations 100001", _first(b"<nonce>x", iterations=b"100001"), UNTRUSTED),
    ("iterations 2^31", _first(b"<nonce>x", iterations=b"2147483648"), UNTRUSTED),
    ("iterations of 20 digits", _first(b"<nonce>x", iterations=b"9" * 20), UNTRUSTED),
    ("iterations 0", _first(b"<nonce>x", iterations=b"0"), UNTRUSTED),
    ("iterations negative", _first(b"<nonce>x", iterations=b"-4096"), UNTRUSTED),
    ("iterations with a zero", _first(b"<nonce>x", iterations=b"04096"), UNTRUSTED),
    ("our nonce alone", _first(b"<nonce>"), UNTRUSTED),
    ("another nonce", _first(b"completely-another-nonce"), UNTRUSTED),
    ("a cut nonce", _first(b"a"), UNTRUSTED),
    ("an endless nonce", _first(b"<nonce>" + b"x" * 513), UNTRUSTED),
    ("no salt", _first(b"<nonce>x", b""), UNTRUSTED),
    ("salt not base 64", _first(b"<nonce>x", b"!!!!"), UNTRUSTED),
    ("salt with bad padding", _first(b"<nonce>x", b"eA="), UNTRUSTED),
    ("an endless salt", _first(b"<nonce>x", base64.b64encode(b"s" * 1025)), UNTRUSTED),
    ("a mandatory extension", {"first": b"m=x,r=<nonce>x,s=eA==,i=4096"}, UNTRUSTED),
    ("an extension", {"first": b"r=<nonce>x,s=eA==,i=4096,z=1"}, UNTRUSTED),
    ("parts in another order", {"first": b"s=eA==,r=<nonce>x,i=4096"}, UNTRUSTED),
    ("nothing at all", {"first": b""}, UNTRUSTED),
    ("OK before the proof", {"first_raw": AUTHENTICATION_OK + welcome()}, PROTOCOL),
    ("final before the proof", {"first_raw": authentication(12, b"v=eA==")}, PROTOCOL),
    ("cleartext within SCRAM", {"first_raw": authentication(3)}, PROTOCOL),
    ("md5 within SCRAM", {"first_raw": authentication(5, b"salt")}, PROTOCOL),
    ("SCRAM anew within SCRAM", {"first_raw": SASL}, PROTOCOL),
    # SCRAM: what it says last
    ("a wrong signature", {"final": authentication(12, b"v=" + b"A" * 43 + b"=")}, UNTRUSTED),
    ("no signature", {"final": authentication(12, b"")}, UNTRUSTED),
    ("a short signature", {"final": authentication(12, b"v=eA==")}, UNTRUSTED),
    ("a SCRAM error", {"final": authentication(12, b"e=other-error")}, UNTRUSTED),
    ("OK without a signature", {"final": AUTHENTICATION_OK}, PROTOCOL),
    ("a challenge again", {"final": authentication(11, b"r=x,s=eA==,i=4096")}, PROTOCOL),
    ("the last message twice", {"final_twice": True}, PROTOCOL),
    # framing
    ("length 0", _request(_header(b"R", 0)), PROTOCOL),
    ("length 3", _request(_header(b"R", 3)), PROTOCOL),
    ("length -1", _request(_header(b"R", -1)), PROTOCOL),
    ("length -2^31", _request(_header(b"R", -(2**31))), PROTOCOL),
    ("length 2^31-1", _request(_header(b"R", 2**31 - 1)), PROTOCOL),
    ("an HTTP server", _request(b"HTTP/1.1 400 Bad Request\r\n\r\n"), PROTOCOL),
    ("a MySQL greeting", _request(b"\x4a\0\0\0\x0a5.7.1\0"), PROTOCOL),
    ("an unknown type", _request(message(b"!", b"")), PROTOCOL),
    ("rows", _request(message(b"D", b"\0\0")), PROTOCOL),
    ("a row in between", _behind(message(b"D", b"\0\0") + READY), PROTOCOL),
    # errors
    ("an error without SQLSTATE", _request(message(b"E", b"SFATAL\0Mno\0\0")), PROTOCOL),
    ("an SQLSTATE of 4", _request(error(b"2800")), PROTOCOL),
    ("an SQLSTATE in small letters", _request(error(b"28p01")), PROTOCOL),
    ("an SQLSTATE of 6", _request(error(b"28P011")), PROTOCOL),
    ("an error without end", _request(message(b"E", b"SFATAL\0C28P01\0Mno\0")), PROTOCOL),
    ("bytes behind an error", _request(message(b"E", b"C28P01\0\0x")), PROTOCOL),
    ("an error field twice", _request(message(b"E", b"C28P01\0C00000\0\0")), PROTOCOL),
    ("an empty error", _request(message(b"E", b"\0")), PROTOCOL),
    # before it has let us in
    ("ready at once", _request(READY), PROTOCOL),
    ("parameters at once", _request(parameter_status("a", "b") + SASL), PROTOCOL),
    ("a key at once", _request(message(b"K", PID + KEY)), PROTOCOL),
    ("endless notices", _request(message(b"N", b"C00000\0\0") * FLOOD), PROTOCOL),
    ("a broken notice", _request(message(b"N", b"")), PROTOCOL),
    ("a version nobody asked for", _request(message(b"v", b"\0\3\0\0\0\0\0\0") + SASL), PROTOCOL),
    # after
    ("endless parameters", _behind(b"".join(
        parameter_status(f"p{n}", "x") for n in range(limits.SERVER_PARAMETERS_MAX + 1)
    )), PROTOCOL),
    ("one parameter for ever", _behind(parameter_status("p", "x") * FLOOD), PROTOCOL),
    ("endless bytes", _behind(parameter_status("p", "x" * 60_000) * 20), PROTOCOL),
    ("a parameter without value", _behind(message(b"S", b"name\0")), PROTOCOL),
    ("a parameter with bytes behind", _behind(message(b"S", b"a\0b\0c")), PROTOCOL),
    ("a parameter not in UTF-8", _behind(message(b"S", b"a\0\xff\0")), PROTOCOL),
    ("no key within the key", _behind(message(b"K", PID) + READY), PROTOCOL),
    ("a key of 3 bytes", _behind(message(b"K", PID + b"abc") + READY), PROTOCOL),
    ("a key of 5 bytes in 3.0", _behind(message(b"K", PID + b"abcde") + READY), PROTOCOL),
    ("a key of 257 bytes", _behind(message(b"K", PID + bytes(257)) + READY), PROTOCOL),
    ("a key of 1 MiB", _behind(message(b"K", bytes(1 << 20)) + READY), PROTOCOL),
    ("two keys", _behind(message(b"K", PID + KEY) * 2 + READY), PROTOCOL),
    ("within a transaction", _behind(message(b"Z", b"T")), PROTOCOL),
    ("within a failed one", _behind(message(b"Z", b"E")), PROTOCOL),
    ("ready without status", _behind(message(b"Z", b"")), PROTOCOL),
    ("ready with two", _behind(message(b"Z", b"II")), PROTOCOL),
    ("authentication anew", _behind(authentication(3)), PROTOCOL),
    ("OK twice", _behind(AUTHENTICATION_OK + welcome()), PROTOCOL),
    ("CopyBoth", _behind(message(b"W", b"\0\0\0")), PROTOCOL),
    # what decides over a text's meaning
    ("another encoding", _told(client_encoding="SJIS"), PROTOCOL),
    ("no encoding told", _without("client_encoding"), PROTOCOL),
    ("strings with backslashes", _told(standard_conforming_strings="off"), PROTOCOL),
    ("not told how strings are", _without("standard_conforming_strings"), PROTOCOL),
    ("somebody else", _told(session_authorization="postgres"), PROTOCOL),
    ("encoding changed in the end", _behind(
        welcome()[: -len(READY)] + parameter_status("client_encoding", "GBK") + READY
    ), PROTOCOL),
)  # fmt: skip
