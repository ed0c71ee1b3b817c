"""Numbers of the PostgreSQL relay. Each has a name, a behaviour and a test at it and one past it.

A message's number bounds its payload: the bytes behind its type and length. A type that is in
neither table is no message of that side (PostgreSQL documentation, chapter "Frontend/Backend
Protocol", "Message Formats"), and ends the session.
"""

STARTUP_BYTES_MAX = 10_000  # a startup packet with its length: the server's own number → 08P01
PARAMETERS_MAX = 64  # startup parameters, and settings within `options` → 08P01
PARAMETER_NAME_BYTES_MAX = 63  # NAMEDATALEN - 1 → 08P01
IDENTIFIER_BYTES_MAX = 63  # of a database's name: the server would cut the rest off → 42622
PASSWORD_MESSAGES_MAX = 4  # that a driver sends although none is asked for → 08P01
HELD_BYTES_MAX = 64 * 1024  # downstream bytes held while the session opens → Pause
HELD_BYTES_HARD = 1024 * 1024  # more in spite of Pause: the driver is broken → end
APPLICATION_NAME_BYTES_MAX = 63  # what the server keeps of application_name

LOGIN_MESSAGES_MAX = 512  # from the server before ReadyForQuery → 08P01
LOGIN_BYTES_MAX = 1024 * 1024  # all of them together → 08P01
LOGIN_MESSAGE_BYTES_MAX = 64 * 1024  # one of them → 08P01
SERVER_PARAMETERS_MAX = 128  # different ParameterStatus names → 08P01
SCRAM_ITERATIONS_MIN = 4_096  # RFC 7677 section 4; PostgreSQL's default
SCRAM_ITERATIONS_MAX = 100_000  # about 25 ms of this worker's one core → refused
SCRAM_SALT_BYTES_MAX = 1_024
SCRAM_NONCE_BYTES_MAX = 512  # ours and the server's together
SCRAM_MESSAGE_BYTES_MAX = 4_096  # server-first-message or server-final-message
BACKEND_KEY_BYTES_MIN = 4  # of protocol 3.0, and the least of 3.2
BACKEND_KEY_BYTES_MAX = 256  # of protocol 3.2

OPENING_TIMER = "opening"
OPENING_S = 30.0  # from the first byte to ReadyForQuery → 08006
CANCEL_TIMER = "cancel"
CANCEL_S = 10.0  # for the server to take a CancelRequest and close

MEBIBYTE = 1024 * 1024
SMALL = 64 * 1024
WIRE_MAX = 2**30  # one streamed message: a little more than the server makes or takes
FRONTEND = {
    ord("Q"): 16 * MEBIBYTE,
    ord("P"): 16 * MEBIBYTE,
    ord("B"): 64 * MEBIBYTE,
    ord("E"): SMALL,
    ord("D"): SMALL,
    ord("C"): SMALL,
    ord("S"): 0,
    ord("H"): 0,
    ord("X"): 0,
    ord("F"): 64 * MEBIBYTE,
    ord("p"): SMALL,
    ord("d"): WIRE_MAX,
    ord("c"): 0,
    ord("f"): SMALL,
}
BACKEND = {
    ord("R"): SMALL,
    ord("K"): 4 + BACKEND_KEY_BYTES_MAX,
    ord("S"): SMALL,
    ord("Z"): 1,
    ord("T"): MEBIBYTE,
    ord("D"): WIRE_MAX,
    ord("C"): SMALL,
    ord("I"): 0,
    ord("1"): 0,
    ord("2"): 0,
    ord("3"): 0,
    ord("n"): 0,
    ord("t"): MEBIBYTE,  # a statement may have more parameters than the count before them can say
    ord("s"): 0,
    ord("E"): MEBIBYTE,
    ord("N"): MEBIBYTE,
    ord("A"): SMALL,
    ord("V"): 64 * MEBIBYTE,
    ord("G"): SMALL * 4,
    ord("H"): SMALL * 4,
    ord("W"): SMALL * 4,
    ord("d"): WIRE_MAX,
    ord("c"): 0,
    ord("v"): SMALL,
}
